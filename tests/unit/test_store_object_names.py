"""Arrays of names do what sets of them do; who holds a pack is found both ways round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.store.liveness import TOGETHER, Holders
from ckptfs.store.object_names import (
    NO_NAMES,
    among,
    each_once,
    joined,
    names_of,
    positions,
    texts_of,
    without,
)

# few, alike, and with zeros at the end, which numpy leaves out where it shows a single name
SOME = [f"{digits}{'0' * 38}" for digits in ("00", "01", "10", "ff")]
SOME += [f"{'0' * 38}{digits}" for digits in ("01", "10", "ff")]
NAMES = st.sampled_from(SOME) | st.binary(min_size=20, max_size=20).map(bytes.hex)
LISTS = st.lists(NAMES, max_size=30)


@given(LISTS)
def test_names_come_back_as_they_were(texts):
    assert texts_of(names_of(texts)) == texts
    assert texts_of(each_once(names_of(texts))) == sorted(set(texts))


@given(LISTS, LISTS)
def test_they_are_searched_taken_out_and_joined_as_sets_are(texts, others):
    names, table = names_of(texts), each_once(names_of(others))
    assert among(names, table).tolist() == [text in set(others) for text in texts]
    assert texts_of(without(each_once(names), table)) == sorted(set(texts) - set(others))
    assert texts_of(joined([names, table, NO_NAMES])) == texts + sorted(set(others))
    found = positions(names, table).tolist()
    assert found == [sorted(set(others)).index(t) if t in others else -1 for t in texts]


@pytest.mark.parametrize(
    "texts",
    [["0" * 39], ["0" * 41, "0" * 39], ["A" * 40], ["0" * 38 + " 0"], ["é" * 40], [""], ["0" * 42]],
)
def test_what_is_no_name_of_an_object_is_refused(texts):
    with pytest.raises(ValueError, match=r"hexadecimal"):
        names_of(texts)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), LISTS, max_size=8), LISTS)
def test_holders_know_both_ways(manifests, asked):
    holders = Holders(manifests, lambda manifest: names_of(manifests[manifest]))
    every = {text for texts in manifests.values() for text in texts}
    assert holders.manifests == tuple(manifests)
    assert texts_of(holders.packs) == sorted(every)
    expected = [manifest for manifest, texts in manifests.items() if set(texts) & set(asked)]
    assert holders.of(names_of(asked)) == expected


def test_packs_are_looked_at_together_with_those_of_the_same_manifest():
    """Each batch is one pass over the manifests that hold any of it."""
    manifests = {
        str(number): [f"{at:038x}{number:02x}" for at in range(TOGETHER)] for number in range(3)
    }
    holders = Holders(manifests, lambda manifest: names_of(manifests[manifest]))
    batches = list(holders.batches(holders.packs))
    assert [sorted(batch) for batch in batches] == [sorted(texts) for texts in manifests.values()]
    assert [holders.of(names_of(batch)) for batch in batches] == [["0"], ["1"], ["2"]]
    assert list(holders.batches(NO_NAMES)) == []
