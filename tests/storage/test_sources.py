"""`cascade.storage`: photos of tar archives, Parquet files and URLs, and what is wrong with those."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc

import pytest

from cascade.errors import UsageError
from cascade.imaging.files import FindOptions
from cascade.storage import tar_photos
from cascade.storage.sources import is_local, photos_of, photos_of_list


@pytest.fixture
def jpeg(photo):
    return photo().read_bytes()


@pytest.fixture
def pack(tmp_path):
    """Write a tar archive of (name or TarInfo, content)."""

    def write(*members, name="a.tar", mode="w", end=True):
        path = tmp_path / name
        with tarfile.open(path, mode) as tar:
            for member, content in members:
                info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
                info.size = info.size or len(content)
                tar.addfile(info, io.BytesIO(content))
            length = tar.offset
        if not end:
            path.write_bytes(path.read_bytes()[:length])
        return path

    return write


def look(*paths, **options):
    """Names below the first path, with bytes or the error code."""
    found = photos_of([str(path) for path in paths], FindOptions(**options))
    home = str(paths[0])
    return {
        one.path.removeprefix(home): one.error.code if one.error else one.read() if one.read else None
        for one in found
    }


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_a_tar_archive(pack, jpeg, name):
    mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2].replace("tgz", "gz"), "w")
    members = [
        ("0001.jpg", jpeg),
        ("0001.cls", b"3"),
        ("0001.json", b"{}"),
        ("b/0002", jpeg),
        (".h.jpg", jpeg),
    ]
    assert look(pack(*members, name=name, mode=mode)) == {"/0001.jpg": jpeg, "/b/0002": jpeg}


def test_an_archive_counts_what_it_passes_over(pack, jpeg):
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    options = FindOptions()
    path = pack(("a.jpg", jpeg), ("notes.txt", b"text"), (".hidden.jpg", jpeg), (link, b""))
    assert len(list(photos_of([str(path)], options))) == 1
    assert options.left_out == {"not photos": 1, "hidden": 1, "links": 1}
    assert len(list(photos_of([str(path)], FindOptions(hidden=True)))) == 2


def test_names_that_lead_out_of_a_folder_and_names_that_repeat(pack, jpeg):
    path = pack(
        ("../../etc/x.jpg", jpeg), ("/abs.jpg", jpeg), ("./abs.jpg", jpeg + b"2"), ("abs.jpg#2", jpeg)
    )
    assert look(path) == {
        "/etc/x.jpg": jpeg,
        "/abs.jpg": jpeg,
        "/abs.jpg#2": jpeg + b"2",
        "/abs.jpg#2#2": jpeg,
    }


@pytest.mark.parametrize(
    ("cut", "code", "photos"),
    [
        (512 + 100, "truncated", 1),
        (512 + 1024, "truncated", 1),
        (512 + 1024 + 20, "truncated", 1),
        (0, "damaged", 0),
    ],
)
def test_an_archive_that_ends_early_says_so(pack, jpeg, cut, code, photos):
    assert 512 < len(jpeg) <= 1024
    path = pack(("a.jpg", jpeg), ("b.jpg", jpeg))
    path.write_bytes(path.read_bytes()[:cut])
    found = look(path)
    assert (found.pop(""), len(found)) == (code, photos)


def test_a_cut_gzip_and_a_file_that_is_none(pack, jpeg, tmp_path):
    path = pack(("a.jpg", jpeg), ("b.jpg", jpeg * 50), name="a.tar.gz", mode="w:gz")
    path.write_bytes(path.read_bytes()[:-60])
    found = look(path)
    assert found[""] == "truncated"
    (tmp_path / "b.tar").write_bytes(b"no archive at all" * 100)
    assert look(tmp_path / "b.tar") == {"": "damaged"}
    assert look(pack(("a.jpg", jpeg), name="c.tar", end=False)) == {"/a.jpg": jpeg, "": "truncated"}


def test_bombs_take_no_memory(pack, jpeg, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_photos, "MAX_BYTES", 1 << 20)
    huge, header = tarfile.TarInfo("huge.jpg"), tarfile.TarInfo("long")
    huge.size = header.size = 64 << 20
    header.type = tarfile.GNUTYPE_LONGNAME
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        for info in (huge, header):
            file.write(info.tobuf())
            for _ in range(64):
                file.write(bytes(1 << 20))
    tracemalloc.start()
    found = look(tmp_path / "bomb.tar.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"/huge.jpg": "too_many_bytes", "": "damaged"}
    assert peak < 8 << 20


def test_archives_of_a_folder_are_asked_for(pack, jpeg, tmp_path):
    (tmp_path / "shards").mkdir()
    pack(("a.jpg", jpeg), name="shards/1.tar")
    options = FindOptions()
    assert list(photos_of([str(tmp_path / "shards")], options)) == []
    assert options.left_out == {"archives": 1}
    assert look(tmp_path / "shards", archives=True) == {"/1.tar/a.jpg": jpeg}


def test_a_list_names_archives_too(pack, jpeg):
    path = pack(("a.jpg", jpeg))
    found = photos_of_list(io.BytesIO(f"{path}\n".encode()), FindOptions())
    assert [one.path for one in found] == [f"{path}/a.jpg"]
    local = photos_of_list(io.BytesIO(f"{path}\ns3://b/k.jpg\n".encode()), FindOptions(), local_only=True)
    assert [one.read for one in local] == [None, None]


def test_what_is_local():
    assert [is_local(path) for path in ("a.jpg", "folder", "a.tar", "a.parquet", "s3://b", "x.tar.gz")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.fixture
def parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(columns, name="a.parquet", **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path, **options)
        return path

    return write


def test_parquet_as_hugging_face_has_it(parquet, jpeg):
    images = [
        {"bytes": jpeg, "path": "x.jpg"},
        {"bytes": jpeg, "path": None},
        None,
        {"bytes": jpeg, "path": "x.jpg"},
    ]
    found = look(parquet({"image": images, "label": [0, 1, 2, 3]}))
    assert found == {"/x.jpg": jpeg, "#1": jpeg, "#2": "empty", "/x.jpg#3": jpeg}


def test_parquet_with_a_column_of_bytes(parquet, jpeg):
    assert look(parquet({"id": [1, 2], "bytes": [jpeg, jpeg]})) == {"#0": jpeg, "#1": jpeg}
    assert look(parquet({"path": ["a", "b"], "whatever": [jpeg, jpeg]})) == {"/a": jpeg, "/b": jpeg}
    two = parquet({"left": [jpeg], "right": [b"r"], "n": [1]})
    assert look(two) == {"": "not_an_image"}
    assert look(two, image_column="right") == {"#0": b"r"}
    assert look(two, image_column="n") == {"": "not_an_image"}


def test_row_groups_and_folders_of_parquet(parquet, jpeg, tmp_path):
    parquet({"image": [jpeg] * 40}, "set.parquet/part-0.parquet", row_group_size=7)
    assert len(look(tmp_path / "set.parquet")) == 40
    assert list(look(tmp_path / "set.parquet"))[-1] == "/part-0.parquet#39"


def test_damaged_parquet_keeps_what_can_be_read(parquet, photo, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    jpeg = photo(size=(300, 300)).read_bytes()
    path = parquet({"image": [jpeg] * 30}, row_group_size=10, use_dictionary=False, compression="NONE")
    where = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[where : where + 40] = b"\xff" * 40
    path.write_bytes(data)
    found = look(path)
    assert found.pop("#10-19") == "damaged"
    assert list(found) == [f"#{row}" for row in (*range(10), *range(20, 30))]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing")
    assert look(tmp_path / "b.parquet") == {"": "damaged"}


def test_a_local_path_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        photos_of([str(tmp_path / "none.tar")], FindOptions())
