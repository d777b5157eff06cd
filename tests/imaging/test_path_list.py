"""`cascade.imaging.path_list`: paths on a stream, as they come."""

from __future__ import annotations

import io
import os

import pytest

from cascade.imaging.path_list import read_list


@pytest.mark.parametrize(
    ("data", "null", "expected"),
    [
        (b"a.jpg\nb c.jpg\r\n\n", False, ["a.jpg", "b c.jpg"]),
        (b"a.jpg", False, ["a.jpg"]),
        (b"a\nb.jpg\0c.jpg\0", True, ["a\nb.jpg", "c.jpg"]),
        (b"x" * 100_000 + b"\0y", True, ["x" * 100_000, "y"]),
        (b"", True, []),
        (b"bad-\xfe.jpg\n", False, ["bad-\udcfe.jpg"]),
    ],
)
def test_lists(data, null, expected):
    assert [one.path for one in read_list(io.BytesIO(data), null=null)] == expected


def test_a_list_is_read_as_it_comes():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        found = read_list(reader, null=True)
        writer.write(b"first.jpg\0")
        assert next(found).path == "first.jpg"
        writer.write(b"second.jpg\0")
        assert next(found).path == "second.jpg"
