"""Names of things: what is found among many versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptfs.ids import Version, is_among


@given(st.sets(st.integers(1, 50)), st.integers(0, 51))
def test_a_version_is_found_exactly_where_it_is(numbers, wanted):
    ascending = [Version(number) for number in sorted(numbers)]

    assert is_among(Version(wanted), ascending) == (wanted in numbers)
