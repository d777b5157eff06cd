"""docs/cli.md: every command is there, and its --help is current."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import pytest

from cascade.cli.main import cli
from cascade.runs.rows import FIELDS, columns_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def make_cli():
    spec = importlib.util.spec_from_file_location("make_cli", DOCS / "make_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return (DOCS / "cli.md").read_text(encoding="utf-8")


def test_help_is_current(make_cli, page):
    assert make_cli.render(page) == page, "run: python docs/make_cli.py"


def test_every_command_has_its_section(page):
    for command in cli.list_commands(click.Context(cli)):
        assert f"\n## cascade {command}\n" in page
        assert f"\n<!-- help: {command} -->\n" in page


def test_every_field_and_column_is_explained(page):
    for name in (*FIELDS, *columns_of(FIELDS)):
        assert f"`{name}`" in page


def test_what_the_page_renders_is_what_the_command_says(make_cli, run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    said = run_cli("undo", "--help").out
    assert make_cli.help_of("undo").split() == said.split()
    with pytest.raises(KeyError):
        make_cli.help_of("nonsense")
