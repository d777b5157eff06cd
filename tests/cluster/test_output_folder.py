"""`cascade.cluster.output_folder`: what fails in an object store is a message, whatever its exception."""

from __future__ import annotations

import pytest

fsspec = pytest.importorskip("fsspec")

from cascade.cluster.output_folder import OutputFolder
from cascade.errors import MissingExtraError, OutputError, UsageError


class Failing(fsspec.AbstractFileSystem):
    """Raises the same exception for every request."""

    protocol = "failing"
    cachable = False
    error: Exception

    def fail(self, *arguments, **options):
        raise Failing.error

    ls = info = cat_file = pipe_file = rm_file = _open = fail


class HttpError(Exception):
    """Like that of gcsfs: no `OSError`."""


@pytest.fixture
def failing():
    fsspec.register_implementation("failing", Failing, clobber=True)

    def set_up(error):
        Failing.error = error
        return OutputFolder("failing://bucket/rows")

    return set_up


@pytest.mark.parametrize("error", [HttpError("Anonymous caller, 401"), OSError("Forbidden: bucket")])
def test_a_request_that_fails_is_an_error_with_a_name(failing, error):
    folder = failing(error)
    steps = {
        "cannot be listed": lambda: folder.names("_cascade"),
        "cannot be read": lambda: folder.read("a.json"),
        "cannot be looked for": lambda: folder.exists("a.json"),
        "writing stopped": lambda: folder.write("a.json", b""),
        "cannot be removed": lambda: folder.remove("a.json"),
    }
    for what, step in steps.items():
        with pytest.raises(OutputError, match=rf"failing://bucket/rows/\S+ {what} \({error}\)"):
            step()
    with pytest.raises(OutputError, match="cannot be read"):
        folder.open("a.json")


def test_what_is_not_there_is_none(failing):
    folder = failing(FileNotFoundError("bucket/rows"))
    assert folder.names() == []
    assert folder.read("a.json") is None
    assert folder.open("a.json") is None
    assert not folder.exists("a.json")
    folder.remove("a.json")
    with pytest.raises(OutputError, match=r"rows/a\.json: cannot be written, there is no such place"):
        folder.write("a.json", b"")


def test_a_url_that_nothing_opens_is_a_message(monkeypatch):
    with pytest.raises(
        UsageError, match=r"none://b: .*not known.*; give a folder, or a URL that fsspec opens"
    ):
        OutputFolder("none://b")

    def not_installed(url):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", not_installed)
    with pytest.raises(MissingExtraError, match=r"opening gs:// URLs .*cascade-vision\[gcs\]"):
        OutputFolder("gs://bucket/rows")
