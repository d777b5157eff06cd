"""`cascade.runs.journal`: what it remembers, what it refuses."""

from __future__ import annotations

import sqlite3
from collections import deque

import pytest

from cascade import ErrorInfo, Prediction
from cascade.errors import OutputError, UsageError
from cascade.imaging.files import Found
from cascade.runs.journal import Journal
from cascade.runs.reading import Item
from cascade.runs.rows import make_row

HASH = "ab" * 32


def item(path: str, size: int = 10, mtime_ns: int = 20, sha256: str | None = None) -> Item:
    return Item(Found(path, size, mtime_ns), sha256)


def row(path: str, label: str = "menu") -> dict:
    return make_row(Prediction(path=path, label=label, confidence=1.0), "b")


def test_rows_come_back_in_order(tmp_path):
    with Journal(tmp_path / "j") as journal:
        for name in ("b", "a", "x\udcff"):
            assert journal.add(item(name), row(name)) is False
        journal.commit()
    with Journal(tmp_path / "j") as journal:
        assert [r["path"] for r in journal.rows()] == ["b", "a", "x\\xff"]
        assert len(journal) == 3
        assert journal.is_done(item("x\udcff"), by_content=False)
        assert not journal.is_done(item("x\\xff"), by_content=False)


def test_what_was_not_committed_is_gone(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.add(item("a"), row("a"))
        journal.commit()
        journal.add(item("b"), row("b"))
    with Journal(tmp_path / "j") as journal:
        assert [r["path"] for r in journal.rows()] == ["a"]


@pytest.mark.parametrize(
    ("again", "by_content", "done"),
    [
        (item("a"), False, True),
        (item("a", size=11), False, False),
        (item("a", mtime_ns=21), False, False),
        (item("b"), False, False),
        (item("a", mtime_ns=21, sha256=HASH), True, True),
        (item("a", sha256="cd" * 32), True, False),
        (item("b", sha256=HASH), True, False),
    ],
)
def test_what_counts_as_done(again, by_content, done):
    with Journal(None) as journal:
        journal.add(item("a", sha256=HASH), row("a"))
        assert journal.is_done(again, by_content=by_content) is done


def test_a_changed_photo_replaces_its_row():
    with Journal(None) as journal:
        journal.add(item("a"), row("a"))
        journal.add(item("b"), row("b"))
        assert journal.add(item("a", size=11), row("a", "beach")) is True
        assert [(r["path"], r["label"]) for r in journal.rows()] == [("b", "menu"), ("a", "beach")]


def test_answers_are_found_by_content():
    with Journal(None) as journal:
        journal.add(item("a", sha256=HASH), row("a"))
        assert journal.known(HASH) == row("a")
        assert journal.known("cd" * 32) is None


def test_failures_are_counted():
    with Journal(None) as journal:
        journal.add(item("a"), row("a"))
        failed = Prediction(path="b", status="error", error=ErrorInfo("empty", "no bytes"))
        journal.add(item("b"), make_row(failed, "b"))
        assert journal.failed() == 1


def test_other_facts_are_refused_by_name(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.check({"bundle": "one", "--top-k": "5"})
        journal.commit()
    with Journal(tmp_path / "j") as journal:
        journal.check({"bundle": "one", "--top-k": "5"})
        with pytest.raises(UsageError, match=r"started with --top-k = 5, now it is 3; .*--restart"):
            journal.check({"bundle": "one", "--top-k": "3"})


def test_a_second_process_is_refused(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.add(item("a"), row("a"))
        with pytest.raises(OutputError, match="another cascade is writing this output"):
            Journal(tmp_path / "j")


def test_a_file_that_is_no_journal(tmp_path):
    (tmp_path / "j").write_bytes(b"something else entirely" * 100)
    with pytest.raises(OutputError, match="is no journal; move it away"):
        Journal(tmp_path / "j")


@pytest.fixture
def connections(monkeypatch):
    """Every connection to a database that is opened from here on."""
    opened, connect = [], sqlite3.connect

    def remember(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    return opened


def test_a_full_disk_keeps_what_was_committed(tmp_path, connections):
    with Journal(tmp_path / "j") as journal:
        journal.add(item("a"), row("a"))
        journal.commit()
        pages = connections[-1].execute("PRAGMA page_count").fetchone()[0]
        # SQLite reports a file at its page limit exactly as it does a full disk.
        connections[-1].execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match=r"writing stopped \(database or disk is full\).*--resume"):
            deque((journal.add(item(f"{n}"), row(f"{n}")) for n in range(1000)), maxlen=0)
    with Journal(tmp_path / "j") as journal:
        assert [r["path"] for r in journal.rows()] == ["a"]


def test_a_power_cut_can_lose_nothing_that_was_committed(tmp_path, connections):
    with Journal(tmp_path / "j"):
        assert connections[-1].execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connections[-1].execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_it_is_plain_sqlite(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.add(item("a"), row("a"))
        journal.commit()
    database = sqlite3.connect(tmp_path / "j")
    assert database.execute("SELECT path, size FROM rows").fetchall() == [(b"a", 10)]
    database.close()
