"""Reading hostile XML: no DTD, no entities, no network, bounded size.  Pure."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from lxml import etree

from ..errors import InvalidInput, TooBig

# lxml has no public name for its element type.
Element: TypeAlias = etree._Element  # pyright: ignore[reportPrivateUsage]

DOCUMENT_MAX: Final = 1 << 20  # bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def parse_xml(document: bytes, *, limit_bytes: int = DOCUMENT_MAX) -> Element:
    """Return the root of *document*.  Raises TooBig, InvalidInput; nothing outside it is read.

    libxml2 itself bounds depth (256), name and text lengths while huge_tree is off.
    """
    if len(document) > limit_bytes:
        raise TooBig(f"a document has at most {limit_bytes} bytes, this one {len(document)}")
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInput(f"the document is no XML: {printable(str(error))}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise InvalidInput("a document type definition (DOCTYPE) is not accepted")
    return root


def find_control(text: str) -> str:
    """Return the first control character of *text*, or ""."""
    bad = _CONTROL.search(text)
    return bad.group() if bad else ""


def printable(text: str) -> str:
    """Return at most 200 characters of *text*, control characters replaced."""
    return _CONTROL.sub("?", text)[:200]
