"""Cores: masks and limits of containers count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cascade.inference.cpu import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no masks")
def test_a_mask_counts(tmp_path: Path) -> None:
    whole = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(whole)})
    try:
        assert usable_cores(tmp_path / "no limit") == 1
    finally:
        os.sched_setaffinity(0, whole)
    assert usable_cores(tmp_path / "no limit") == len(whole)


@pytest.mark.parametrize(
    ("text", "cores"), [("100000 100000\n", 1), ("150000 100000\n", 2), ("20000 100000\n", 1)]
)
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("text", ["max 100000\n", "", "damaged"])
def test_no_limit_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == 16
