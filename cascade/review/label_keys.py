"""Gives every label a key of its own, the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Final

__all__ = ["RESERVED", "label_keys"]

#: Letters that mean something else on the page: not a place, undo.
RESERVED: Final = frozenset("xu")
_LETTERS: Final = tuple(letter for letter in ascii_lowercase if letter not in RESERVED)


def label_keys(labels: Sequence[str]) -> dict[str, str]:
    """Return label -> key: a letter, or an upper-case one for Shift and that letter.

    A label gets the first free letter of its own name, words first; what is left gets what is left. With
    more than 48 labels the last ones have no key and are found by typing their name. The result depends on
    the labels and their order only, so that fingers can learn it.
    """
    keys: dict[str, str] = {}
    free = [*_LETTERS, *(letter.upper() for letter in _LETTERS)]
    for wanted in (_first_letters, _all_letters, lambda label: free):
        for label in labels:
            if label in keys:
                continue
            key = next((letter for letter in wanted(label) if letter in free), None)
            if key is not None:
                keys[label] = key
                free.remove(key)
    return {label: keys[label] for label in labels if label in keys}


def _first_letters(label: str) -> list[str]:
    first = [word[0] for word in label.lower().replace("_", " ").split() if word[0] in _LETTERS]
    return first + [letter.upper() for letter in first]


def _all_letters(label: str) -> list[str]:
    letters = [letter for letter in label.lower() if letter in _LETTERS]
    return letters + [letter.upper() for letter in letters]
