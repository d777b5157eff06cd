"""Defines the exceptions that cascade raises on purpose.

    CascadeError
    ├── UsageError           the call itself is wrong (an unknown option value, a wrong type)
    ├── BundleError          a bundle is missing, damaged, or does not fit together
    ├── ImageError           one photo cannot be read; carries one of the codes of IMAGE_ERROR_CODES
    ├── DataError            a data set for training or evaluation cannot be used
    ├── RecipeError          a recipe file is wrong
    ├── OutputError          a result cannot be written
    └── MissingExtraError    a feature needs an optional dependency that is not installed

A message says what is wrong, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = [
    "IMAGE_ERROR_CODES",
    "IMAGE_WARNING_CODES",
    "BundleError",
    "CascadeError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "OutputError",
    "RecipeError",
    "UsageError",
    "needs_extra",
]

#: The codes that a row with `status: error` can carry, and what each of them means.
IMAGE_ERROR_CODES: Final[dict[str, str]] = {
    "not_found": "there is no file at this path",
    "is_directory": "the path is a folder, not a file",
    "not_permitted": "the file may not be read",
    "unreadable": "the file could not be read from the disk",
    "empty": "the file has no bytes",
    "not_an_image": "the content is no image format that can be decoded here",
    "unsupported": "the format is known, but this installation cannot decode it",
    "truncated": "the image ends early and too little of it can be decoded",
    "damaged": "the image data is damaged",
    "too_many_pixels": "the image has more pixels than the limit allows",
    "too_many_bytes": "the object or archive member is larger than any photo, so it is not read into memory",
    "too_small": "the image has no area to look at",
    "not_enough_memory": "decoding the image would take more memory than this process may use",
    "fatal": "reading the image crashed the process in an earlier run, so it is passed over",
    "killed": "the process was killed whenever it read the image, so it is passed over",
}

#: What can be odd about a photo that was classified all the same. A warning is one line, "code: message".
IMAGE_WARNING_CODES: Final[dict[str, str]] = {
    "truncated": "the image ends early; the part that could be decoded was used",
    "damaged": "the image data is damaged; the part that could be decoded was used",
    "profile_ignored": "the colour profile is damaged or does not fit; colours may be off",
}


class CascadeError(Exception):
    """Base class of every error that cascade raises on purpose."""


class UsageError(CascadeError):
    """The call is wrong: a wrong type, an unknown option value, an impossible combination."""


class BundleError(CascadeError):
    """A bundle is missing, damaged, or its parts do not fit together."""


class DataError(CascadeError):
    """The labelled photos that were given cannot be used for training or evaluation."""


class RecipeError(CascadeError):
    """A recipe file is wrong."""


class OutputError(CascadeError):
    """A file exists that may not be overwritten, or cannot be written."""

    @classmethod
    def writing(cls, where: object | None, error: Exception) -> OutputError:
        """Return the error for a write that failed; its message says that rows written before are safe.

        Args:
            where: the file; None is standard output, which cannot be continued.
            error: of the operating system, or of an object store.
        """
        why = getattr(error, "strerror", None) or error
        if where is None:
            return cls(
                f"standard output: writing stopped ({why}); its last row may be cut. "
                "Make room where it goes, or write to a file with --output"
            )
        return cls(
            f"{where}: writing stopped ({why}); rows written so far are safe: "
            "make room, then give the same command with --resume"
        )


class MissingExtraError(CascadeError):
    """A feature needs an optional dependency that is not installed.

    Args:
        feature: what was asked for, e.g. ``"cascade train"``.
        extra: the extra that provides it, e.g. ``"train"``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        super().__init__(
            f"{feature} needs packages that are not installed here; "
            f"install them with: pip install 'cascade-vision[{extra}]'"
        )


@contextmanager
def needs_extra(feature: str, extra: str) -> Iterator[None]:
    """Put around imports that only an extra brings; one that fails raises `MissingExtraError`.

    Args:
        feature: see `MissingExtraError`.
        extra: likewise.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "cascade":
            raise
        raise MissingExtraError(feature, extra) from error


class ImageError(CascadeError):
    """One photo cannot be classified.

    Args:
        code: one of `IMAGE_ERROR_CODES`.
        message: a sentence for people.

    Raises:
        ValueError: if ``code`` is not in `IMAGE_ERROR_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in IMAGE_ERROR_CODES:
            raise ValueError(f"unknown image error code {code!r}")
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")
