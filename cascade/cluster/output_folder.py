"""Holds the files of a cluster run, in a folder or an object store; each is there whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cascade.errors import ImageError, OutputError, UsageError
from cascade.runs.replacement import replacing
from cascade.storage.fetching import file_system, is_url

__all__ = ["OutputFolder"]


class OutputFolder:
    """A folder of small files: on disk, or anywhere that fsspec reaches.

    Names may hold folders before a slash. On disk a file is written beside its place and renamed; an
    object store shows an object when all of it has arrived.

    Args:
        url: a path, or a URL such as ``s3://bucket/rows``.

    Raises:
        MissingExtraError: when the package for this kind of URL is not installed.
        UsageError: when there is no such kind of URL, or no extra has its package.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if is_url(url) else url
        self._files: Any = None
        self._root = Path(url)
        #: What goes wrong outside of this process; every object store has exceptions of its own.
        self._failures: type[Exception] = OSError
        if is_url(url):
            try:
                self._files, self._base = file_system(self.url)
            except ImageError as error:
                why = error.__cause__ or error.message
                raise UsageError(f"{url}: {why}; give a folder, or a URL that fsspec opens") from error
            self._failures = Exception

    @property
    def local(self) -> Path | None:
        """The folder on disk; None if it is elsewhere."""
        return self._root if self._files is None else None

    def path_of(self, name: str) -> str:
        """Return where a file is, as people and other programs name it."""
        return f"{self.url}/{name}" if self._files is not None else str(self._root / name)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in this folder or in one below it; none if it is not there."""
        try:
            if self._files is None:
                home = self._root / folder
                return [path.name for path in home.iterdir() if path.is_file()]
            self._files.invalidate_cache()
            place = f"{self._base}/{folder}".rstrip("/")
            found = self._files.ls(place, detail=True)
            return [one["name"].rsplit("/", 1)[1] for one in found if one["type"] == "file"]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except self._failures as error:
            raise OutputError(f"{self.path_of(folder)}: cannot be listed ({_text(error)})") from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it is not there."""
        try:
            if self._files is None:
                return (self._root / name).read_bytes()
            content: bytes = self._files.cat_file(f"{self._base}/{name}")
            return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except self._failures as error:
            raise OutputError(f"{self.path_of(name)}: cannot be read ({_text(error)})") from error

    def open(self, name: str) -> BinaryIO | None:
        """Open a file of which only a part is wanted, for reading; None if it is not there."""
        try:
            if self._files is None:
                return (self._root / name).open("rb")
            self._files.invalidate_cache()
            file: BinaryIO = self._files.open(f"{self._base}/{name}", "rb", block_size=1 << 16)
            return file
        except (FileNotFoundError, NotADirectoryError):
            return None
        except self._failures as error:
            raise OutputError(f"{self.path_of(name)}: cannot be read ({_text(error)})") from error

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        try:
            if self._files is None:
                return (self._root / name).exists()
            self._files.invalidate_cache()
            self._files.info(f"{self._base}/{name}")  # `exists` of fsspec takes every failure for a no
            return True
        except FileNotFoundError:
            return False
        except self._failures as error:
            raise OutputError(f"{self.path_of(name)}: cannot be looked for ({_text(error)})") from error

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place at once; readers see the old one, the new one, and nothing between.

        Raises:
            OutputError: when it cannot be written.
        """
        try:
            if self._files is not None:
                self._files.pipe_file(f"{self._base}/{name}", content)
                return
            path = self._root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as new:
                new.write_bytes(content)
        except FileNotFoundError as error:
            raise OutputError(f"{self.path_of(name)}: cannot be written, there is no such place") from error
        except self._failures as error:
            raise OutputError.writing(self.path_of(name), error) from error

    def remove(self, *names: str) -> None:
        """Remove files; those that are not there are passed over."""
        try:
            for name in names:
                if self._files is None:
                    (self._root / name).unlink(missing_ok=True)
                else:
                    with suppress(FileNotFoundError):
                        self._files.rm_file(f"{self._base}/{name}")
        except self._failures as error:
            raise OutputError(f"{self.path_of(name)}: cannot be removed ({_text(error)})") from error


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
