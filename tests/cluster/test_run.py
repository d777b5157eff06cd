"""`cascade.cluster.run`: the rows of a whole run, whatever stopped it. The engine is a loop in here."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")

from cascade.cluster import PartitionOptions
from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part import STOP_FILE, PartTask, classify_part, part_numbers
from cascade.cluster.plan import Plan, part_name
from cascade.cluster.run import MANIFEST_FILE, ClusterRun
from cascade.cluster.run_folder import begin
from cascade.errors import OutputError, UsageError
from cascade.imaging.files import FindOptions, Found


def here(task, done):
    """An engine: one part after the other in this process."""
    for number in part_numbers(task.folder, done, look=0.01):
        yield classify_part(task, number)


class Killed(BaseException):
    """What a process that is killed would do: nothing runs after it."""


@pytest.fixture
def archive(photo, tmp_path):
    """23 photos in two folders, one of them no photo; the paths as a run finds them."""
    for n in range(22):
        photo(f"in/{'ab'[n % 2]}/{n:02}.png", ["beach", "menu", "forest"][n % 3], (40, 40))
    (tmp_path / "in" / "b" / "zz.jpg").write_bytes(b"no image")
    return tmp_path / "in"


@pytest.fixture
def new_run(tiny_bundle, tmp_path, archive):
    def make(url=str(tmp_path / "rows"), inputs=(str(archive),), size=4, stopped=lambda: False):
        folder = OutputFolder(url)
        options = PartitionOptions(bundle=str(tiny_bundle))
        task = PartTask(folder=folder.url, options=options, home=str(Path.cwd()), run="one")
        with begin(folder, {"a": "1"}, resume=True, restart=False):
            pass
        find = FindOptions()
        return folder, ClusterRun(folder, task, inputs, find=find, part_size=size, stopped=stopped)

    return make


def rows_of(folder):
    return sorted(pq.read_table(folder.url).to_pylist(), key=lambda row: row["path"])


@pytest.fixture
def wanted(run_cli, archive, tmp_path):
    """The rows of one machine."""
    run_cli("classify", archive, "-o", tmp_path / "one.parquet")
    return sorted(pq.read_table(tmp_path / "one.parquet").to_pylist(), key=lambda row: row["path"])


def test_the_rows_are_those_of_one_machine(new_run, wanted, archive):
    folder, run = new_run()
    counts = list(run.run(here))
    assert rows_of(folder) == wanted
    assert [part["photos"] for part in counts] == [4, 4, 4, 4, 4, 3]
    manifest = run.manifest()
    assert [line["file"] for line in manifest] == [part_name(n) for n in range(6)]
    assert sum(sum(line["errors"].values()) for line in manifest) == 1
    assert (manifest[0]["first"], manifest[-1]["last"]) == (
        str(archive / "a/00.png"),
        str(archive / "b/zz.jpg"),
    )
    photos = [one.path for n in range(6) for one in Plan(folder).photos(n)]
    assert photos == [row["path"] for row in wanted]


def test_a_run_that_was_killed_goes_on_and_redoes_no_finished_part(new_run, wanted):
    folder, run = new_run()
    assert len(list(islice(run.run(here), 2))) == 2  # the generator is left there, as by a kill
    kept = {name: (folder.local / name).stat().st_mtime_ns for name in (part_name(0), part_name(1))}
    folder, run = new_run()
    assert run.done_before == {0, 1}
    assert (run.photos_done_before(), len(list(run.run(here)))) == (8, 4)
    assert {name: (folder.local / name).stat().st_mtime_ns for name in kept} == kept
    assert rows_of(folder) == wanted
    assert [line["part"] for line in run.manifest()] == list(range(6))
    folder, run = new_run()
    assert list(run.run(here)) == []
    assert (run.photos_done_before(), run.photos_to_do()) == (23, 0)


def test_a_part_that_was_cut_off_leaves_nothing(new_run, wanted, monkeypatch):
    folder, run = new_run()
    real = OutputFolder.write

    def write(self, name, content):
        if name == part_name(1):
            (self.local / ".cascade-0000.new").write_bytes(content[:50])
            raise Killed
        real(self, name, content)

    monkeypatch.setattr(OutputFolder, "write", write)
    with pytest.raises(Killed):
        list(run.run(here))
    monkeypatch.undo()
    folder, run = new_run()
    assert run.done_before == {0}
    list(run.run(here))
    assert not list(folder.local.glob(".cascade-*"))
    assert rows_of(folder) == wanted


def test_a_listing_that_was_cut_off_is_made_again(new_run, wanted, monkeypatch):
    folder, run = new_run()
    real = OutputFolder.write

    def write(self, name, content):
        if name.endswith("plan/" + part_name(3)):
            raise Killed
        real(self, name, content)

    monkeypatch.setattr(OutputFolder, "write", write)
    with pytest.raises(Killed):
        list(run.run(here))
    monkeypatch.undo()
    assert Plan(folder).count() == 3
    folder, run = new_run()
    list(run.run(here))
    assert rows_of(folder) == wanted


def test_the_user_stops_it(new_run, wanted):
    stop = []
    folder, run = new_run(stopped=lambda: bool(stop))
    parts = run.run(here)
    next(parts)
    stop.append(1)
    while not folder.exists(STOP_FILE):
        pass
    assert list(parts) == []
    assert not folder.exists(STOP_FILE)
    assert not folder.exists(MANIFEST_FILE)
    folder, run = new_run()
    list(run.run(here))
    assert rows_of(folder) == wanted


def test_parts_that_an_engine_lost_are_asked_for_again(new_run, wanted):
    calls = []

    def forgetful(task, done):
        calls.append(set(done))
        for number in part_numbers(task.folder, done, look=0.01):
            if number != 2 or len(calls) > 1:
                yield classify_part(task, number)

    folder, run = new_run()
    list(run.run(forgetful))
    assert calls == [set(), {0, 1, 3, 4, 5}]
    assert rows_of(folder) == wanted
    folder, run = new_run(str(folder.local.with_name("other")))
    with pytest.raises(OutputError, match=r"6 parts have no rows, the first is part-000000.parquet"):
        list(run.run(lambda task, done: ()))


def test_a_plan_that_was_removed_is_named(new_run):
    folder, run = new_run()
    list(run.run(here))
    for name in (part_name(2), f"_cascade/plan/{part_name(2)}"):
        (folder.local / name).unlink()
    folder, run = new_run()
    with pytest.raises(
        OutputError, match=r"plan/part-000002.parquet: is missing; begin again with --restart"
    ):
        list(run.run(here))


def test_a_list_of_paths_and_of_nothing(new_run, wanted, tmp_path):
    inputs = iter([Found(row["path"]) for row in wanted])
    folder, run = new_run(inputs=inputs)
    list(run.run(here))
    assert rows_of(folder) == wanted
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("x")
    folder, run = new_run(str(tmp_path / "other"), inputs=(str(tmp_path / "none"),))
    with pytest.raises(UsageError, match=r"none: holds no photos.*not photos 1"):
        list(run.run(here))


def test_input_and_output_in_another_file_system(new_run, archive, wanted):
    memory = fsspec.filesystem("memory")
    for path in archive.rglob("*.*"):
        memory.pipe_file(f"/store/{path.relative_to(archive)}", path.read_bytes())
    memory.pipe_file("/store/.hidden/a.jpg", b"")
    memory.pipe_file("/store/notes.txt", b"")
    folder, run = new_run("memory://rows", inputs=("memory://store",))
    list(run.run(here))
    rows = [
        row for n in range(6) for row in pq.read_table(pa.BufferReader(folder.read(part_name(n)))).to_pylist()
    ]
    assert run.left_out == {"hidden": 1, "not photos": 1}
    names = {row["path"].removeprefix("memory:///store/"): row["label"] for row in rows}
    assert names == {row["path"].removeprefix(f"{archive}/"): row["label"] for row in wanted}


def test_another_folder_and_another_command_are_refused(new_run, tmp_path, tiny_bundle):
    folder, run = new_run()
    list(run.run(here))
    with pytest.raises(OutputError, match="holds a run already; continue it with --resume"):
        begin(folder, {"a": "1"}, resume=False, restart=False).__enter__()
    with pytest.raises(UsageError, match=r"started with a = 1, now it is 2"):
        begin(folder, {"a": "2"}, resume=True, restart=False).__enter__()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match=r"not of a run of cascade \(thesis.txt\)"):
        begin(OutputFolder(str(tmp_path / "mine")), {}, resume=True, restart=True).__enter__()
    with (
        begin(folder, {"a": "1"}, resume=True, restart=False),
        pytest.raises(OutputError, match="another cascade is writing there"),
        begin(folder, {"a": "1"}, resume=True, restart=False),
    ):
        pass
    (folder.local / "notes.txt").write_text("mine")
    with begin(folder, {"a": "2"}, resume=False, restart=True):
        assert sorted(folder.names()) == ["notes.txt"]
        assert Plan(folder).totals() is None
    assert json.loads(folder.read("_cascade/run.json"))["fingerprint"] == {"a": "2"}
