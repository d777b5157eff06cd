"""The log of corrections: append-only, crash-safe, for several people at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.errors import OutputError
from cascade.review.corrections import Change, ConflictError, CorrectionLog


def change(path, label="kitchen", seen=0, kind="label"):
    return Change(path, kind, label, "bar", seen)


@pytest.fixture
def log(tmp_path):
    opened = CorrectionLog(tmp_path / "log.sqlite")
    yield opened
    opened.close()


def test_what_was_said_is_there_after_a_restart(log):
    log.append([change("a"), change("b", "bar", kind="accept")], "ann")
    log.append([change("a", "office", log.state("a").id)], "ann")
    again = CorrectionLog(log.path)
    assert {path: entry.label for path, entry in again.states().items()} == {"a": "office", "b": "bar"}
    assert again.state("a").previous == "bar"
    assert again.state("c") is None
    again.close()


def test_undo_goes_back_without_limit_also_after_a_restart(log):
    for label in ("one", "two", "three"):
        state = log.state("a")
        log.append([change("a", label, state.id if state else 0)], "ann")
    again = CorrectionLog(log.path)
    for expected in ("two", "one", None):
        assert again.undo("ann") == {"a"}
        state = again.state("a")
        assert (state.label if state else None) == expected
    assert again.undo("ann") == set()
    again.append([change("a", "four")], "ann")
    assert again.state("a").label == "four"
    again.close()


def test_undo_takes_back_only_what_one_said_oneself(log):
    log.append([change("a")], "ann")
    log.append([change("b")], "bob")
    assert log.undo("ann") == {"a"}
    assert log.undo("ann") == set()
    assert set(log.states()) == {"b"}
    # by its number, from the history, anybody's can be taken back
    assert log.undo("ann", log.history(5)[0][0].batch) == {"b"}


def test_many_accepted_at_once_are_taken_back_at_once(log):
    log.append([change(str(n), kind="bulk") for n in range(1000)], "ann")
    assert len(log.history(3)[0]) == 1000
    assert len(log.undo("ann")) == 1000
    assert log.states() == {}


def test_somebody_else_is_not_overwritten(log):
    other = CorrectionLog(log.path)
    log.append([change("a", "kitchen")], "ann")
    with pytest.raises(ConflictError, match="ann said 'kitchen'") as conflict:
        other.append([change("b"), change("a", "bar")], "bob")
    assert other.state("b") is None  # all or nothing
    other.append([change("a", "bar", conflict.value.entries[0].id)], "bob")
    assert log.sync() == {"a"}
    assert log.state("a").label == "bar"
    other.close()


def test_nothing_can_be_changed_or_deleted(log):
    log.append([change("a")], "ann")
    raw = sqlite3.connect(log.path)
    for command in ("UPDATE entry SET label = 'x'", "DELETE FROM entry"):
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            raw.execute(command)
    raw.close()


def test_what_changed_since(log):
    log.append([change("a")], "ann")
    before = log.last
    log.append([change("b")], "bob")
    log.undo("ann")
    assert log.paths_since(before) == {"a", "b"}
    assert log.paths_since(log.last) == set()


def test_a_file_that_is_no_log_is_refused(tmp_path):
    (tmp_path / "x.sqlite").write_text("this is no database, and long enough to be read as one")
    with pytest.raises(OutputError, match="cannot be opened"):
        CorrectionLog(tmp_path / "x.sqlite")


def write_many(path, name, count):
    log = CorrectionLog(path)
    for number in range(count):
        log.append([change(f"{name}-{number}")], name)
    log.close()


def test_two_processes_lose_nothing(tmp_path):
    path = tmp_path / "log.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, name, 60)) for name in ("ann", "bob", "cem")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(90)
        assert writer.exitcode == 0
    log = CorrectionLog(path)
    assert set(log.states()) == {f"{name}-{n}" for name in ("ann", "bob", "cem") for n in range(60)}
    log.close()


def write_until_killed(path, pipe):
    log = CorrectionLog(path)
    for number in range(100_000):
        log.append([change(str(number))], "ann")
        pipe.send(number)


def test_what_was_confirmed_survives_kill_9(tmp_path):
    path = tmp_path / "log.sqlite"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    writer = context.Process(target=write_until_killed, args=(path, theirs))
    writer.start()
    assert ours.poll(60)
    time.sleep(0.3)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(30)
    confirmed = -1
    while ours.poll(0):
        confirmed = ours.recv()
    log = CorrectionLog(path)
    assert confirmed >= 0
    assert {str(n) for n in range(confirmed + 1)} <= set(log.states())
    log.close()


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ann", "bob"]), st.booleans()), max_size=25)
)
def test_replaying_the_log_gives_the_same_state(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("replay") / "log.sqlite"
    log = CorrectionLog(path)
    stacks, batches = {}, []
    for number, (photo, who, undo) in enumerate(steps):
        if undo:
            mine = [batch for batch in batches if batch[1] == who]
            log.undo(who)
            if mine:
                batches.remove(mine[-1])
                stacks[mine[-1][0]].remove(mine[-1][2])
        else:
            state = log.state(photo)
            log.append([change(photo, f"label {number}", state.id if state else 0)], who)
            batches.append((photo, who, f"label {number}"))
            stacks.setdefault(photo, []).append(f"label {number}")
    expected = {photo: said[-1] for photo, said in stacks.items() if said}
    again = CorrectionLog(path)
    for one in (log, again):
        assert {p: entry.label for p, entry in one.states().items()} == expected
        one.close()
