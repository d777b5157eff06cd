"""Signs a folder with an offline key, and checks such a signature, with OpenSSF's `model-signing`.

A signature covers every file of the folder, by SHA-256, and lies in the folder as `model.sig`. Keys are
elliptic curve keys in PEM files, as `openssl ecparam -name prime256v1 -genkey` makes them.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Final

from cascade.errors import BundleError, UsageError, needs_extra

__all__ = ["SIGNATURE", "check_signature", "sign"]

#: File of the signature inside the folder that it is about.
SIGNATURE: Final = "model.sig"


def sign(folder: Path, private_key: Path) -> Path:
    """Sign every file of a folder; a signature that is there is replaced.

    Args:
        folder: of a bundle or an export.
        private_key: PEM file of an elliptic curve key without password.

    Returns:
        The file of the signature.

    Raises:
        MissingExtraError: without the extra ``sign``.
        UsageError: when the key cannot be used.
    """
    library = _library("cascade export --sign")
    signature = folder / SIGNATURE
    signature.unlink(missing_ok=True)
    try:
        config = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # of OpenSSL's many types, all meaning "not such a key"
        raise _bad_key(private_key, error) from error
    hashing = library.hashing.Config().set_ignored_paths(paths=[signature])
    config.set_hashing_config(hashing).sign(folder, signature)
    return signature


def check_signature(folder: Path, public_key: Path) -> None:
    """Check that the holder of a key signed exactly what a folder holds.

    Args:
        folder: of a bundle or an export.
        public_key: PEM file.

    Raises:
        BundleError: when there is no signature, another key made it, or a file was changed, added or removed.
        MissingExtraError: without the extra ``sign``.
        UsageError: when the key cannot be used.
    """
    library = _library("cascade verify --key")
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise BundleError(
            f"{folder}: is not signed: there is no {SIGNATURE}; sign it with: cascade export --sign"
        )
    try:
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise _bad_key(public_key, error) from error
    hashing = library.hashing.Config().set_ignored_paths(paths=[signature])
    try:
        config.set_hashing_config(hashing).verify(folder, signature)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(
            f"{folder}: the signature does not hold for this key ({text}); "
            "do not use the files, and copy them again from where they were signed"
        ) from error


def _bad_key(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path}: is not an elliptic curve key in PEM form ({' '.join(str(error).split())})")


def _library(command: str) -> ModuleType:
    with needs_extra(command, "sign"):
        import model_signing
    return model_signing
