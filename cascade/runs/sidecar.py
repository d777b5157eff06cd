"""Writes labels as keywords into XMP side-car files beside the photos ("beach.jpg.xmp").

digiKam, darktable, Immich and tools around Lightroom Classic read them. The photo itself is never touched.

    dc:subject                label and parent                  the keywords of IPTC Core; read by everything
    lr:hierarchicalSubject    indoor|bedroom                    Lightroom
    digiKam:TagsList          indoor/bedroom                    digiKam, Immich
    cascade:added             what cascade added, so that a later run can take it back

A side-car that exists keeps everything in it (ratings, captions, other keywords); ours are added. One that
cannot be understood is left alone and counted.
"""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cascade.errors import OutputError
from cascade.imaging.files import Found
from cascade.labels import UNKNOWN
from cascade.runs.replacement import replacing
from cascade.runs.rows import Row

__all__ = ["SidecarWriter", "keywords_of", "sidecar_path", "with_keywords"]

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES: Final = {
    "x": "adobe:ns:meta/",
    "rdf": _RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "cascade": "urn:cascade-vision:xmp:1.0:",
}
#: Property, kind of list (unordered or ordered), and what joins a parent and its label.
_PROPERTIES: Final = (
    ("dc:subject", "Bag", None),
    ("lr:hierarchicalSubject", "Bag", "|"),
    ("digiKam:TagsList", "Seq", "/"),
)
#: Remembers what was added: the user may have had the same word before, and that one stays.
_OURS: Final = "cascade:added"
_EMPTY: Final = (
    f'<x:xmpmeta xmlns:x="{_NAMESPACES["x"]}"><rdf:RDF xmlns:rdf="{_RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
)
_BEGIN: Final = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END: Final = '\n<?xpacket end="w"?>\n'
#: Side-cars are a few kilobytes; one that is larger is not read into memory.
_MAX_BYTES: Final = 16 << 20


def sidecar_path(photo: Path) -> Path:
    """Return where the side-car of a photo is."""
    return photo.with_name(photo.name + ".xmp")


def keywords_of(row: Row) -> tuple[str, ...]:
    """Return parent and label of an answer, broadest first; nothing for an error and for "unknown"."""
    if row["label"] is None or row["label"] == UNKNOWN:
        return ()
    return tuple(dict.fromkeys(word for word in (row["parent"], row["label"]) if word))


def with_keywords(existing: str | None, keywords: Iterable[str]) -> str:
    """Return the text of a side-car with these keywords, in place of those that cascade added before.

    Args:
        existing: the side-car as it is; None makes a new one.
        keywords: broadest first.

    Raises:
        ValueError: when ``existing`` is no XMP.
    """
    chain = list(keywords)
    for prefix, uri in (_declared(existing) if existing else {}).items():
        # Keeps prefixes as they were; ElementTree would call them ns0, ns1, ...
        with contextlib.suppress(ValueError):
            ET.register_namespace(prefix, uri)
    for prefix, uri in _NAMESPACES.items():
        ET.register_namespace(prefix, uri)
    try:
        root = ET.fromstring(existing or _EMPTY)
    except ET.ParseError as error:
        raise ValueError(f"is not XML ({error})") from error
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")
    description = None if rdf is None else rdf.find(f"{{{_RDF}}}Description")
    if description is None:
        raise ValueError("holds no rdf:Description")
    assert rdf is not None
    mine = set(_values(rdf, _OURS))
    now_mine = []
    for name, kind, joint in _PROPERTIES:
        wanted = [joint.join(chain)] if joint and chain else chain
        theirs = [value for value in _values(rdf, name) if f"{name}={value}" not in mine]
        added = [value for value in wanted if value not in theirs]
        now_mine += [f"{name}={value}" for value in added]
        _set(rdf, description, name, kind, theirs + added)
    _set(rdf, description, _OURS, "Bag", now_mine)
    return _BEGIN + ET.tostring(root, encoding="unicode") + _END


def _declared(text: str) -> dict[str, str]:
    try:
        return dict(found for _, found in ET.iterparse(io.StringIO(text), events=["start-ns"]))
    except ET.ParseError as error:
        raise ValueError(f"is not XML ({error})") from error


def _tag(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


def _values(rdf: ET.Element, name: str) -> list[str]:
    return [item.text or "" for item in rdf.iterfind(f"*/{_tag(name)}/*/{{{_RDF}}}li")]


def _set(rdf: ET.Element, description: ET.Element, name: str, kind: str, values: list[str]) -> None:
    owner = next((one for one in rdf if one.find(_tag(name)) is not None), description)
    found = owner.find(_tag(name))
    if found is not None:
        owner.remove(found)
    if not values:
        return
    items = ET.SubElement(ET.SubElement(owner, _tag(name)), f"{{{_RDF}}}{kind}")
    for value in values:
        ET.SubElement(items, f"{{{_RDF}}}li").text = value


class SidecarWriter:
    """Writes a side-car for every photo that got a label; an observer of `cascade.runs.folder_run.FolderRun`.

    Attributes:
        counts: what became of side-cars: ``written``, ``unchanged``, ``left alone``.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, found: Found, row: Row) -> None:
        """Write or amend the side-car of one photo.

        Raises:
            OutputError: when it cannot be written.
        """
        keywords = keywords_of(row)
        path = sidecar_path(Path(found.path))
        try:
            existing = self._read(path)
            if existing is None and not keywords:
                return
            text = with_keywords(existing, keywords)
        except (ValueError, UnicodeDecodeError):
            self.counts["left alone"] += 1
            return
        except OSError as error:
            raise OutputError(f"{path}: cannot be read ({error.strerror or error})") from error
        if text == existing:
            self.counts["unchanged"] += 1
            return
        self._replace(path, text)
        self.counts["written"] += 1

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError("is too large for a side-car")
            return path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return None

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        """Put the new text in place at once: a reader sees the old side-car or the new one."""
        try:
            # Waiting for the disk once a photo would cost more than classifying it.
            with replacing(path, durable=False) as new:
                new.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
