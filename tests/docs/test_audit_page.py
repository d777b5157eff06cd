"""docs/audit.md names every kind of finding, every key and every action, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from cascade.audit.decisions import ACTIONS
from cascade.audit.finding import KINDS, Finding

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")


def test_every_kind_has_a_row_and_no_other() -> None:
    table = PAGE[PAGE.index("## What is found") :].split("\n\n")[1]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(KINDS)


def test_every_key_and_action_is_named() -> None:
    keys = Finding("corrupt", "a", "b", 1.0, "c").to_dict()
    for name in (*keys, *ACTIONS):
        assert f"`{name}`" in PAGE
