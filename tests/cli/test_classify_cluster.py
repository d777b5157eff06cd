"""`cascade classify --engine ray`: the command around the engine, which is a loop in this process here."""

from __future__ import annotations

import contextlib
import io
import sys
import types

import pytest

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec")

import cascade.cli.classify_cluster as command
from cascade.cluster.part import classify_part, part_numbers


@pytest.fixture
def on_cluster(run_cli, monkeypatch):
    """Run the command with an engine that needs no Ray; returns what it did."""
    seen = {}

    @contextlib.contextmanager
    def connected(address, workers):
        seen["address"] = address
        yield workers or 2

    def run_parts(task, done, workers):
        seen["workers"] = workers
        for number in part_numbers(task.folder, done, look=0.01):
            yield classify_part(task, number)

    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    monkeypatch.setattr(command, "connected", connected)
    monkeypatch.setattr(command, "run_parts", run_parts)

    def run(*arguments):
        ran = run_cli("classify", *arguments, "--engine", "ray")
        return ran, seen

    return run


def test_a_run_and_its_end(on_cluster, photo, tmp_path):
    for n in range(5):
        photo(f"in/{n}.png", ["beach", "menu"][n % 2])
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    told = [tmp_path / "in", "-o", tmp_path / "rows", "--part-size", "2"]
    ran, seen = on_cluster(*told, "--ray-address", "head:1", "--workers", "3")
    assert (ran.code, seen) == (1, {"address": "head:1", "workers": 3})
    assert "6 photos in" in ran.err
    assert "labels: beach 3, menu 2" in ran.err
    assert "1 photo failed: not_an_image 1" in ran.err
    assert pq.read_table(str(tmp_path / "rows")).num_rows == 6
    ran, _ = on_cluster(*told)
    assert (ran.code, "holds a run already; continue it with --resume" in ran.err) == (2, True)
    ran, _ = on_cluster(*told, "--resume", "--top-k", "2")
    assert (ran.code, "started with --top-k = 5, now it is 2" in ran.err) == (2, True)
    (tmp_path / "rows" / "part-000001.parquet").unlink()
    ran, _ = on_cluster(*told, "--resume")
    assert (ran.code, "2 photos in" in ran.err, "4 were done before" in ran.err) == (1, True, True)
    ran, _ = on_cluster(*told, "--restart", "--quiet")
    assert (ran.code, ran.err) == (1, "")


def test_the_options_reach_the_workers(on_cluster, photo, tmp_path):
    photo("in/a.png", "beach")
    ran, _ = on_cluster(
        tmp_path / "in", "-o", tmp_path / "rows", "--fields", "path,top,general", "--top-k", "2"
    )
    assert ran.code == 0
    (row,) = pq.read_table(str(tmp_path / "rows")).to_pylist()
    assert row.keys() == {"path", "top", "general_label", "general_confidence"}
    assert [one["label"] for one in row["top"]][:1] == ["beach"]
    assert len(row["top"]) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "rows", "--watch"], "--watch works on one machine; leave it out, or leave out --engine ray"),
        ([], "--engine ray writes many files; give a folder or a URL such as s3://bucket/rows"),
        (["-o", "rows", "-f", "csv"], "--engine ray writes Parquet; leave out --format"),
        (["-o", "in/a.png"], "is no folder"),
        (["-o", "in"], "holds files that are not of a run of cascade (a.png)"),
    ],
)
def test_what_makes_no_sense_is_refused(on_cluster, photo, tmp_path, monkeypatch, options, text):
    photo("in/a.png")
    monkeypatch.chdir(tmp_path)
    ran, _ = on_cluster("in", *options)
    assert (ran.code, text in ran.err) == (2, True), ran.err


def test_nothing_to_classify_is_refused(on_cluster, tmp_path):
    (tmp_path / "empty").mkdir()
    ran, _ = on_cluster(tmp_path / "empty", "-o", tmp_path / "rows")
    assert (ran.code, "empty: holds no photos" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "name", ["s3://bucket/shard.tar", "gs://bucket/train.parquet", "a.tar.gz", "a.parquet"]
)
def test_an_archive_is_refused_and_the_message_says_what_to_do(on_cluster, tmp_path, name):
    ran, _ = on_cluster(name, "-o", tmp_path / "rows")
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert f"{name}: --engine ray does not read tar archives and Parquet files with photos" in ran.err
    assert "leave out --engine to read it on this machine (docs/archives.md)" in ran.err
    assert not (tmp_path / "rows").exists()


def test_archives_in_a_folder_and_in_a_list(on_cluster, photo, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(b"")
    ran, _ = on_cluster(tmp_path / "in", "-o", tmp_path / "rows")
    assert (ran.code, "archives are read on one machine, without --engine: docs/archives.md" in ran.err) == (
        2,
        True,
    ), ran.err
    listed = f"{photo('b.png', 'beach')}\n{tmp_path / 'in' / 'a.tar'}\n"
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(listed.encode())))
    ran, _ = on_cluster("-", "-o", tmp_path / "listed")
    assert ran.code == 1
    rows = pq.read_table(str(tmp_path / "listed")).to_pylist()
    assert [(row["label"], row["error_code"]) for row in rows] == [("beach", None), (None, "unsupported")]
    assert "docs/archives.md" in rows[1]["error_message"]


def test_options_of_clusters_need_an_engine(run_cli, photo):
    ran = run_cli("classify", photo(), "--part-size", "5")
    assert (ran.code, "--part-size is about clusters; give it with --engine ray" in ran.err) == (2, True)


def test_ray_that_is_not_installed_is_named(run_cli, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = run_cli("classify", photo(), "--engine", "ray", "-o", tmp_path / "rows")
    assert (ran.code, "pip install 'cascade-vision[ray]'" in ran.err) == (2, True)
    assert not (tmp_path / "rows").exists()
