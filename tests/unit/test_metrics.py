"""ctl/metrics, read by the parser that monitoring systems use; and what it counts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ckptfs.coordinator.histogram import BOUNDS_S, Histogram
from ckptfs.fs.metrics import render_metrics
from ckptfs.store.copies_api import VolumeStatus

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.builds(
    VolumeStatus,
    name=TEXT,
    state=st.sampled_from(["up", "missing", "slow"]),
    domain=TEXT,
    used_bytes=st.integers(0, 1 << 50),
    free_bytes=st.integers(0, 1 << 50),
    directory=TEXT,
    plain_bytes=st.integers(0, 1 << 50),
)


def parsed(text: str) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    """Family → samples, as a monitoring system sees them."""
    return {
        family.name: [(s.name, dict(s.labels), s.value) for s in family.samples]
        for family in text_string_to_metric_families(text)
    }


@given(
    st.dictionaries(st.sampled_from(["versions", "packs", "dedup_ratio"]), st.integers(0, 1 << 60)),
    st.dictionaries(st.sampled_from(["jobs_started", "collections"]), st.integers(0, 1 << 60)),
    st.lists(ROWS, max_size=4, unique_by=lambda row: (row.name, row.domain)),
    st.lists(st.floats(0, 100), max_size=30),
)
def test_whatever_is_told_can_be_parsed_and_is_what_it_was(gauges, counters, volumes, times):
    stops = Histogram()
    for seconds in times:
        stops.add(seconds)

    found = parsed(render_metrics(gauges, counters, volumes, stops))

    for name, value in gauges.items():
        assert found[f"ckptfs_{name}"] == [(f"ckptfs_{name}", {}, value)]
    for name, value in counters.items():
        assert found[f"ckptfs_{name}"] == [(f"ckptfs_{name}_total", {}, value)]
    for row in volumes:
        sample = (
            "ckptfs_volume_used_bytes",
            {"volume": row.name, "domain": row.domain},
            row.used_bytes,
        )
        assert sample in found["ckptfs_volume_used_bytes"]
    assert ("ckptfs_volume_up" in found) == bool(volumes)
    buckets = {s[1]["le"]: s[2] for s in found["ckptfs_stop_seconds"] if s[0].endswith("_bucket")}
    assert buckets["+Inf"] == len(times)
    for end_s in BOUNDS_S:
        assert buckets[str(end_s)] == sum(seconds <= end_s for seconds in times)


def test_compression_is_what_a_sealed_volume_saves_and_nothing_of_a_plain_one():
    plain = VolumeStatus("a", "up", "x", 100, 1, "/a")
    rows = [plain, dataclasses.replace(plain, name="b", seal="compress", plain_bytes=250)]
    found = parsed(render_metrics({}, {}, rows, Histogram()))["ckptfs_volume_compression_ratio"]
    assert [(labels["volume"], value) for _, labels, value in found] == [("a", 1), ("b", 2.5)]


@pytest.mark.parametrize("seconds", [BOUNDS_S[0], BOUNDS_S[-1], 1e9])
def test_a_time_counts_up_to_its_own_end(seconds):
    times = Histogram()
    times.add(seconds)
    assert [count for end_s, count in times.up_to() if end_s >= seconds] == [1] * sum(
        end_s >= seconds for end_s in (*BOUNDS_S, float("inf"))
    )
    assert sum(count for end_s, count in times.up_to() if end_s < seconds) == 0
    assert times.sum_s == seconds
