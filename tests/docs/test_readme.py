"""README.md: the first command prints what stands there, and every link leads to a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> tuple[str, list[list[str]]]:
    """Return bundle, version and hash, which stand in the first line, and the rows below it."""
    first, *others = text.strip().splitlines()
    return first.rpartition(" ")[0], [line.split() for line in others]


def test_the_first_command_prints_what_the_readme_shows(
    run_cli, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = re.search(r"&& \.venv/bin/cascade (classify .*)\n```\n+```\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    monkeypatch.chdir(ROOT)
    ran = run_cli(*shlex.split(shown[1]), "--bundle", shipped_bundle)
    assert ran.code == 0
    (bundle, expected), (used, found) = rows(shown[2]), rows(ran.out)
    assert (bundle, len(expected)) == (used, len(found))
    for (label, confidence, path), (found_label, found_confidence, found_path) in zip(
        expected[1:], found[1:], strict=True
    ):
        assert (label, path) == (found_label, found_path)
        # Another processor may run another variant.
        assert float(found_confidence) == pytest.approx(float(confidence), abs=0.02)


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
