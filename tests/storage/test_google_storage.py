"""`cascade classify` with photos in Google Cloud Storage: a server (gcp-storage-emulator) on this machine."""

from __future__ import annotations

import io
import tracemalloc

import pytest

google_server = pytest.importorskip(
    "google_server", reason="needs: pip install 'cascade-vision[gcs]' gcp-storage-emulator"
)
import gcsfs
from stored_photos import answers, make_album, rows

from cascade.errors import ImageError, UsageError
from cascade.imaging.files import FindOptions
from cascade.storage.fetching import read_url
from cascade.storage.sources import photos_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def server():
    with google_server.serve() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch, request):
    """A file system, and the name of a bucket of its own."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    gcsfs.GCSFileSystem.clear_instance_cache()
    files = gcsfs.GCSFileSystem()
    name = "".join(c for c in request.node.name.lower() if c.isalnum())[:60]
    files.mkdir(name)
    return files, name


def test_the_same_rows_as_from_a_folder(run_cli, bucket, photo, tmp_path):
    files, name = bucket
    for key, content in make_album(tmp_path, photo).items():
        files.pipe_file(f"{name}/my/{key}", content)
    files.pipe_file(f"{name}/my/album/notes.txt", b"text")
    run_cli("classify", tmp_path / "album", "-o", tmp_path / "folder.jsonl")
    ran = run_cli("classify", f"gs://{name}/my/album", "-o", tmp_path / "gs.jsonl")
    assert (ran.code, "passed over: not photos 1" in ran.err) == (1, True), ran.err
    assert "Traceback" not in ran.err
    expected = answers(tmp_path / "folder.jsonl", str(tmp_path / "album"))
    assert len(expected) == 32
    assert answers(tmp_path / "gs.jsonl", f"gs://{name}/my/album") == expected
    run_cli("classify", f"gs://{name}/my/album.tar", "-o", tmp_path / "tar.jsonl")
    assert answers(tmp_path / "tar.jsonl", f"gs://{name}/my/album.tar") == expected
    again = run_cli("classify", f"gs://{name}/my/album", "-o", tmp_path / "gs.jsonl", "--resume")
    assert "0 photos in" in again.err
    assert "32 were done before" in again.err
    files.pipe_file(f"{name}/my/album/empty.jpg", photo("new.jpg", "menu").read_bytes())
    again = run_cli("classify", f"gs://{name}/my/album", "-o", tmp_path / "gs.jsonl", "--resume")
    assert "1 photo in" in again.err
    by_content = ["classify", f"gs://{name}/my", "--archives", "--by-content", "-o", tmp_path / "c.jsonl"]
    assert "64 photos in" in run_cli(*by_content).err
    assert "64 were done before" in run_cli(*by_content, "--resume").err


def test_rows_as_parquet(run_cli, bucket, photo, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    files, name = bucket
    for label in ("beach", "menu"):
        files.pipe_file(f"{name}/{label}.jpg", photo(colour=label).read_bytes())
    told = ["classify", f"gs://{name}", "--output", tmp_path / "rows.parquet"]
    assert run_cli(*told).code == 0
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table["path"].to_pylist() == [f"gs://{name}/beach.jpg", f"gs://{name}/menu.jpg"]
    assert table["label"].to_pylist() == ["beach", "menu"]
    files.pipe_file(f"{name}/more.jpg", photo(colour="forest").read_bytes())
    ran = run_cli(*told, "--resume")
    assert (ran.code, "1 photo in" in ran.err, "2 were done before" in ran.err) == (0, True, True), ran.err
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 3


def test_a_missing_key_of_a_list_is_a_row(run_cli, bucket, photo, tmp_path, monkeypatch):
    files, name = bucket
    files.pipe_file(f"{name}/a.jpg", photo().read_bytes())
    listed = f"gs://{name}/a.jpg\ngs://{name}/none.jpg\ngs://no-such-bucket/a.jpg\n"
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": io.BytesIO(listed.encode())}))
    assert run_cli("classify", "-", "-o", tmp_path / "rows.jsonl").code == 1
    found = rows(tmp_path / "rows.jsonl")
    assert [row["path"] for row in found] == listed.split()
    assert [row["error"] and row["error"]["code"] for row in found] == [None, "not_found", "not_found"]


def test_what_is_not_there_is_one_line(run_cli, bucket):
    _, name = bucket
    for url in (f"gs://{name}/nothing", f"gs://{name}/none.jpg", "gs://no-such-bucket-here/x"):
        ran = run_cli("classify", url)
        assert ran.code == 2
        assert f"{url}: there is nothing" in ran.err
        assert "gcloud auth application-default login" in ran.err
        assert ran.err.count("\n") == 1


def test_odd_keys_and_pages(bucket, monkeypatch):
    files, name = bucket
    asked = []
    real = gcsfs.GCSFileSystem.call

    def few(self, *arguments, maxResults, **others):  # noqa: N803 - Google's name
        asked.append(others)
        return real(self, *arguments, maxResults=10, **others)

    monkeypatch.setattr(gcsfs.GCSFileSystem, "call", few)
    keys = [f"p/{number:04d}.jpg" for number in range(25)]
    odd = ["p/a#b?c.jpg", "p/noending", "p/empty", "p/.hidden/x.jpg", "p/a.txt", "p/x.tar"]
    for key in keys + odd:
        files.pipe_file(f"{name}/{key}", b"" if key == "p/empty" else key.encode())
    options = FindOptions()
    found = list(photos_of([f"gs://{name}/p", f"gs://{name}/p/0001.jpg"], options))
    assert [one.path.removeprefix(f"gs://{name}/") for one in found] == sorted([*keys, *odd[:2]])
    assert len(asked) == 4
    assert options.left_out == {"hidden": 1, "not photos": 2, "archives": 1}
    assert all(one.read() == one.path.removeprefix(f"gs://{name}/").encode() for one in found[-5:])
    behind = photos_of([f"gs://{name}/p"], FindOptions(), after=found[7].path)
    assert [one.path for one in behind] == [one.path for one in found[8:]]
    (alone,) = photos_of([f"gcs://{name}/p/0001.jpg"], FindOptions())
    assert (alone.size, alone.mtime_ns) == (found[1].size, found[1].mtime_ns)
    (hidden,) = photos_of([f"gcs://{name}/p/.hidden"], FindOptions())
    assert hidden.read() == b"p/.hidden/x.jpg"


@pytest.mark.parametrize("name", google_server.REFUSING)
def test_what_may_not_be_read_is_a_row_and_not_asked_for_again(bucket, monkeypatch, name):
    pauses = []
    monkeypatch.setattr("cascade.storage.fetching.time.sleep", pauses.append)
    with pytest.raises(ImageError, match="not_permitted"):
        read_url(f"gs://{name}/a.jpg")
    with pytest.raises(UsageError, match=r"may not be listed or read; .*gcloud auth"):
        list(photos_of([f"gs://{name}/p"], FindOptions()))
    assert pauses == []


def test_a_long_listing_takes_the_memory_of_a_page(monkeypatch):
    def page(self, *arguments, pageToken="0", **asked):  # noqa: N803 - Google's name
        number, changed = int(pageToken), "2024-05-17T12:00:00.123Z"
        names = [f"p/{number:04d}-{n:04d}.jpg" for n in range(1000)]
        items = [{"name": name, "size": "9", "updated": changed} for name in names]
        return {"items": items, **({"nextPageToken": str(number + 1)} if number < 7 else {})}

    monkeypatch.setattr(gcsfs.GCSFileSystem, "call", page)

    def peak():
        listing = photos_of(["gs://bucket/p"], FindOptions())
        next(listing)  # what is loaded once
        tracemalloc.start()
        try:
            assert sum(1 for _ in listing) == 7_999
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # A page is about one; all of them would be eight. Threads of other tests may allocate now and then.
    assert min(peak() for _ in range(3)) < 3 << 20
