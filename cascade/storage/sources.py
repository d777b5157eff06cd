"""Finds the photos in whatever a user names: files, folders, lists, URLs, tar archives and Parquet files.

However a photo is kept, it comes as a `Found`: a name that is the same in every run, what tells whether it
was changed, and, where it is no local file, a function that reads its bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cascade.errors import ImageError
from cascade.imaging.files import FindOptions, Found, find_photos
from cascade.imaging.opening import open_photo
from cascade.imaging.path_list import read_list
from cascade.imaging.recognition import is_named_like_an_archive
from cascade.prediction import ErrorInfo
from cascade.storage.fetching import is_url, open_url
from cascade.storage.listing import find_remote, photo_at

__all__ = ["is_local", "photos_of", "photos_of_list"]


def is_local(path: str) -> bool:
    """Whether what a user named is a photo or a folder of this machine, and no URL or archive."""
    return not is_url(path) and not is_named_like_an_archive(path)


def photos_of(paths: Sequence[str], options: FindOptions, after: str | None = None) -> Iterator[Found]:
    """Find the photos of files, folders, URLs, tar archives and Parquet files, in a stable order.

    Args:
        paths: what the user named.
        options: see there; counts what is passed over.
        after: see `cascade.storage.listing.find_remote`.

    Raises:
        UsageError: at once when a local path does not exist, and on the way when a URL cannot be listed.
        MissingExtraError: when the packages for a kind of URL or file are not installed.
    """
    local = [path for path in paths if not is_url(path)]
    # A folder that is named like a Parquet file holds its parts, as Spark writes them.
    datasets = [path for path in local if path.lower().endswith(".parquet") and Path(path).is_dir()]
    plain = [path for path in local if path not in datasets]
    found = itertools.chain(
        find_photos(plain, options),
        find_photos(datasets, replace(options, archives=True)),
        find_remote([path for path in paths if is_url(path)], options, after),
    )
    return _looked_into(found, options)


def photos_of_list(
    stream: BinaryIO,
    options: FindOptions,
    *,
    null: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    local_only: bool = False,
) -> Iterator[Found]:
    """Find the photos that a stream names; see `cascade.imaging.path_list.read_list`.

    A URL is taken for a photo, or an archive, that has not changed: asking would cost a request each.

    Args:
        stream: paths and URLs.
        options: see `photos_of`.
        null: see `read_list`.
        stopped: see `read_list`.
        local_only: take nothing but local photos; everything else becomes the error of its row.
    """
    found = read_list(stream, null=null, stopped=stopped)
    if local_only:
        return found
    return _looked_into((photo_at(one.path) if is_url(one.path) else one for one in found), options)


def _looked_into(found: Iterable[Found], options: FindOptions) -> Iterator[Found]:
    for one in found:
        if one.error is not None or not is_named_like_an_archive(one.path):
            yield one
            continue
        try:
            file = open_url(one.path) if is_url(one.path) else open_photo(one.path)
        except ImageError as error:
            yield replace(one, error=ErrorInfo(error.code, error.message))
            continue
        with file:
            yield from _reader_of(one.path)(file, one, options)


def _reader_of(path: str) -> Callable[[BinaryIO, Found, FindOptions], Iterator[Found]]:
    """Return what reads an archive; loaded only for those who have one."""
    if path.lower().endswith(".parquet"):
        from cascade.storage.parquet_photos import photos_of_parquet

        return photos_of_parquet
    from cascade.storage.tar_photos import photos_of_tar

    return photos_of_tar
