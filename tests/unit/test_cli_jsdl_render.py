"""A rendered job description, read back by an XML parser of someone else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ckptfs.errors import InvalidInput
from ckptfs.jobs.jsdl_render import JobDescription, can_be_carried, render_jsdl

J = "{http://schemas.ggf.org/jsdl/2005/11/jsdl}"
P = "{http://schemas.ggf.org/jsdl/2005/11/jsdl-posix}"
C = "{urn:ckptfs:jsdl:1}"

CARRIED = st.text(
    st.one_of(
        st.sampled_from("\t\n\r <>&\"'"),
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
    )
).filter(can_be_carried)


def parse(job: JobDescription) -> etree._Element:
    return etree.fromstring(render_jsdl(job).encode())


def texts(root: etree._Element, name: str) -> list[str]:
    return [element.text or "" for element in root.iter(P + name)]


@given(st.lists(CARRIED, max_size=4), st.dictionaries(CARRIED.filter(bool), CARRIED, max_size=3))
def test_every_text_comes_back_as_it_was(arguments, environment):
    root = parse(JobDescription("n", ("prog", *arguments), env=environment))
    assert texts(root, "Argument") == arguments
    found = {e.get("name"): e.text or "" for e in root.iter(P + "Environment")}
    assert found == environment


def test_the_elements_stand_in_the_order_of_the_schema():
    job = JobDescription(
        "heat", ("python3", "-u", "heat.py"), cwd="/w", env={"A": "1"}, user="ann",
        stdin="/i", stdout="/o", stderr="/e", limits={"nofile": 64, "core": 0}, wall_time_s=60,
    )  # fmt: skip
    application = next(parse(job).iter(P + "POSIXApplication"))
    assert [e.tag.removeprefix(P) for e in application] == [
        "Executable", "Argument", "Argument", "Input", "Output", "Error", "WorkingDirectory",
        "Environment", "WallTimeLimit", "CoreDumpLimit", "OpenDescriptorsLimit", "UserName",
    ]  # fmt: skip


def test_our_block_is_last_in_the_description_and_absent_when_not_asked_for():
    description = parse(JobDescription("n", ("p",), rollback="copy", keep_last=3))[0]
    assert description[-1].tag == C + "JobCheckpointing"
    assert description.findtext(f".//{C}Rollback") == "copy"
    assert description.findtext(f".//{C}Retention/{C}KeepLast") == "3"
    assert parse(JobDescription("n", ("p",)))[0][-1].tag == J + "Application"


@pytest.mark.parametrize(
    "job",
    [
        JobDescription("n", ("p", "a\x1b[31m")),
        JobDescription("n", ("p", "caf\udce9")),
        JobDescription("n", ("p",), env={"A": "\0"}),
        JobDescription("n", ("p",), limits={"cpus": 3}),
        JobDescription("n", ()),
        JobDescription("n", ("",)),
    ],
)
def test_what_xml_or_jsdl_cannot_say_is_refused(job):
    with pytest.raises(InvalidInput):
        render_jsdl(job)
