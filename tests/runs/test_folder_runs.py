"""Whole runs of `cascade classify` that are stopped, continued, watched, sorted, tagged and shown."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cascade
from cascade.runs.durable_output import state_path
from cascade.runs.gallery.write import write_gallery

REPOSITORY = Path(cascade.__file__).parents[1]


@pytest.fixture
def album(photo, tmp_path):
    """Sixty photos in five colours, one file that is none."""
    for number in range(60):
        label = ("bedroom", "kitchen", "beach", "forest", "menu")[number % 5]
        photo(f"album/{number % 3}/{number:03d}.jpg", label, size=(16 + number, 16))
    (tmp_path / "album" / "1" / "broken.jpg").write_bytes(b"no photo")
    return tmp_path / "album"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_times(found):
    return [{key: value for key, value in row.items() if key != "ms"} for row in found]


@pytest.fixture
def spawn(tiny_bundle):
    """Start the command line as a process of its own; whatever is left of it is cleared away."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CASCADE_BUNDLE": str(tiny_bundle)}
    with contextlib.ExitStack() as stack:

        def start(*arguments, program=("-m", "cascade"), **options):
            process = subprocess.Popen(
                [sys.executable, *program, *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def finish(process):
    """Wait for a process and return its exit code and what it said."""
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.fixture(scope="session")
def folder_runs():
    """The benchmark, whose scenarios are tested here in small."""
    spec = importlib.util.spec_from_file_location("folder_runs", REPOSITORY / "benchmarks" / "folder_runs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["folder_runs"] = module
    spec.loader.exec_module(module)
    return module


def test_resuming_a_finished_run_does_nothing(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output)
    before = output.read_bytes()
    ran = run_cli("classify", album, "-o", output, "--resume")
    assert output.read_bytes() == before
    assert ran.code == 1  # one photo had failed, and still has
    assert "0 photos in" in ran.err
    assert "61 were done before" in ran.err


def test_resuming_adds_what_is_new_and_renews_what_changed(run_cli, album, tmp_path, photo):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output)
    photo("album/new.jpg", "menu")
    photo("album/1/broken.jpg", "beach")
    ran = run_cli("classify", album, "-o", output, "--resume")
    assert ran.code == 0
    found = rows(output)
    assert len(found) == len({row["path"] for row in found}) == 62
    assert {Path(row["path"]).name: row["label"] for row in found}["broken.jpg"] == "beach"


@pytest.mark.parametrize("option", [["--top-k", "2"], ["--ask", "always"], ["--explain"], ["--by-content"]])
def test_other_options_are_refused(run_cli, album, tmp_path, option):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output)
    before = output.read_bytes()
    ran = run_cli("classify", album, "-o", output, "--resume", *option)
    assert ran.code == 2
    assert f"the run was started with {option[0]} = " in ran.err
    assert output.read_bytes() == before


def test_another_bundle_is_refused(run_cli, album, tmp_path, tiny_bundle):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output)
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    manifest = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps(manifest | {"version": "9.9.9"}))
    ran = run_cli("classify", album, "-o", output, "--resume", "--bundle", other)
    assert ran.code == 2
    assert "the run was started with bundle = " in ran.err
    assert run_cli("classify", album, "-o", output, "--restart", "--bundle", other).code == 1
    assert rows(output)[0]["bundle"].startswith("tiny 9.9.9 ")


def test_by_content_gives_the_same_answers(run_cli, album, tmp_path):
    shutil.copytree(album, album / "copy")
    run_cli("classify", album, "-o", tmp_path / "a.jsonl")
    ran = run_cli("classify", album, "-o", tmp_path / "b.jsonl", "--by-content")
    assert ran.code == 1
    assert without_times(rows(tmp_path / "b.jsonl")) == without_times(rows(tmp_path / "a.jsonl"))


def test_by_content_does_not_look_at_the_time(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output, "--by-content")
    for path in album.rglob("*.jpg"):
        os.utime(path)
    assert "0 photos in" in run_cli("classify", album, "-o", output, "--by-content", "--resume").err


@pytest.mark.parametrize(("kind", "kills"), [("jsonl", 8), ("csv", 3), ("table", 3), ("parquet", 3)])
def test_killed_at_random_moments(folder_runs, tiny_bundle, tmp_path, kind, kills):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    folder = folder_runs.make_photos(tmp_path / "many", 400)
    result = folder_runs.survive_kills(folder, tmp_path, kind=kind, kills=kills, bundle=tiny_bundle, seed=7)
    assert result.kills == kills
    assert result.rows == 400
    assert (result.lost, result.doubled, result.different) == (0, 0, 0)


def test_ctrl_c_finishes_what_was_begun(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 1500)
    output = tmp_path / "rows.jsonl"
    process = spawn("classify", folder, "-o", output, "--workers", "1")
    wait_for(lambda: output.exists() and output.stat().st_size > 1000)
    process.send_signal(signal.SIGINT)
    code, err = finish(process)
    assert code == 130
    assert "finishing the photos in work" in err
    assert "with --resume to go on" in err
    assert "Traceback" not in err
    assert 0 < len(rows(output)) < 1500
    assert finish(spawn("classify", folder, "-o", output, "--resume", "--quiet")) == (0, "")
    assert len({row["path"] for row in rows(output)}) == len(rows(output)) == 1500


def test_ctrl_c_while_nothing_comes_ends_it(spawn, tmp_path, photo):
    output = tmp_path / "rows.jsonl"
    process = spawn("classify", "-", "-o", output, stdin=subprocess.PIPE)
    process.stdin.write(f"{photo()}\n")
    process.stdin.flush()
    wait_for(output.exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130  # though standard input is still open


def test_ctrl_c_twice_stops_at_once(spawn, tmp_path, photo):
    # The second signal comes while the first one is being obeyed, as when somebody is impatient.
    first = photo("many/0.png", size=(4000, 3000))
    for number in range(1, 40):
        shutil.copy(first, first.with_name(f"{number}.png"))
    process = spawn("classify", tmp_path / "many", "-o", tmp_path / "rows.jsonl", "--workers", "1")
    wait_for(lambda: (tmp_path / "rows.jsonl").exists() and (tmp_path / "rows.jsonl").stat().st_size)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert "Traceback" not in process.stderr.read()


def test_sigterm_is_an_orderly_end(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 1500)
    output = tmp_path / "rows.jsonl"
    process = spawn("classify", folder, "-o", output, "--workers", "1", "-q")
    wait_for(lambda: output.exists() and output.stat().st_size > 1000)
    process.terminate()
    assert finish(process)[0] == 143
    assert len(rows(output)) > 0


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 400)
    output = tmp_path / "rows.jsonl"

    def limit():  # a file size limit fails like a full disk, with another errno
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = spawn("classify", folder, "-o", output, "-q", preexec_fn=limit)
    code, err = finish(process)
    assert code == 2
    assert "writing stopped" in err
    assert "--resume" in err
    assert err.count("\n") == 1
    assert finish(spawn("classify", folder, "-o", output, "-q", "--resume")) == (0, "")
    assert len({row["path"] for row in rows(output)}) == len(rows(output)) == 400


#: The command line with a decoder that dies of a bad pointer when it meets one photo, as C code does.
CRASHING = """
import ctypes, pathlib, sys
from cascade.inference import pipeline as classifier
from cascade.cli.main import main
real = classifier.load_image
def load(source, **options):
    if pathlib.Path(source).name in ("poison.jpg", "venom.jpg"):
        ctypes.string_at(0)
    return real(source, **options)
classifier.load_image = load
main(sys.argv[1:])
"""


def test_photos_that_crash_the_process_are_found_and_passed_over(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 150)
    (folder / "0000" / "0000050.jpg").rename(folder / "0000" / "poison.jpg")
    (folder / "0000" / "0000070.jpg").rename(folder / "0000" / "venom.jpg")
    output = tmp_path / "rows.jsonl"
    codes = []
    while len(codes) < 10:
        process = spawn("classify", folder, "-o", output, "--resume", "-q", program=["-c", CRASHING])
        codes.append(finish(process)[0])
        if codes[-1] >= 0:
            break
    # Died, found the first, passed it over and died of the second, passed that over too and came to the end.
    assert codes == [-signal.SIGSEGV] * 3 + [1]
    found = rows(output)
    assert len(found) == len({row["path"] for row in found}) == 150
    failed = {Path(row["path"]).name: row["error"]["code"] for row in found if row["error"]}
    assert failed == {"poison.jpg": "fatal", "venom.jpg": "fatal"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many", "rows.jsonl", "rows.jsonl.state"]


def test_kill_9_puts_the_blame_on_no_photo(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 600)
    output = tmp_path / "rows.jsonl"
    for _ in range(2):
        process = spawn("classify", folder, "-o", output, "--resume", "-q", "--workers", "1")
        size = output.stat().st_size if output.exists() else 0
        wait_for(lambda size=size: output.exists() and output.stat().st_size > size)
        process.kill()
        finish(process)
    assert finish(spawn("classify", folder, "-o", output, "--resume", "-q"))[0] == 0


def test_rows_can_be_read_while_they_are_written(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 1500)
    output = tmp_path / "rows.jsonl"
    process = spawn("classify", folder, "-o", output, "-q", "--workers", "1")
    seen = set()
    while process.poll() is None:
        if output.exists():
            whole, _, _ = output.read_bytes().rpartition(b"\n")
            seen.add(len([json.loads(line) for line in whole.splitlines()]))
    assert finish(process)[0] == 0
    assert len(seen) > 3


def test_watching(spawn, album, tmp_path, photo):
    pytest.importorskip("watchfiles")
    output = tmp_path / "rows.jsonl"
    for path in album.rglob("*.jpg"):
        os.utime(path, (1, 1))
    process = spawn("classify", album, "-o", output, "--watch")
    wait_for(lambda: output.exists() and len(rows(output)) == 61)
    photo("album/arrived.jpg", "menu")
    wait_for(lambda: len(rows(output)) == 62)
    process.send_signal(signal.SIGINT)
    code, err = finish(process)
    assert code == 1, err  # one photo is broken
    assert "62 photos in" in err
    assert Path(rows(output)[-1]["path"]).name == "arrived.jpg"


def test_sorting_shows_the_plan_first(run_cli, album, tmp_path):
    target = tmp_path / "sorted"
    ran = run_cli("classify", album, "--sort-into", target, "--sort-mode", "copy", "-q")
    assert f"copy 12 into {target / 'beach'}\n" in ran.err
    assert "nothing was touched; give the same command with --yes" in ran.err
    assert not target.exists()


def test_sorting_and_undo(run_cli, album, tmp_path):
    target = tmp_path / "sorted"
    before = sorted(path.name for path in album.rglob("*"))
    ran = run_cli("classify", album, "--sort-into", target, "--sort-mode", "move", "--yes")
    assert len(list((target / "beach").iterdir())) == 12
    assert [path.name for path in album.rglob("*.jpg")] == ["broken.jpg"]
    (undo_file,) = target.glob("undo-*.jsonl")
    assert f"cascade undo {undo_file}" in ran.err
    ran = run_cli("undo", undo_file)
    assert (ran.code, ran.err) == (0, "60 undone, 0 left as they are\n")
    assert sorted(path.name for path in album.rglob("*")) == before


def test_sorting_into_the_photos_is_refused(run_cli, album):
    ran = run_cli("classify", album, "--sort-into", album / "sorted", "--yes")
    assert ran.code == 2
    assert "take one outside" in ran.err


def test_side_cars(run_cli, album):
    ran = run_cli("classify", album, "--write-xmp")
    assert "side-cars: written 60" in ran.err
    assert len(list(album.rglob("*.xmp"))) == 60
    assert "<rdf:li>bedroom</rdf:li>" in (album / "0" / "000.jpg.xmp").read_text()
    assert "side-cars: unchanged 60" in run_cli("classify", album, "--write-xmp").err


def test_a_gallery(run_cli, album, tmp_path):
    page = tmp_path / "page.html"
    ran = run_cli("classify", album, "--gallery", page)
    assert f"gallery: {page}" in ran.err
    assert page.read_text().count("photos.push(") == 60
    ran = run_cli("classify", album, "--gallery", page)
    assert ran.code == 2
    assert "exists and is not overwritten" in ran.err


#: The command line under an audit of everything that Python lets a program do to the world around it.
AUDITED = """
import os, sys
WRITING = os.O_WRONLY | os.O_RDWR
CHANGING = "sqlite3.connect os.remove os.rename os.mkdir os.rmdir os.symlink os.link os.truncate".split()
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & WRITING:
        print("wrote", os.fspath(arguments[0]), file=sys.stderr)
    elif event in CHANGING and not isinstance(arguments[0], int):  # a number is a file that was opened
        print("wrote", arguments[1 if event == "os.rename" else 0], file=sys.stderr)
    elif event.startswith(("socket.", "subprocess.", "urllib.", "http.", "os.system", "os.exec")):
        print("reached out", event, file=sys.stderr)
from cascade.cli.main import main
sys.addaudithook(audit)
main(sys.argv[1:])
"""


def test_no_network_no_other_program_no_other_file(spawn, album, tmp_path):
    output = tmp_path / "rows.csv"
    # -B, since Python itself keeps compiled modules.
    code, err = finish(spawn("classify", album, "-o", output, "-q", program=["-B", "-c", AUDITED]))
    assert code == 1
    assert set(err.splitlines()) == {
        f"wrote {output}",
        f"wrote {output}.state",
        f"wrote {output}.running",
    }
    # The audit would have seen it:
    side_cars = ["classify", album / "0" / "000.jpg", "--write-xmp"]
    _, err = finish(spawn(*side_cars, program=["-B", "-c", AUDITED]))
    assert f"wrote {album / '0' / '000.jpg'}.xmp" in err


def test_nothing_but_the_output_is_written(run_cli, album, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in album.rglob("*")}
    output = tmp_path / "out" / "rows.csv"
    output.parent.mkdir()
    run_cli("classify", album, "-o", output)
    assert {path: path.stat().st_mtime_ns for path in album.rglob("*")} == before
    assert sorted(output.parent.iterdir()) == [output, state_path(output)]


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_failed_photos_are_named_and_read_again_on_request(run_cli, album, tmp_path, photo):
    output = tmp_path / "rows.jsonl"
    broken = album / "1" / "broken.jpg"
    run_cli("classify", album, "-o", output)
    status = broken.stat()
    broken.write_bytes(b"no photo")
    os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
    ran = run_cli("classify", album, "-o", output, "--resume")
    assert "1 photos failed in earlier runs (not_an_image 1); --retry-failed reads them again" in ran.err
    assert "0 photos in" in ran.err
    ran = run_cli("classify", album, "-o", output, "--resume", "--retry-failed")
    assert "they are read again" in ran.err
    assert "1 photo in" in ran.err
    assert len(rows(output)) == 61
    assert run_cli("classify", album, "-o", output, "--retry-failed").code == 2


def test_failed_copies_are_read_again_by_content(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    shutil.copy(album / "1" / "broken.jpg", album / "2" / "broken.jpg")
    run_cli("classify", album, "-o", output, "--by-content")
    ran = run_cli("classify", album, "-o", output, "--by-content", "--resume", "--retry-failed")
    assert "2 photos in" in ran.err
    assert len(rows(output)) == 62


def test_side_cars_of_a_finished_run(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output)
    ran = run_cli("classify", album, "-o", output, "--resume", "--write-xmp")
    assert "side-cars: written 60" in ran.err
    assert len(list(album.rglob("*.xmp"))) == 60


@pytest.mark.parametrize("where", ["file", "standard output"])
def test_json_is_one_document(run_cli, album, tmp_path, where):
    output = tmp_path / "rows.json"
    if where == "file":
        run_cli("classify", album, "-o", output)
        found = json.loads(output.read_text(encoding="utf-8"))
    else:
        found = json.loads(run_cli("classify", album, "-f", "json").out)
    assert len(found) == 61
    assert found[0]["bundle"].startswith("tiny ")


def test_json_of_a_run_that_was_killed(folder_runs, tiny_bundle, tmp_path, run_cli, photo):
    output = tmp_path / "rows.json"
    run_cli("classify", photo("album/a.jpg"), "-o", output)
    photo("album/b.jpg")
    run_cli("classify", tmp_path / "album", "-o", output, "--resume")
    assert len(json.loads(output.read_text(encoding="utf-8"))) == 2


def test_unknown_endings_are_refused(run_cli, album, tmp_path):
    ran = run_cli("classify", album, "-o", tmp_path / "rows.xlsx")
    assert ran.code == 2
    assert "rows are not written as .xlsx; end the name with .jsonl" in ran.err
    assert not (tmp_path / "rows.xlsx").exists()
    assert run_cli("classify", album, "-o", tmp_path / "rows.xlsx", "-f", "csv").code == 1


def test_sorting_again_leaves_no_undo_file(run_cli, album, tmp_path):
    target = tmp_path / "sorted"
    command = ["classify", album, "--sort-into", target, "--yes"]
    run_cli(*command)
    ran = run_cli(*command)
    assert "already there 60; there was nothing to do" in ran.err
    assert "cascade undo" not in ran.err
    assert len(list(target.glob("undo-*"))) == 1


@pytest.mark.parametrize("option", ["--gallery", "--sort-into"])
def test_targets_are_checked_before_the_work(run_cli, album, tmp_path, monkeypatch, option):
    monkeypatch.setattr("cascade.cli.classify.Cascade", lambda *_, **__: pytest.fail("work began"))
    (tmp_path / "file").write_text("mine")
    ran = run_cli("classify", album, option, tmp_path / "file" / "x")
    assert ran.code == 2
    assert f"for {option}" in ran.err


def test_a_gallery_of_somebody_else_stays(run_cli, album, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>mine")
    ran = run_cli("classify", album, "-o", tmp_path / "rows.csv", "--resume", "--gallery", page)
    assert ran.code == 2
    assert page.read_text() == "<!doctype html>mine"


def test_pages_of_somebody_else_are_found_before_the_work(run_cli, album, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.cli.classify.Cascade", lambda *_, **__: pytest.fail("work began"))
    (tmp_path / "page.html.pages").mkdir()
    (tmp_path / "page.html.pages" / "notes.txt").write_text("mine")
    ran = run_cli("classify", album, "--gallery", tmp_path / "page.html")
    assert ran.code == 2
    assert "holds notes.txt, which cascade did not write" in ran.err


def test_a_gallery_of_many_photos_says_where_its_pages_are(run_cli, album, tmp_path, monkeypatch):
    monkeypatch.setitem(write_gallery.__kwdefaults__, "page_size", 25)
    ran = run_cli("classify", album, "--gallery", tmp_path / "page.html")
    folder = tmp_path / "page.html.pages"
    assert f"({len(list(folder.iterdir()))} pages in {folder})" in ran.err


def test_a_dry_run_writes_nothing(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    before = sorted(tmp_path.rglob("*"))
    more = ["--sort-into", tmp_path / "sorted", "--gallery", tmp_path / "page.html", "--write-xmp", "--yes"]
    ran = run_cli("classify", album, "-o", output, "--dry-run", *more)
    assert ran.code == 0
    assert "would classify 61 photos\n" in ran.out
    assert f"would write rows to {output} as jsonl" in ran.out
    assert f"would link photos into folders of {tmp_path / 'sorted'}\n" in ran.out
    assert sorted(tmp_path.rglob("*")) == before
    run_cli("classify", album, "-o", output)
    ran = run_cli("classify", album, "-o", output, "--resume", "--retry-failed", "--dry-run")
    assert "would classify 1 photos; 60 are done" in ran.out
    assert run_cli("classify", album, "-o", output, "--dry-run").code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_has_no_use_for_resume(tiny_bundle, album):
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "cascade", "classify", album, "-q"],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CASCADE_BUNDLE": str(tiny_bundle)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert "standard output: writing stopped" in process.stderr
    assert "--resume" not in process.stderr


def test_a_folder_of_links_says_how_to_follow_them(run_cli, album, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.jpg").symlink_to(album / "0" / "000.jpg")
    ran = run_cli("classify", links)
    assert ran.code == 2
    assert "--follow-links" in ran.err
    (links / "b.jpg").write_bytes((album / "0" / "000.jpg").read_bytes())
    (links / "c.jpg").write_bytes((album / "0" / "000.jpg").read_bytes())
    assert "--follow-links" in run_cli("classify", links).err
    assert run_cli("classify", links, "--follow-links").code == 0


def test_the_limit_of_pixels_may_change(run_cli, album, tmp_path):
    output = tmp_path / "rows.jsonl"
    run_cli("classify", album, "-o", output, "--max-pixels", "500")
    failed = sum(row["error"] is not None for row in rows(output))
    assert failed > 1
    ran = run_cli("classify", album, "-o", output, "--resume", "--retry-failed", "--max-pixels", "50000000")
    assert f"{failed:,} photos in" in ran.err
    assert sum(row["error"] is not None for row in rows(output)) == 1


#: The command line that is killed from outside whenever it meets one photo, as for lack of memory.
KILLED = CRASHING.replace("ctypes.string_at(0)", "__import__('os').kill(__import__('os').getpid(), 9)")


def test_a_photo_for_which_the_process_is_killed_is_set_aside(spawn, folder_runs, tmp_path):
    folder = folder_runs.make_photos(tmp_path / "many", 150)
    (folder / "0000" / "0000050.jpg").rename(folder / "0000" / "poison.jpg")
    output = tmp_path / "rows.jsonl"
    codes = []
    while len(codes) < 8:
        process = spawn("classify", folder, "-o", output, "--resume", "-q", program=["-c", KILLED])
        codes.append(finish(process)[0])
        if codes[-1] >= 0:
            break
    # Killed once among others, and three times alone.
    assert codes == [-signal.SIGKILL] * 4 + [1]
    found = rows(output)
    assert len(found) == len({row["path"] for row in found}) == 150
    failed = {Path(row["path"]).name: row["error"]["code"] for row in found if row["error"]}
    assert failed == {"poison.jpg": "killed"}


#: The command line with 300 MB of address space to spare when it reads its first photo.
NARROW = """
import pathlib, resource, sys
from cascade.inference import pipeline
from cascade.cli.main import main
real, limited = pipeline.load_image, []
def load(source, **options):
    if not limited:
        limited.append(True)
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
    return real(source, **options)
pipeline.load_image = load
main(sys.argv[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_photo_that_does_not_fit_into_memory_is_a_row(spawn, tmp_path, photo):
    photo("many/b.jpg")
    huge = photo("many/a.png", size=(13_000, 13_000))
    assert huge.stat().st_size < 3_000_000
    output = tmp_path / "rows.jsonl"
    command = ["classify", tmp_path / "many", "-o", output, "--resume", "-q", "--workers", "1"]
    code, err = finish(spawn(*command, program=["-c", NARROW]))
    assert code == 1, err
    assert [row["error"] and row["error"]["code"] for row in rows(output)] == ["not_enough_memory", None]
    assert "MB to decode" in rows(output)[0]["error"]["message"]
