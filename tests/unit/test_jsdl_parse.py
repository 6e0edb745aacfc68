"""JSDL: what is understood, what is refused by name, what is hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import CkptfsError, InvalidInput, OutOfRange, TooBig, Unsupported
from ckptfs.jobs.jsdl import parse_jsdl
from ckptfs.jobs.jsdl_render import CHECKPOINTING, JSDL, POSIX, JobDescription, render_jsdl
from ckptfs.jobs.resources import Machine
from ckptfs.model import Initiator

MACHINE = Machine(frozenset({"n1", "localhost"}), "x86_64", 2, 8 << 30)
SEED_BLOCK = """
<JobCheckpointing>
<Initiator>System</Initiator>
<ProtocolManagement>
<Name>CoordinatedCheckpointing</Name>
</ProtocolManagement>
<FileManagement>
<ReplicationLevel>1</ReplicationLevel>
</FileManagement>
<JobCheckpointerMatching>
<MultiThread>Yes</MultiThread>
<Sockets>Yes</Sockets>
<Incremental>No</Incremental>
</JobCheckpointerMatching>
</JobCheckpointing>"""


def document(posix="<p:Executable>/bin/heat</p:Executable>", after="", identification=""):
    return f"""<?xml version="1.0"?>
<j:JobDefinition xmlns:j="{JSDL}" xmlns:p="{POSIX}" xmlns:c="{CHECKPOINTING}"><j:JobDescription>
{identification}
<j:Application><j:ApplicationName>Heat</j:ApplicationName>
<p:POSIXApplication>{posix}</p:POSIXApplication></j:Application>{after}
</j:JobDescription></j:JobDefinition>""".encode()


def parse(*args, **fields):
    return parse_jsdl(document(*args, **fields), MACHINE)


def test_everything_that_is_served():
    found = parse(
        """<p:Executable> python3 </p:Executable>
        <p:Argument> two  blanks </p:Argument><p:Argument></p:Argument><p:Argument>a
b</p:Argument>
        <p:Input>in.txt</p:Input><p:Output>/tmp/out</p:Output><p:Error>err</p:Error>
        <p:WorkingDirectory>/tmp</p:WorkingDirectory>
        <p:Environment name="A">1 = 2</p:Environment><p:Environment name="B"/>
        <p:WallTimeLimit>60</p:WallTimeLimit><p:OpenDescriptorsLimit>1024.0</p:OpenDescriptorsLimit>
        <p:UserName>alice</p:UserName><p:GroupName>staff</p:GroupName>""",
        identification="<j:JobIdentification><j:JobName>heat</j:JobName>"
        "<j:Description>d</j:Description></j:JobIdentification>",
    )
    description = found.description
    assert description.argv == ("python3", " two  blanks ", "", "a\nb")
    assert (description.name, description.cwd, description.user) == ("heat", "/tmp", "alice")
    assert (description.stdin, description.stdout, description.stderr) == (
        "in.txt",
        "/tmp/out",
        "err",
    )
    assert description.env == {"A": "1 = 2", "B": ""}
    assert (description.limits, description.wall_time_s) == ({"nofile": 1024}, 60)
    assert found.group == "staff"


def test_the_name_comes_from_the_program():
    assert parse().description.name == "heat"


def test_the_block_as_the_seed_prints_it_without_a_namespace():
    policy = parse(after=SEED_BLOCK).policy
    assert policy.initiator is Initiator.SYSTEM
    assert policy.requires == ("multithread", "sockets")


def test_the_block_in_our_namespace_and_every_element_kept():
    found = parse(
        after="""<c:JobCheckpointing><c:Rollback>copy</c:Rollback>
        <c:Retention><c:KeepLast>3</c:KeepLast></c:Retention></c:JobCheckpointing>"""
    )
    assert (found.policy.rollback, found.policy.keep_last) == ("copy", 3)
    assert found.kept == {"Rollback": "copy", "Retention/KeepLast": "3"}


def space(inner):
    return f"<FileManagement><UserSpace>{inner}</UserSpace></FileManagement>"


def block(inner):
    return f"<JobCheckpointing>{inner}</JobCheckpointing>"


def test_the_space_that_the_user_provides_and_what_is_kept():
    policy = parse(
        after="""<c:JobCheckpointing>
        <c:FileManagement><c:ReplicationLevel>3</c:ReplicationLevel>
        <c:MinimumLevel>2</c:MinimumLevel><c:UserSpace>
        <c:Path>/home/alice</c:Path><c:Bytes>1000</c:Bytes></c:UserSpace></c:FileManagement>
        <c:Retention><c:KeepWithin>2 days</c:KeepWithin><c:KeepEvery>1hour</c:KeepEvery>
        <c:KeepUserBytes>1000</c:KeepUserBytes></c:Retention></c:JobCheckpointing>"""
    ).policy
    assert (policy.keep_user_bytes, policy.space_path) == (1000, "/home/alice")
    assert (policy.keep_within_s, policy.keep_every_s) == (172800, 3600)
    assert (policy.replication, policy.min_level) == (3, 2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("60", 60), ("1s", 1), ("90min", 5400), ("3 hours", 10800), ("1week", 604800)],
)
def test_periods(text, seconds):
    inner = f"<Retention><KeepWithin>{text}</KeepWithin></Retention>"
    assert parse(after=block(inner)).policy.keep_within_s == seconds


@pytest.mark.parametrize(
    ("inner", "error", "named"),
    [
        (
            "<ProtocolManagement><Parameter>1hour</Parameter></ProtocolManagement>",
            Unsupported,
            "Parameter",
        ),
        (
            "<ProtocolManagement><Name>IndependentCheckpointing</Name></ProtocolManagement>",
            Unsupported,
            "Independent",
        ),
        (
            "<ProtocolManagement><Name>Other</Name></ProtocolManagement>",
            InvalidInput,
            "ProtocolManagement/Name",
        ),
        (
            "<FileManagement><ReplicationLevel>2</ReplicationLevel><MinimumLevel>3</MinimumLevel>"
            "</FileManagement>",
            OutOfRange,
            "MinimumLevel is above",
        ),
        (
            "<FileManagement><ReplicationLevel>17</ReplicationLevel></FileManagement>",
            OutOfRange,
            "ReplicationLevel",
        ),
        ("<FileManagement><UserSpace>1</UserSpace></FileManagement>", InvalidInput, "UserSpace"),
        (space("<Path>/home/alice</Path>"), InvalidInput, "Bytes is missing"),
        (space("<Bytes>0</Bytes>"), OutOfRange, "UserSpace/Bytes"),
        (space("<Bytes>1152921504606846977</Bytes>"), OutOfRange, "UserSpace/Bytes"),
        (space("<Bytes>10G</Bytes>"), InvalidInput, "UserSpace/Bytes"),
        (space("<Bytes>1</Bytes><Bytes>2</Bytes>"), InvalidInput, "twice"),
        (space("<Bytes>1</Bytes><Path>home</Path>"), InvalidInput, "absolute"),
        (space("<Bytes>1</Bytes><Path>/a\tb</Path>"), InvalidInput, "absolute"),
        (space("<Bytes>1</Bytes><Host>n1</Host>"), Unsupported, "UserSpace/Host"),
        (space("<Bytes><More>1</More></Bytes>"), Unsupported, "UserSpace/Bytes"),
        (
            space("<Bytes>1</Bytes>") + "<Retention><KeepUserBytes>2</KeepUserBytes></Retention>",
            InvalidInput,
            "contradicts",
        ),
        ("<FileManagement><DiskSpace>1</DiskSpace></FileManagement>", Unsupported, "DiskSpace"),
        ("<Retention><KeepWithin>soon</KeepWithin></Retention>", InvalidInput, "minute, hour"),
        ("<Retention><KeepEvery>20000weeks</KeepEvery></Retention>", OutOfRange, "KeepEvery"),
        (
            "<JobCheckpointerMatching><Gpu>Yes</Gpu></JobCheckpointerMatching>",
            Unsupported,
            "Gpu",
        ),
        (
            "<JobCheckpointerMatching><Sockets>Maybe</Sockets></JobCheckpointerMatching>",
            InvalidInput,
            "Sockets",
        ),
        ("<Initiator>Nobody</Initiator>", InvalidInput, "Initiator"),
        ("<Initiator>User</Initiator><Initiator>User</Initiator>", InvalidInput, "twice"),
        ("<Rollback>undo</Rollback>", InvalidInput, "Rollback"),
        ("<Retention><KeepLast>-1</KeepLast></Retention>", InvalidInput, "KeepLast"),
        ("<Retention><KeepLast>9999999</KeepLast></Retention>", OutOfRange, "KeepLast"),
        ("<Colour>red</Colour>", Unsupported, "Colour"),
        ("<A><B><C/></B></A>", Unsupported, "A/B"),
    ],
)
def test_elements_of_the_block_are_refused_by_name(inner, error, named):
    with pytest.raises(error, match=named):
        parse(after=block(inner))


@pytest.mark.parametrize(
    ("after", "error", "named"),
    [
        ("<j:DataStaging><j:FileName>x</j:FileName></j:DataStaging>", Unsupported, "DataStaging"),
        ("<other/>", Unsupported, "other"),
        ("<x:y xmlns:x='urn:x'/>", Unsupported, "y of urn:x"),
        (SEED_BLOCK + SEED_BLOCK, InvalidInput, "twice"),
        (
            "<j:Resources><j:CandidateHosts><j:HostName>n9</j:HostName></j:CandidateHosts>"
            "</j:Resources>",
            Unsupported,
            "n9",
        ),
        ("<j:Resources><j:FileSystem/></j:Resources>", Unsupported, "FileSystem"),
        (
            "<j:Resources><j:IndividualCPUCount><j:Exact>64</j:Exact></j:IndividualCPUCount>"
            "</j:Resources>",
            Unsupported,
            "64 CPUs",
        ),
        (
            "<j:Resources><j:CPUArchitecture><j:CPUArchitectureName>sparc"
            "</j:CPUArchitectureName></j:CPUArchitecture></j:Resources>",
            Unsupported,
            "x86_64",
        ),
        (
            "<j:Resources><j:ExclusiveExecution>true</j:ExclusiveExecution></j:Resources>",
            Unsupported,
            "exclusive",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(after, error, named):
    with pytest.raises(error, match=named):
        parse(after=after)


def test_resources_that_are_here():
    parse(
        after="""<j:Resources><j:CandidateHosts><j:HostName>n9</j:HostName>
        <j:HostName>n1</j:HostName></j:CandidateHosts>
        <j:OperatingSystem><j:OperatingSystemType><j:OperatingSystemName>LINUX
        </j:OperatingSystemName></j:OperatingSystemType></j:OperatingSystem>
        <j:CPUArchitecture><j:CPUArchitectureName>x86_64</j:CPUArchitectureName>
        </j:CPUArchitecture>
        <j:IndividualCPUCount><j:Exact>64</j:Exact><j:Exact>1.0</j:Exact></j:IndividualCPUCount>
        <j:TotalPhysicalMemory><j:LowerBoundedRange>1048576</j:LowerBoundedRange>
        </j:TotalPhysicalMemory></j:Resources>"""
    )


@pytest.mark.parametrize(
    ("posix", "error", "named"),
    [
        ("", InvalidInput, "no Executable"),
        ("<p:Executable/>", InvalidInput, "empty"),
        (
            "<p:Executable>/a</p:Executable><p:Executable>/b</p:Executable>",
            InvalidInput,
            "twice",
        ),
        ("<p:Executable>/a\nb</p:Executable>", InvalidInput, "control"),
        ("<p:Executable>/a\u2028b</p:Executable>", InvalidInput, "control"),
        (
            "<p:Executable>a</p:Executable><p:WorkingDirectory>tmp</p:WorkingDirectory>",
            InvalidInput,
            "absolute",
        ),
        ("<p:Executable>/bin/[</p:Executable>", InvalidInput, "a job name"),
        (
            "<p:Executable>a</p:Executable><p:Environment name='A=B'>x</p:Environment>",
            InvalidInput,
            "variable",
        ),
        (
            "<p:Executable>a</p:Executable><p:Environment>x</p:Environment>",
            InvalidInput,
            "variable",
        ),
        (
            "<p:Executable>a</p:Executable><p:CPUTimeLimit>-1</p:CPUTimeLimit>",
            InvalidInput,
            "CPUTimeLimit",
        ),
        (
            "<p:Executable>a</p:Executable><p:StackSizeLimit>99999999999999999999</p:StackSizeLimit>",
            InvalidInput,
            "StackSizeLimit",
        ),
        (
            "<p:Executable>a</p:Executable><p:PipeSizeLimit>1</p:PipeSizeLimit>",
            Unsupported,
            "PipeSizeLimit",
        ),
        ("<p:Executable><b/></p:Executable>", InvalidInput, "text only"),
        (
            f"<p:Executable>a</p:Executable><p:Argument>{'x' * (1 << 17)}</p:Argument>",
            InvalidInput,
            "Argument",
        ),
    ],
)
def test_bad_applications(posix, error, named):
    with pytest.raises(error, match=named):
        parse(posix)


LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (n, b"&a%s;" % (b"" if n == 1 else b"%d" % (n - 1)) * 10)
    for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (LAUGHS + b"]><l>&a11;</l>", InvalidInput),
        (LAUGHS + b']><l a="&a11;"/>', InvalidInput),
        (b"<a>" * 100_000, InvalidInput),
        (b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>', InvalidInput),
        (b" " * (1 << 20) + b"<a/>", TooBig),
        (b"\0" * 100, InvalidInput),
        (b'<?xml version="1.0" encoding="utf-16"?><a/>', InvalidInput),
        (f"<JobDefinition xmlns='{JSDL}'/>".encode(), InvalidInput),
        (f"<JobDefinition xmlns='{JSDL}'><JobDescription/></JobDefinition>".encode(), InvalidInput),
    ],
)
def test_hostile_documents(text, error):
    with pytest.raises(error):
        parse_jsdl(text, MACHINE)


@given(st.binary(max_size=300))
def test_noise_is_refused_with_an_error_of_ours(noise):
    with pytest.raises(CkptfsError):
        parse_jsdl(noise, MACHINE)


XML_TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"
    ),
    max_size=20,
)


@given(st.lists(XML_TEXT, max_size=3), st.dictionaries(st.sampled_from("ABC"), XML_TEXT))
def test_what_the_commands_render_is_what_is_parsed(arguments, env):
    description = JobDescription(
        "heat", ("/bin/x", *arguments), cwd="/tmp", env=env, rollback="copy", keep_last=2
    )
    assert parse_jsdl(render_jsdl(description).encode(), MACHINE).description == description
