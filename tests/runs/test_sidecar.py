"""`cascade.runs.sidecar`: keywords that other programs read, and side-cars that keep what is theirs."""

from __future__ import annotations

import re

import pytest

from cascade import ErrorInfo, Prediction
from cascade.errors import OutputError
from cascade.imaging.files import Found
from cascade.runs.rows import make_row
from cascade.runs.sidecar import SidecarWriter, keywords_of, sidecar_path, with_keywords

#: As digiKam and Lightroom write them: attributes, another namespace, a rating, the user's own keywords.
FOREIGN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:odd="http://example.org/odd/" odd:kept="yes">
   <dc:subject><rdf:Bag><rdf:li>Grandma</rdf:li><rdf:li>beach</rdf:li></rdf:Bag></dc:subject>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Summer &amp; sea</rdf:li></rdf:Alt></dc:title>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def row(label, parent, path="a.jpg"):
    return make_row(Prediction(path=path, label=label, parent=parent, confidence=0.9), "b")


def listed(text, name):
    found = re.search(rf"<{name}><rdf:(?:Bag|Seq)>(.*?)</rdf:(?:Bag|Seq)></{name}>", text, re.DOTALL)
    return re.findall(r"<rdf:li>(.*?)</rdf:li>", found.group(1)) if found else []


@pytest.mark.parametrize(
    ("label", "parent", "words"),
    [
        ("bedroom", "indoor", ("indoor", "bedroom")),
        ("indoor", "indoor", ("indoor",)),
        ("menu", "menu", ("menu",)),
        ("unknown", None, ()),
    ],
)
def test_keywords(label, parent, words):
    assert keywords_of(row(label, parent)) == words


def test_an_error_has_no_keywords():
    failed = Prediction(path="a", status="error", error=ErrorInfo("empty", "x"))
    assert keywords_of(make_row(failed, "b")) == ()


def test_a_new_side_car():
    text = with_keywords(None, ("indoor", "bedroom"))
    assert text.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta ')
    assert text.endswith('<?xpacket end="w"?>\n')
    assert listed(text, "dc:subject") == ["indoor", "bedroom"]
    assert listed(text, "lr:hierarchicalSubject") == ["indoor|bedroom"]
    assert listed(text, "digiKam:TagsList") == ["indoor/bedroom"]


def test_what_others_wrote_stays():
    text = with_keywords(FOREIGN, ("outdoor", "beach"))
    assert listed(text, "dc:subject") == ["Grandma", "beach", "outdoor"]
    for kept in ('xmp:Rating="4"', 'odd:kept="yes"', "Summer &amp; sea", 'xml:lang="x-default"'):
        assert kept in text


def test_writing_twice_changes_nothing():
    once = with_keywords(FOREIGN, ("outdoor", "beach"))
    assert with_keywords(once, ("outdoor", "beach")) == once


def test_a_later_answer_replaces_only_ours():
    once = with_keywords(FOREIGN, ("indoor", "kitchen"))
    again = with_keywords(once, ("menu",))
    assert listed(again, "dc:subject") == ["Grandma", "beach", "menu"]
    assert listed(again, "lr:hierarchicalSubject") == ["menu"]
    assert listed(with_keywords(again, ()), "dc:subject") == ["Grandma", "beach"]


def test_a_word_that_the_user_had_too_is_not_taken_away():
    once = with_keywords(FOREIGN, ("outdoor", "beach"))
    assert listed(with_keywords(once, ("menu",)), "dc:subject") == ["Grandma", "beach", "menu"]


@pytest.mark.parametrize("text", ["no xml", "<a/>", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"])
def test_what_is_no_xmp_is_refused(text):
    with pytest.raises(ValueError, match=r"is not XML|holds no rdf:Description"):
        with_keywords(text, ("menu",))


def test_files(tmp_path):
    write = SidecarWriter()
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"photo")
    found = Found(str(photo))
    write(found, row("bedroom", "indoor"))
    write(found, row("bedroom", "indoor"))
    write(found, row("menu", "menu"))
    write(Found(str(tmp_path / "b.jpg")), row("unknown", None))
    (tmp_path / "c.jpg.xmp").write_text("my own notes")
    write(Found(str(tmp_path / "c.jpg")), row("menu", "menu"))
    assert write.counts == {"written": 2, "unchanged": 1, "left alone": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.jpg.xmp", "c.jpg.xmp"]
    assert photo.read_bytes() == b"photo"
    assert (tmp_path / "c.jpg.xmp").read_text() == "my own notes"
    assert listed((tmp_path / "a.jpg.xmp").read_text(), "dc:subject") == ["menu"]


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"gone.a\.jpg\.xmp: cannot be written"):
        SidecarWriter()(Found(str(tmp_path / "gone" / "a.jpg")), row("menu", "menu"))
    assert sidecar_path(tmp_path / "a.jpg").name == "a.jpg.xmp"
