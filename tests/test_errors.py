from __future__ import annotations

import inspect

import pytest

from cascade import errors
from cascade.errors import (
    IMAGE_ERROR_CODES,
    IMAGE_WARNING_CODES,
    CascadeError,
    ImageError,
    MissingExtraError,
)


def public_errors() -> list[type[CascadeError]]:
    found = inspect.getmembers(errors, lambda value: inspect.isclass(value) and issubclass(value, Exception))
    return [value for _, value in found if value.__module__ == errors.__name__]


def test_one_base_class_for_everything() -> None:
    assert len(public_errors()) > 5
    for error in public_errors():
        assert issubclass(error, CascadeError)
        assert error.__doc__


def test_module_exports_and_draws_every_error() -> None:
    for error in public_errors():
        assert error.__name__ in errors.__all__
        assert error.__name__ in (errors.__doc__ or ""), "the tree in the module's docstring"


def test_image_error_carries_code_and_message() -> None:
    error = ImageError("truncated", "the image ends early")
    assert (error.code, error.message) == ("truncated", "the image ends early")
    assert str(error) == "truncated: the image ends early"


@pytest.mark.parametrize("code", ["", "Truncated", "no_such_code"])
def test_undocumented_codes_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match="unknown image error code"):
        ImageError(code, "message")


def test_codes_are_stable() -> None:
    # Users filter rows by them. A new one may be added here; renaming one breaks somebody's script.
    assert set(IMAGE_ERROR_CODES) == {
        "not_found", "is_directory", "not_permitted", "unreadable", "empty", "not_an_image", "unsupported",
        "truncated", "damaged", "too_many_pixels", "too_small", "fatal",
        "killed", "not_enough_memory", "too_many_bytes",
    }  # fmt: skip
    assert set(IMAGE_WARNING_CODES) == {"truncated", "damaged", "profile_ignored"}
    for meaning in (*IMAGE_ERROR_CODES.values(), *IMAGE_WARNING_CODES.values()):
        assert meaning
        assert not meaning.endswith(".")


def test_missing_extra_names_the_command() -> None:
    error = MissingExtraError("cascade train", "train")
    assert str(error).startswith("cascade train needs packages that are not installed here")
    assert str(error).endswith("pip install 'cascade-vision[train]'")
    assert (error.feature, error.extra) == ("cascade train", "train")
