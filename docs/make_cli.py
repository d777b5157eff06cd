"""Puts the --help of every command, and the codes of rows, into docs/cli.md: `python docs/make_cli.py`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cascade.cli.main import cli
from cascade.errors import IMAGE_ERROR_CODES, IMAGE_WARNING_CODES

PAGE = Path(__file__).with_name("cli.md")
_WIDTH = 96


def help_of(name: str) -> str:
    """Return what `cascade NAME --help` says, `cascade --help` for "cascade"."""
    settings = {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    parent = click.Context(cli, info_name="cascade", **settings, **cli.context_settings)
    if name == "cascade":
        return cli.get_help(parent)
    command = cli.get_command(parent, name)
    if command is None:
        raise KeyError(f"there is no command {name!r}")
    return command.get_help(click.Context(command, info_name=name, parent=parent, **settings))


def codes() -> str:
    """Return the tables of what a row's `error` and `warnings` can say."""
    lines = []
    for title, known in (("error code", IMAGE_ERROR_CODES), ("warning code", IMAGE_WARNING_CODES)):
        lines += [
            f"\n| {title} | meaning |\n|---|---|",
            *(f"| `{code}` | {text} |" for code, text in known.items()),
        ]
    return "\n".join(lines) + "\n"


def render(page: str) -> str:
    """Return the page with every block after `<!-- help: NAME -->`, and the codes, as they are now."""
    page = re.sub(
        r"(<!-- codes -->\n).*?(?=\n### |\Z)", lambda found: found[1] + codes(), page, flags=re.DOTALL
    )
    return re.sub(
        r"(<!-- help: (\w+) -->\n```text\n).*?(\n```)",
        lambda found: found[1] + help_of(found[2]) + found[3],
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
