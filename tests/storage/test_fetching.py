"""`cascade.storage.fetching`: retries of what may pass, codes for what does not, order and bounded memory."""

from __future__ import annotations

import threading
import time

import pytest

from cascade.errors import ImageError, MissingExtraError, UsageError
from cascade.storage import fetching
from cascade.storage.fetching import ahead, is_url, read_url

fsspec = pytest.importorskip("fsspec")


class Flaky(fsspec.AbstractFileSystem):
    """Raises what it is told, one exception a call, then answers."""

    protocol = "flaky"
    cachable = False
    errors: list[Exception]
    calls = 0

    def cat_file(self, path, start=None, end=None, **kwargs):
        Flaky.calls += 1
        if Flaky.errors:
            raise Flaky.errors.pop(0)
        return b"content"


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", Flaky, clobber=True)

    def set_up(*errors):
        Flaky.errors, Flaky.calls = list(errors), 0

    return set_up


def test_what_may_pass_is_tried_again(flaky):
    flaky(OSError("connection reset"), TimeoutError("slow"), RuntimeError("503 SlowDown"))
    assert read_url("flaky://a.jpg", pauses=(0, 0, 0)) == b"content"
    assert Flaky.calls == 4


def test_what_does_not_pass_is_an_error_of_the_photo(flaky):
    flaky(*[OSError("503 slow\ndown")] * 9)
    with pytest.raises(ImageError, match=r"unreadable: cannot be read: 503 slow down"):
        read_url("flaky://a.jpg", pauses=(0, 0))
    assert Flaky.calls == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError, "not_found"),
        (PermissionError, "not_permitted"),
        (IsADirectoryError, "is_directory"),
        (lambda path: OSError(f"Forbidden: {path}"), "not_permitted"),  # what gcsfs raises
    ],
)
def test_what_is_certain_is_not_tried_again(flaky, error, code):
    flaky(error("a.jpg"))
    with pytest.raises(ImageError) as raised:
        read_url("flaky://a.jpg")
    assert (raised.value.code, Flaky.calls) == (code, 1)


def test_a_missing_package_is_named_and_no_row(monkeypatch):
    def not_installed(url):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", not_installed)
    with pytest.raises(MissingExtraError, match=r"gs:// URLs \(Please .*cascade-vision\[gcs\]"):
        read_url("gs://bucket/a.jpg")
    with pytest.raises(UsageError, match="odd:// URLs needs a package that is missing"):
        read_url("odd://a.jpg")


def test_what_is_too_large_for_a_photo_is_not_read_whole(monkeypatch):
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    fsspec.filesystem("memory").pipe_file("/big.jpg", bytes(5000))
    with pytest.raises(ImageError, match="too_many_bytes"):
        read_url("memory://big.jpg")


def test_urls_and_paths():
    urls = ["s3://b/k.jpg", "gs://b/k", "https://x/y", "file:///a"]
    paths = ["a.jpg", "/a/b.jpg", "C:\\a.jpg", "c://a.jpg", "a b://c", "://x", ""]
    assert [is_url(path) for path in urls + paths] == [True] * 4 + [False] * 7


def test_ahead_keeps_the_order_and_its_bound():
    lock, running, most, taken = threading.Lock(), 0, 0, 0

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (item % 3))
        with lock:
            running -= 1
        return item

    def items():
        nonlocal taken
        for item in range(60):
            taken += 1
            yield item

    given = 0
    for item in ahead(work, items(), threads=4, most=6):
        assert item == given
        given += 1
        assert taken <= given + 6
    assert (given, most) == (60, 4)
