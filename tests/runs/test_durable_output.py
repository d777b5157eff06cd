"""`cascade.runs.durable_output`: an output that is continued, cut back, written anew, or refused."""

from __future__ import annotations

import pytest

from cascade import Prediction
from cascade.errors import OutputError, UsageError
from cascade.imaging.files import Found
from cascade.runs.durable_output import open_output, state_path
from cascade.runs.reading import Item
from cascade.runs.rows import make_row
from cascade.runs.writers import CsvFormat

CSV = CsvFormat(["path", "label"])


def opened(path, *, resume=False, restart=False, fingerprint=None):
    return open_output(path, CSV, fingerprint or {"a": "1"}, resume=resume, restart=restart, remember=False)


def add(durable, name, label="menu", size=1):
    durable.add(Item(Found(name, size, 1)), make_row(Prediction(path=name, label=label, confidence=1.0), "b"))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "rows.csv"


def interrupted(output, committed=("a", "b"), lost=("c",)):
    """A run that was killed: `committed` is safe, `lost` reached the output but not the journal."""
    durable = opened(output)
    for name in committed:
        add(durable, name)
    durable.commit()
    for name in lost:
        add(durable, name)
    durable.close()


def test_a_new_output_has_its_header_and_rows_at_once(output):
    durable = opened(output)
    assert output.read_text() == "path,label\n"
    add(durable, "a")
    assert output.read_text() == "path,label\na,menu\n"
    durable.close()


def test_resuming_cuts_back_to_the_last_commit(output):
    interrupted(output)
    assert output.read_text() == "path,label\na,menu\nb,menu\nc,menu\n"
    with output.open("a") as file:
        file.write("d,me")  # half a row, as a kill may leave it
    durable = opened(output, resume=True)
    assert output.read_text() == "path,label\na,menu\nb,menu\n"
    assert durable.journal.is_done(Item(Found("b", 1, 1)), by_content=False)
    assert not durable.journal.is_done(Item(Found("c", 1, 1)), by_content=False)
    add(durable, "c")
    durable.finish()
    durable.close()
    assert output.read_text() == "path,label\na,menu\nb,menu\nc,menu\n"


def test_killed_before_the_first_commit(output):
    durable = opened(output)
    add(durable, "a")
    durable.close()
    opened(output, resume=True).close()
    assert output.read_text() == "path,label\n"


def test_resuming_nothing_simply_begins(output):
    opened(output, resume=True).close()
    assert output.read_text() == "path,label\n"


def test_an_output_is_never_overwritten(output):
    interrupted(output)
    before = output.read_bytes()
    with pytest.raises(OutputError, match="--resume continues an interrupted run, --restart begins again"):
        opened(output)
    assert output.read_bytes() == before


def test_a_journal_alone_is_not_overwritten_either(output):
    interrupted(output)
    output.unlink()
    with pytest.raises(OutputError, match=r"rows\.csv\.state: exists"):
        opened(output)


def test_restarting_begins_again(output):
    interrupted(output)
    durable = opened(output, restart=True, fingerprint={"a": "other"})
    assert output.read_text() == "path,label\n"
    assert len(durable.journal) == 0
    durable.close()


def test_other_facts_are_refused_and_nothing_is_touched(output):
    interrupted(output)
    before = output.read_bytes()
    with pytest.raises(UsageError, match="started with a = 1, now it is 2"):
        opened(output, resume=True, fingerprint={"a": "2"})
    assert output.read_bytes() == before
    opened(output, resume=True).close()  # and the journal was let go


def test_a_file_of_somebody_else_is_refused(output):
    output.write_text("mine\n")
    with pytest.raises(OutputError, match=r"no rows\.csv\.state beside it"):
        opened(output, resume=True)
    assert output.read_text() == "mine\n"


@pytest.mark.parametrize("content", ["path,label\na,MENU\nb,menu\n", "path,label\n"])
def test_a_changed_output_is_refused(output, content):
    interrupted(output)
    output.write_text(content)
    with pytest.raises(OutputError, match="was changed by something else"):
        opened(output, resume=True)
    assert output.read_text() == content


def test_a_lost_output_is_written_again(output):
    interrupted(output)
    output.unlink()
    opened(output, resume=True).close()
    assert output.read_text() == "path,label\na,menu\nb,menu\n"


def test_a_changed_photo_leaves_one_row(output):
    durable = opened(output)
    for name in ("a", "b"):
        add(durable, name)
    add(durable, "a", "beach", size=2)
    durable.finish()
    add(durable, "c")  # writing goes on in the new file
    durable.finish()
    durable.close()
    assert output.read_text() == "path,label\nb,menu\na,beach\nc,menu\n"
    assert sorted(p.name for p in output.parent.iterdir()) == ["rows.csv", "rows.csv.state"]


def test_killed_while_writing_anew(output):
    durable = opened(output)
    add(durable, "a")
    add(durable, "a", "beach", size=2)
    durable.commit()
    durable.journal.set("outdated", "1")
    durable.close()
    output.with_name("rows.csv.new").write_text("path,la")  # what the killed process left
    opened(output, resume=True).close()
    assert output.read_text() == "path,label\na,beach\n"


def test_killed_between_the_new_file_and_its_commit(output):
    durable = opened(output)
    add(durable, "a")
    add(durable, "a", "beach", size=2)
    durable.commit()
    durable.close()
    output.write_text("path,label\na,beach\n")  # already in place; the journal still has the old length
    opened(output, resume=True).close()
    assert output.read_text() == "path,label\na,beach\n"


def test_where_the_journal_is(output):
    assert state_path(output).name == "rows.csv.state"


def test_no_folder_for_the_output(tmp_path):
    with pytest.raises(OutputError, match="no such folder; make it first"):
        opened(tmp_path / "none" / "rows.csv")
