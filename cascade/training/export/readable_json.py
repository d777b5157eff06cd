"""Formats JSON for people: indented, with every list of plain numbers on one line."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["readable_json"]


def readable_json(data: Any) -> str:
    """Return indented JSON with every list of plain numbers on one line."""

    def one_line(found: re.Match[str]) -> str:
        return "[" + ", ".join(number.strip() for number in found[1].split(",")) + "]"

    return re.sub(r"\[([\s\d.,eE+-]+)\]", one_line, json.dumps(data, indent=2)) + "\n"
