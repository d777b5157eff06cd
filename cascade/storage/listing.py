"""Lists the photos of object stores and other URLs; memory holds one page of names at a time."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from cascade.errors import ImageError, UsageError
from cascade.imaging.files import FindOptions, Found
from cascade.imaging.recognition import PHOTO_SUFFIXES, is_named_like_an_archive
from cascade.storage.fetching import file_system, read_url, trying_again

__all__ = ["can_continue", "find_remote", "photo_at"]

#: Where file systems keep when an object was changed.
_CHANGED: Final = ("LastModified", "mtime", "last_modified", "updated", "created", "ETag", "etag")
#: Protocol -> where its credentials come from.
_CREDENTIALS: Final = {
    **dict.fromkeys(("s3", "s3a"), "AWS_PROFILE, AWS_ENDPOINT_URL and the like"),
    **dict.fromkeys(("gs", "gcs"), "gcloud auth application-default login, GOOGLE_APPLICATION_CREDENTIALS"),
}


def photo_at(url: str, size: int = -1, mtime_ns: int = 0) -> Found:
    """Return the photo of a URL, which is read when it is needed; nothing is asked for now."""
    return Found(url, size, mtime_ns, read=partial(read_url, url))


def can_continue(urls: Sequence[str]) -> bool:
    """Whether a listing that was broken off can go on behind the last name.

    S3 and Google's store give names in their order, which is that of Python's strings.
    """
    return len(urls) == 1 and urls[0].startswith(("s3://", "gs://"))


def find_remote(urls: Sequence[str], options: FindOptions, after: str | None = None) -> Iterator[Found]:
    """Find photos below URLs, and archives among them where they are looked into.

    An object is a photo when its name ends like one, or has no ending at all: looking into every object
    would cost a request each. An object whose whole name is given is always a photo or an archive.

    Args:
        urls: of objects, and of prefixes or folders.
        options: see there; counts what was passed over.
        after: begin behind this photo; only where `can_continue` says so.

    Raises:
        UsageError: when one of them does not exist or cannot be listed.
        MissingExtraError: when the package for this kind of URL is not installed.
    """
    roots = list(dict.fromkeys(url.rstrip("/") for url in urls))
    for url in roots:
        if not any(url.startswith(f"{other}/") for other in roots):  # that one finds it
            yield from _find(url, options, after)


def _find(url: str, options: FindOptions, after: str | None) -> Iterator[Found]:
    try:
        files, path = file_system(url)
        if _is_named_like_a_photo(url) or is_named_like_an_archive(url):
            info = trying_again(lambda: files.info(path))
            if info["type"] == "file":
                if after is None:
                    yield photo_at(url, *_size_and_change(info))
                return
            options = _with_archives(url, options)
        empty = True
        home = files.unstrip_protocol(path.rstrip("/"))  # gcs://bucket is gs://bucket
        for name, info in _names(files, path.rstrip("/"), after):
            empty = False
            reason = _why_left_out(name.removeprefix(home), _size_and_change(info)[0], options)
            if reason:
                options.left_out[reason] += 1
            else:
                yield photo_at(name, *_size_and_change(info))
        if empty and after is None:
            info = trying_again(lambda: files.info(path))
            if info["type"] == "file":
                yield photo_at(url, *_size_and_change(info))
    except ImageError as error:
        what = {"not_found": "there is nothing", "not_permitted": "may not be listed or read"}
        known = _CREDENTIALS.get(url.partition("://")[0].lower())
        raise UsageError(
            f"{url}: {what.get(error.code, error.message)}; check the name, the credentials and the endpoint"
            + (f" ({known})" if known else "")
            + ". Rows that were written are safe: --resume goes on"
        ) from error


def _with_archives(url: str, options: FindOptions) -> FindOptions:
    """Look into the parts of a folder that is named like a Parquet file, as Spark writes them."""
    return replace(options, archives=True) if url.lower().endswith(".parquet") else options


def _names(files: Any, path: str, after: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the URL of every object below a path, with what the file system says about it."""
    protocol = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
    if (objects := _IN_PAGES.get(protocol)) is None:
        for home, _, names in files.walk(path, detail=True, on_error="raise"):
            for name in sorted(names):
                yield files.unstrip_protocol(posixpath.join(home, name)), names[name]
        return
    bucket, _, prefix = path.partition("/")
    home = f"{protocol}://{bucket}/"
    behind = None if after is None else after.removeprefix(home)
    for key, info in objects(files, bucket, f"{prefix}/" if prefix else "", behind):
        if not key.endswith("/"):  # what consoles make to show a folder
            yield home + key, info


def _s3_objects(
    files: Any, bucket: str, prefix: str, after: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Page through a bucket in the order of its keys; s3fs itself would hold all of them."""
    asked = {"Bucket": bucket, "Prefix": prefix}
    if after is not None:
        asked["StartAfter"] = after
    while True:
        page = trying_again(lambda: files.call_s3("list_objects_v2", **asked))
        for entry in page.get("Contents", ()):
            yield entry["Key"], entry
        if not (token := page.get("NextContinuationToken")):
            return
        asked["ContinuationToken"] = token


def _gcs_objects(
    files: Any, bucket: str, prefix: str, after: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Page through a bucket in the order of its keys; gcsfs itself would hold all of them."""
    asked = {"maxResults": 1000, "fields": "items(name,size,updated),nextPageToken", "prefix": prefix}
    if after is not None:
        asked["startOffset"] = after
    while True:
        page = trying_again(lambda: files.call("GET", "b/{}/o", bucket, json_out=True, **asked))
        for entry in page.get("items", ()):
            if entry["name"] != after:  # the offset is the first name, not the one before it
                changed = datetime.fromisoformat(entry["updated"])
                yield entry["name"], {"size": entry["size"], "mtime": changed}
        if not (token := page.get("nextPageToken")):
            return
        asked["pageToken"] = token


#: Protocol -> lists the objects of a bucket below a prefix and behind a key, in the order of the keys.
_IN_PAGES: Final = {"s3": _s3_objects, "gs": _gcs_objects}


def _size_and_change(info: dict[str, Any]) -> tuple[int, int]:
    """Return bytes, and a number that changes with the object: nanoseconds since 1970, or a hash."""
    size = info.get("size", info.get("Size"))
    value = next((info[key] for key in _CHANGED if info.get(key)), 0)
    if isinstance(value, datetime):
        value = value.timestamp()
    if isinstance(value, int | float):
        return -1 if size is None else int(size), round(value * 1e9)
    digest = hashlib.sha256(str(value).encode()).digest()
    return -1 if size is None else int(size), int.from_bytes(digest[:7])


def _why_left_out(name: str, size: int, options: FindOptions) -> str | None:
    """Return why an object is passed over; ``name`` is what follows the URL that was given."""
    if not options.hidden and any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    if is_named_like_an_archive(name):
        return None if options.archives else "archives"
    if _is_named_like_a_photo(name):
        return None
    # Empty objects without an ending mark folders, and jobs that have ended.
    return None if not posixpath.splitext(name)[1] and size != 0 else "not photos"


def _is_named_like_a_photo(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in PHOTO_SUFFIXES
