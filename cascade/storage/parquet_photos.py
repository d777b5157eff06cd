"""Reads the photos of a Parquet file with image bytes in a column, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from cascade.errors import needs_extra
from cascade.imaging.files import FindOptions, Found
from cascade.prediction import ErrorInfo
from cascade.storage.fetching import MAX_BYTES

__all__ = ["photos_of_parquet"]

#: Columns of photos by their usual names, the most usual first.
_NAMES: Final = ("image", "bytes", "img", "photo", "picture", "jpg", "content", "data")
#: Column that names photos where the image column does not: it holds a structure with a path, or it is alone.
_PATH: Final = "path"
#: Rows that are read at a time, and bytes of a column that are.
_ROWS: Final = 16
_BUFFER: Final = 1 << 20


def photos_of_parquet(file: BinaryIO, parquet: Found, options: FindOptions) -> Iterator[Found]:
    """Yield the photo of every row, and one row for each range of rows that is damaged.

    A photo is called ``FILE/PATH`` where the row gives a path, and ``FILE#ROW``, counted from 0, where it
    gives none. The column is one of bytes, or of structures {bytes, path} as Hugging Face datasets have them.

    Args:
        file: the Parquet file.
        parquet: where it came from; its time is that of every photo in it.
        options: the column, unless it is to be found.

    Raises:
        MissingExtraError: when pyarrow is not installed.
    """
    with needs_extra(f"reading {parquet.path}", "parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        # Without reading ahead, a row group of any size takes the memory of a few rows.
        rows = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
        column = _image_column(rows.schema_arrow, options.image_column)
    except (pa.ArrowException, OSError, EOFError) as error:
        yield _error(parquet, "", "damaged", f"cannot be read as Parquet: {_first_line(error)}")
        return
    if isinstance(column, ErrorInfo):
        yield _error(parquet, "", column.code, column.message)
        return
    names: set[int] = set()
    start = 0
    for group in range(rows.num_row_groups):
        row, end = start, start + rows.metadata.row_group(group).num_rows
        try:
            for name, content in _values(rows, group, column):
                yield _photo(parquet, row, _unused(name, row, names), content)
                row += 1
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            text = f"rows {row:,} to {end - 1:,} cannot be read: {_first_line(error)}"
            yield _error(parquet, f"#{row}-{end - 1}", "damaged", text)
        start = end


def _image_column(schema: Any, wanted: str | None) -> list[str] | ErrorInfo:
    """Return what to read: the bytes, and the path if there is one; or why there is nothing to read."""
    columns = {field.name: _parts(field, schema.names) for field in schema}
    candidates = [name for name, parts in columns.items() if parts]
    chosen = wanted or next((name for name in _NAMES if name in candidates), None)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is not None and columns.get(chosen):
        return columns[chosen]
    there = f"columns of bytes: {', '.join(candidates) or 'none'}; all: {', '.join(schema.names) or 'none'}"
    if wanted is not None:
        return ErrorInfo("not_an_image", f"has no column {wanted!r} of image bytes ({there})")
    return ErrorInfo(
        "not_an_image", f"has no column that is known to hold photos; name it with --image-column ({there})"
    )


def _parts(field: Any, names: list[str]) -> list[str]:
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    if types.is_struct(field.type):
        inner = {field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)}
        if "bytes" not in inner or not is_bytes(inner["bytes"]):
            return []
        return [f"{field.name}.bytes", *([f"{field.name}.path"] if "path" in inner else [])]
    if not is_bytes(field.type):
        return []
    return [field.name, *([_PATH] if _PATH in names and field.name != _PATH else [])]


def _values(rows: Any, group: int, column: list[str]) -> Iterator[tuple[Any, bytes | None]]:
    """Yield path and bytes of the rows of a row group."""
    options = {"batch_size": _ROWS, "row_groups": [group], "columns": column, "use_threads": False}
    for batch in rows.iter_batches(**options):
        for row in batch.to_pylist():
            if "." in column[0] and column[0] not in row:  # {"image": {"bytes": ..., "path": ...}}
                row = row[column[0].rpartition(".")[0]] or {}
                yield row.get("path"), row.get("bytes")
            else:
                yield row.get(_PATH) if len(column) > 1 else None, row[column[0]]


def _unused(path: Any, row: int, names: set[int]) -> str:
    """Return what follows the name of the file in the name of a photo; every row has another."""
    if not isinstance(path, str) or not path:
        return f"#{row}"
    name = f"/{path.lstrip('/')}"
    if hash(name) in names:
        return f"{name}#{row}"
    names.add(hash(name))
    return name


def _photo(parquet: Found, row: int, name: str, content: bytes | None) -> Found:
    if content is None:
        return _error(parquet, name, "empty", f"row {row:,} has no image bytes")
    if len(content) > MAX_BYTES:
        return _error(parquet, name, "too_many_bytes", f"row {row:,} has {len(content):,} bytes")
    return Found(parquet.path + name, len(content), parquet.mtime_ns, read=lambda: content)


def _error(parquet: Found, name: str, code: str, text: str) -> Found:
    return Found(parquet.path + name, parquet.size, parquet.mtime_ns, ErrorInfo(code, text))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
