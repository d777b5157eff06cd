"""`cascade.cli.main`: what belongs to no single command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

import cascade
from cascade.bundle.manifest import Bundle
from cascade.cli import main as cli
from cascade.errors import BundleError


def test_version(run_cli):
    ran = run_cli("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"cascade {cascade.__version__}\n", "")


def test_help_lists_every_command_and_exit_code(run_cli):
    ran = run_cli("--help")
    assert ran.code == 0
    for command in ("classify", "info", "demo", "train", "evaluate"):
        assert f"\n  {command} " in ran.out
    for code in ("0", "1", "2", "70", "130"):
        assert f"\n    {code} " in ran.out


@pytest.mark.parametrize("command", ["classify", "info", "demo", "train", "evaluate"])
def test_every_command_explains_itself_without_a_bundle(run_cli, monkeypatch, command):
    monkeypatch.setenv("CASCADE_BUNDLE", "/nonexistent")
    ran = run_cli(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: cascade {command}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clasify", "x.jpg"], "No such command 'clasify'. Did you mean classify?"),
        (["zzz"], "No such command 'zzz'.\n"),
        (["classify", "--formt", "csv", "x.jpg"], "--format'?"),
        (["classify", "--format", "jsnl", "x.jpg"], "Did you mean jsonl?"),
        (["classify"], "Missing argument 'PATH...'"),
        (["classify", "--top-k", "0", "x.jpg"], "0 is not in the range x>=1"),
        (["classify", "--format", "xml", "x.jpg"], "'xml' is not one of"),
    ],
)
def test_wrong_usage_is_two_and_a_hint(run_cli, arguments, said):
    ran = run_cli(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_an_error_of_cascade_is_one_line(run_cli, monkeypatch, tmp_path):
    monkeypatch.delenv("CASCADE_BUNDLE")
    ran = run_cli("info", "--bundle", tmp_path)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith(f"cascade: error: the bundle that was asked for is not at {tmp_path} ")
    assert ran.err.count("\n") == 1


def raiser(error: BaseException):
    def call(**_: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BundleError("broken; copy it again"), 2, "cascade: error: broken; copy it again\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "out.json"), 2, "out.json: No space left on device\n"),
        (ZeroDivisionError("one\ntwo"), 70, "a fault in cascade itself: ZeroDivisionError: one two;"),
    ],
)
def test_what_each_exception_becomes(run_cli, monkeypatch, error, code, said):
    monkeypatch.delenv("CASCADE_DEBUG", raising=False)
    monkeypatch.setattr(cli.cli, "main", raiser(error))
    ran = run_cli("info")
    assert ran.code == code
    assert said in ran.err
    assert ran.err.count("\n") <= 1


def test_debugging_shows_the_traceback(run_cli, monkeypatch):
    monkeypatch.setenv("CASCADE_DEBUG", "1")
    monkeypatch.setattr(cli.cli, "main", raiser(ZeroDivisionError("x")))
    assert "Traceback" in run_cli("info").err


def spawn(*arguments: str, **options):
    """Start the command line as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(cascade.__file__).parents[1])} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", "cascade", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_a_reader_that_leaves_ends_the_run_quietly(tiny_bundle, photo):
    folder = photo("photos/a.jpg").parent
    for number in range(200):
        photo(f"photos/{number:03d}.jpg", size=(8, 8))
    process = spawn("classify", str(folder), "--bundle", str(tiny_bundle), "--quiet")
    assert process.stdout.readline().startswith(b"# tiny")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, b"")


def completion_of(words: str) -> dict[str, str]:
    """The environment in which a shell asks for the last of the words to be completed."""
    return {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}


def test_a_shell_is_offered_commands():
    asked = {"_CASCADE_COMPLETE": "bash_complete"} | completion_of("cascade cl")
    assert spawn(env=asked).communicate() == (b"plain,classify\n", b"")


@pytest.fixture
def completions(monkeypatch, capfd):
    """What a shell is offered for the last of the words, without a process for each."""

    def complete(words, **environment):
        for name, value in (completion_of(words) | environment).items():
            monkeypatch.setenv(name, value)
        offered = BashComplete(cli.cli, {}, "cascade", "_CASCADE_COMPLETE").complete()
        assert capfd.readouterr() == ("", "")
        return offered.split()

    return complete


def test_completion_offers_options(completions):
    assert completions("cascade classify --by") == ["plain,--by-content"]


def test_completion_offers_values(completions, tiny_bundle, tmp_path):
    bundle = str(tiny_bundle)
    assert completions("cascade classify --format js") == ["plain,jsonl", "plain,json"]
    assert completions("cascade classify --fields path,la") == ["plain,path,label", "plain,path,label_set"]
    points = [f"plain,{name}" for name in Bundle.load(tiny_bundle).operating_points]
    assert points
    assert completions("cascade evaluate --operating-point ", CASCADE_BUNDLE=bundle) == points
    assert completions(f"cascade classify --bundle {bundle} --operating-point ") == points
    assert completions(f"cascade classify --bundle {bundle} --variant e") == ["plain,exact"]
    (tmp_path / "a.toml").write_text('name = "rooms"')
    (tmp_path / "b.toml").write_text("not yet a recipe")
    assert completions(f"cascade train --recipes {tmp_path} --only r") == ["plain,rooms"]
    assert completions("cascade classify --gallery ") == ["file,"]


def test_completion_is_quiet_where_there_is_no_bundle(completions, tmp_path):
    assert completions(f"cascade classify --bundle {tmp_path} --operating-point ") == []


def test_classify_does_not_import_what_only_others_need(tiny_bundle, photo):
    code = (
        "import sys\nfrom cascade.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('loaded:', sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "classify", str(photo()), "--bundle", str(tiny_bundle)],
        env=os.environ | {"PYTHONPATH": str(Path(cascade.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stderr.splitlines()[-1]
    assert "'onnxruntime'" in loaded  # or the next line proves nothing
    for heavy in ("torch", "timm", "rich", "sklearn", "scipy", "matplotlib", "pyarrow", "onnx"):
        assert f"'{heavy}'" not in loaded


def test_remarks_of_pillow_do_not_stand_among_the_rows(photo, tiny_bundle):
    path = photo()
    code = (
        "import PIL.Image, warnings, sys\n"
        "from cascade.imaging import decoding\n"
        "real = decoding.identify\n"
        "def loud(file):\n"
        "    warnings.warn_explicit('odd metadata', UserWarning, 'x.py', 1, 'PIL.X')\n"
        "    return real(file)\n"
        "decoding.identify = loud\n"
        "from cascade.cli.main import main\n"
        f"main(['classify', {str(path)!r}, '--bundle', sys.argv[1], '-q'])\n"
    )
    import subprocess
    import sys

    bundle = str(tiny_bundle)
    ran = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "odd metadata" not in ran.stderr
