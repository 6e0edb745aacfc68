"""The metadata of a version: ``job.cpx`` and ``unit.cpx``, XML.  Pure.

``unit.cpx`` is what a restart believes; it comes out of the store verified, and
is parsed as hostile all the same.  Paths may hold anything, XML may not: what
it cannot carry is written as ``\\xNN`` or ``\\uNNNN``, a backslash doubled.
Source of the contents: XtreemOS D3.3.6, 2.3.4 and 7.1 (reference: processes, checkpointer,
resources to get again, paths of the image files).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from lxml import etree

from ..errors import Corrupt, InvalidInput, NotFound
from ..ids import JobId, UnitName, Version, parse_unit_name
from ..jobs.record import JobRecord, parse_record, render_record
from ..jobs.xml import Element, parse_xml
from ..model import Initiator, OpenFile, Owner, Protocol, Purpose, UnitFacts

FORMAT: Final = "1"
JOB_DOCUMENT: Final = "job.cpx"
UNIT_DOCUMENT: Final = "unit.cpx"
JOB_DOCUMENT_MAX: Final = 64 << 20  # bytes; the names of 250 000 images
UNIT_DOCUMENT_MAX: Final = 16 << 20  # bytes; some 60 000 open files
_NOT_XML = re.compile(r"[^\t\x20-\x5b\x5d-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(\\))")
_NUMBERS: Final = (
    "device",
    "inode",
    "size_bytes",
    "position",
    "flags",
    "mode",
    "uid",
    "gid",
    "pid",
    "fd",
)


def render_unit(job: JobId, version: Version, facts: UnitFacts) -> bytes:
    """Return ``unit.cpx`` of one unit, with its open files."""
    root = _root("unit", job, version)
    _attributes(root, unit=facts.unit, node=facts.node, checkpointer=facts.translib)
    for key, value in sorted(facts.facts.items()):
        fact = etree.SubElement(root, "fact", name=_armour(key))
        fact.text = _armour(value)
    for pid in facts.pids:
        etree.SubElement(root, "process", pid=str(pid))
    for uid in facts.uids:
        etree.SubElement(root, "user", uid=str(uid))
    for file in facts.files:
        element = etree.SubElement(root, "file", path=_armour(file.path))
        _attributes(element, **{name: str(getattr(file, name)) for name in _NUMBERS})
        if file.copy:
            element.set("copy", _armour(file.copy))
        if file.tail_hash:
            _attributes(element, tail_bytes=str(file.tail_bytes), tail_hash=_armour(file.tail_hash))
    return _bytes(root)


def parse_unit(document: bytes, job: JobId, version: Version) -> UnitFacts:
    """Return the facts in ``unit.cpx``.  Raises Corrupt (EIO) if it is not that of *version*."""
    try:
        root = parse_xml(document, limit_bytes=UNIT_DOCUMENT_MAX)
        expected = ("unit", FORMAT, job, str(version))
        found = (root.tag, root.get("format"), root.get("job"), root.get("version"))
        if found != expected:
            raise Corrupt(f"unit.cpx is not that of {job} version {version}")
        return UnitFacts(
            unit=parse_unit_name(str(root.attrib["unit"])),
            node=str(root.attrib["node"]),
            translib=str(root.attrib["checkpointer"]),
            facts={
                _plain(fact.attrib["name"]): _plain(fact.text or "") for fact in root.iter("fact")
            },
            pids=tuple(int(process.attrib["pid"]) for process in root.iter("process")),
            uids=tuple(int(user.attrib["uid"]) for user in root.iter("user")),
            files=tuple(_file(file) for file in root.iter("file")),
        )
    except (InvalidInput, NotFound, KeyError, ValueError) as error:
        raise Corrupt(f"unit.cpx of {job} version {version} does not parse: {error}") from error


def render_job(
    job: JobId,
    version: Version,
    *,
    owner: Owner,
    purpose: Purpose,
    initiator: Initiator,
    protocol: Protocol,
    taken_ns: int,
    note: str,
    record: JobRecord,
    units: Sequence[UnitFacts],
    checkpointers: Mapping[str, str],
    files: Mapping[UnitName, Mapping[str, int]],
) -> bytes:
    """Return ``job.cpx``: what was saved, by what, where.

    *checkpointers*: translib → version; *files*: unit → name → size in bytes;
    *taken_ns*: epoch, when every unit stood still.
    """
    root = _root("checkpoint", job, version)
    _attributes(
        root, purpose=purpose, initiator=initiator, protocol=protocol, taken_ns=str(taken_ns)
    )
    user = etree.SubElement(root, "owner", user=_armour(owner.user))
    _attributes(user, uid=str(owner.uid), gid=str(owner.gid))
    if note:
        etree.SubElement(root, "note").text = _armour(note)
    for facts in units:
        unit = etree.SubElement(root, "unit", name=facts.unit, node=facts.node)
        _attributes(
            unit,
            checkpointer=facts.translib,
            checkpointer_version=_armour(checkpointers.get(facts.translib, "")),
            processes=" ".join(map(str, facts.pids)),
        )
        for name, size in sorted(files.get(facts.unit, {}).items()):
            etree.SubElement(unit, "image", name=_armour(name), size_bytes=str(size))
    etree.SubElement(root, "record").text = _armour(render_record(record).decode("ascii"))
    etree.SubElement(root, "submitted").text = _armour(record.spec.jsdl)
    return _bytes(root)


def parse_record_of(document: bytes, job: JobId, version: Version) -> JobRecord | None:
    """Return the record in ``job.cpx``, None when there is none.

    Raises Corrupt (EIO) if it is not that of *job*, or cannot be read.
    """
    try:
        root = parse_xml(document, limit_bytes=JOB_DOCUMENT_MAX)
    except InvalidInput as error:
        raise Corrupt(f"job.cpx of {job} version {version} does not parse: {error}") from error
    text = root.findtext("record")
    if text is None:
        return None
    jsdl = _plain(root.findtext("submitted") or "")
    record = parse_record(_plain(text).encode("ascii", "replace"), jsdl)
    if record.id != job:
        raise Corrupt(f"job.cpx of {job} version {version} holds the record of {record.id}")
    return record


def _file(element: Element) -> OpenFile:
    numbers = {name: int(element.attrib[name]) for name in _NUMBERS}
    return OpenFile(
        path=_plain(element.attrib["path"]),
        copy=_plain(element.get("copy", "")),
        tail_bytes=int(element.get("tail_bytes", "0")),
        tail_hash=_plain(element.get("tail_hash", "")),
        **numbers,
    )


def _root(tag: str, job: JobId, version: Version) -> Element:
    root = etree.Element(tag)
    _attributes(root, format=FORMAT, job=job, version=str(version))
    return root


def _attributes(element: Element, **values: str) -> None:
    for name, value in values.items():
        element.set(name, str(value))


def _bytes(root: Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def _armour(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        code = ord(match.group())
        if match.group() == "\\":
            return "\\\\"
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _NOT_XML.sub(escape, text)


def _plain(text: str | bytes) -> str:
    def read(match: re.Match[str]) -> str:
        return "\\" if match[3] else chr(int(match[1] or match[2], 16))

    return _ESCAPE.sub(read, str(text))
