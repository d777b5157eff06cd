"""Finds the photos of local folders and of object stores, one page of names at a time."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from cascade.cluster.fetching import is_url
from cascade.errors import MissingExtraError, UsageError
from cascade.imaging.files import FindOptions, Found, find_photos
from cascade.imaging.recognition import PHOTO_SUFFIXES

__all__ = ["can_continue", "list_photos"]


def can_continue(inputs: Sequence[str]) -> bool:
    """Whether a listing that was broken off goes on behind the last name: S3 gives names in their order."""
    return all(url.startswith("s3://") for url in inputs)


def list_photos(
    inputs: Sequence[str], find: FindOptions, after: tuple[int, str] | None = None
) -> Iterator[tuple[int, Found]]:
    """Yield the photos of every input with the place of the input among ``inputs``.

    In an object store a photo is what is named like one: looking into every object would cost a request for
    each. An object whose whole name is given is always a photo.

    Args:
        inputs: local files and folders, or URLs of objects and of prefixes; not both kinds.
        find: what is looked at; counts what was passed over.
        after: begin behind this photo of this input; only where `can_continue` says so.

    Raises:
        UsageError: when an input cannot be listed.
    """
    if not any(map(is_url, inputs)):
        for found in find_photos(inputs, find):
            yield 0, found
        return
    for place, url in enumerate(inputs):
        if after is not None and place < after[0]:
            continue
        last = after[1] if after is not None and place == after[0] else None
        for found in _list_url(url, find, last):
            yield place, found


def _list_url(url: str, find: FindOptions, after: str | None) -> Iterator[Found]:
    if _is_named_like_a_photo(url) and not url.endswith("/"):
        if after is None:
            yield Found(url)
        return
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(url)
        protocol = url.partition("://")[0]
        root = root.rstrip("/")
        names = _s3_names(files, root, after) if protocol == "s3" else _walked_names(files, root)
        for name, size in names:
            reason = _why_left_out(name.removeprefix(root), find)
            if reason:
                find.left_out[reason] += 1
            else:
                yield Found(f"{protocol}://{name.lstrip('/') if protocol == 's3' else name}", size)
    except ImportError as error:
        raise MissingExtraError(f"reading {url}", "ray") from error
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{url}: cannot be listed ({text}); check the name, and the credentials and the endpoint in the "
            "environment (AWS_PROFILE, AWS_ENDPOINT_URL and the like)"
        ) from error


def _s3_names(files: Any, root: str, after: str | None) -> Iterator[tuple[str, int]]:
    """Yield bucket/key and size of every object below a prefix, in the order of the bytes of the keys."""
    bucket, _, prefix = root.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    if after is not None:
        asked["StartAfter"] = after.removeprefix(f"s3://{bucket}/")
    while True:
        page = files.call_s3("list_objects_v2", **asked)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # what consoles make to show a folder
                yield f"{bucket}/{entry['Key']}", entry["Size"]
        token = page.get("NextContinuationToken")
        if not token:
            return
        asked["ContinuationToken"] = token


def _walked_names(files: Any, root: str) -> Iterator[tuple[str, int]]:
    """Yield path and size of every file below a folder; one folder's names are in memory at a time."""
    for home, _, names in files.walk(root, detail=True, on_error="raise"):
        for name in sorted(names):
            yield posixpath.join(home, name), names[name].get("size") or -1


def _why_left_out(name: str, find: FindOptions) -> str | None:
    if not find.hidden and any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    return None if _is_named_like_a_photo(name) else "not photos"


def _is_named_like_a_photo(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122 - a key is no path
