"""`cascade classify` with photos in S3: an S3 server (moto) on this machine."""

from __future__ import annotations

import io
import tracemalloc

import pytest

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'cascade-vision[s3]'")
moto_server = pytest.importorskip("moto.server", reason="needs an S3 server: pip install 'moto[server]'")
boto3 = pytest.importorskip("boto3")

from stored_photos import answers, make_album, rows

from cascade.errors import ImageError, UsageError
from cascade.imaging.files import FindOptions
from cascade.storage.fetching import read_url
from cascade.storage.sources import photos_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def server():
    started = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """A client of a bucket of its own, and how the bucket is called."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    name = "".join(c for c in request.node.name.lower() if c.isalnum())[:60]
    client.create_bucket(Bucket=name)
    return client, name


def test_the_same_rows_as_from_a_folder(run_cli, bucket, photo, tmp_path):
    client, name = bucket
    for key, content in make_album(tmp_path, photo).items():
        client.put_object(Bucket=name, Key=f"my/{key}", Body=content)
    client.put_object(Bucket=name, Key="my/album/notes.txt", Body=b"text")
    client.put_object(Bucket=name, Key="my/album/1/", Body=b"")
    run_cli("classify", tmp_path / "album", "-o", tmp_path / "folder.jsonl")
    ran = run_cli("classify", f"s3://{name}/my/album", "-o", tmp_path / "s3.jsonl")
    assert (ran.code, "passed over: not photos 1" in ran.err) == (1, True), ran.err
    expected = answers(tmp_path / "folder.jsonl", str(tmp_path / "album"))
    assert len(expected) == 32
    assert answers(tmp_path / "s3.jsonl", f"s3://{name}/my/album") == expected
    run_cli("classify", f"s3://{name}/my/album.tar", "-o", tmp_path / "tar.jsonl")
    assert answers(tmp_path / "tar.jsonl", f"s3://{name}/my/album.tar") == expected
    again = run_cli("classify", f"s3://{name}/my/album", "-o", tmp_path / "s3.jsonl", "--resume")
    assert "0 photos in" in again.err
    assert "32 were done before" in again.err
    client.put_object(Bucket=name, Key="my/album/empty.jpg", Body=photo("new.jpg", "menu").read_bytes())
    again = run_cli("classify", f"s3://{name}/my/album", "-o", tmp_path / "s3.jsonl", "--resume")
    assert "1 photo in" in again.err
    by_content = ["classify", f"s3://{name}/my", "--archives", "--by-content", "-o", tmp_path / "c.jsonl"]
    assert "64 photos in" in run_cli(*by_content).err
    assert "64 were done before" in run_cli(*by_content, "--resume").err


def test_a_missing_key_of_a_list_is_a_row(run_cli, bucket, photo, tmp_path, monkeypatch):
    client, name = bucket
    client.put_object(Bucket=name, Key="a.jpg", Body=photo().read_bytes())
    stdin = type("Stdin", (), {"buffer": io.BytesIO(f"s3://{name}/a.jpg\ns3://{name}/none.jpg\n".encode())})
    monkeypatch.setattr("sys.stdin", stdin)
    assert run_cli("classify", "-", "-o", tmp_path / "rows.jsonl").code == 1
    found = rows(tmp_path / "rows.jsonl")
    assert [row["path"] for row in found] == [f"s3://{name}/a.jpg", f"s3://{name}/none.jpg"]
    assert [row["error"] and row["error"]["code"] for row in found] == [None, "not_found"]


def test_what_is_not_there_is_one_line(run_cli, bucket):
    _, name = bucket
    for url in (f"s3://{name}/nothing", f"s3://{name}/none.jpg", "s3://no-such-bucket-here/x"):
        ran = run_cli("classify", url)
        assert ran.code == 2
        assert f"{url}: there is nothing" in ran.err
        assert ran.err.count("\n") == 1


def test_options_that_need_files_are_refused(run_cli, tmp_path):
    for option in (
        ["--gallery", tmp_path / "x.html"],
        ["--write-xmp"],
        ["--watch"],
        ["--sort-into", tmp_path],
    ):
        for path in ("s3://bucket/x", tmp_path / "a.tar", tmp_path / "a.parquet"):
            ran = run_cli("classify", path, *option)
            assert ran.code == 2
            assert f"{option[0]} works with photos that are files on this machine" in ran.err


def test_odd_keys_and_pages(bucket, monkeypatch):
    import s3fs

    client, name = bucket
    real = s3fs.S3FileSystem.call_s3
    few = {"list_objects_v2": {"MaxKeys": 10}}
    monkeypatch.setattr(
        s3fs.S3FileSystem,
        "call_s3",
        lambda self, what, **asked: real(self, what, **asked, **few.get(what, {})),
    )
    keys = [f"p/{number:04d}.jpg" for number in range(25)]
    odd = ["p//double.jpg", "p/a#b?c.jpg", "p/noending", "p/empty", "p/.hidden/x.jpg", "p/a.txt", "p/x.tar"]
    for key in keys + odd:
        client.put_object(Bucket=name, Key=key, Body=b"" if key == "p/empty" else key.encode())
    options = FindOptions()
    found = list(photos_of([f"s3://{name}/p", f"s3://{name}/p/0001.jpg"], options))
    assert {one.path.removeprefix(f"s3://{name}/") for one in found} == {*keys, *odd[:3]}
    assert len(found) == 28
    assert options.left_out == {"hidden": 1, "not photos": 2, "archives": 1}
    assert all(one.read() == one.path.removeprefix(f"s3://{name}/").encode() for one in found[-5:])
    with pytest.raises(ImageError, match="not_found"):
        read_url(f"s3://{name}/gone.jpg")


def test_a_listing_that_fails_ends_with_a_message(bucket, monkeypatch):
    import s3fs

    _, name = bucket
    monkeypatch.setattr("cascade.storage.fetching.time.sleep", lambda seconds: None)

    def fail(self, *arguments, **options):
        raise OSError("503 SlowDown")

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", fail)
    with pytest.raises(UsageError, match=r"503 SlowDown.*--resume goes on"):
        list(photos_of([f"s3://{name}/p"], FindOptions()))


def test_a_long_listing_takes_the_memory_of_a_page(monkeypatch):
    import s3fs

    def page(self, what, ContinuationToken="0", **asked):  # noqa: N803 - the name that S3 gave it
        number = int(ContinuationToken)
        contents = [{"Key": f"p/{number:04d}-{n:04d}.jpg", "Size": 9, "ETag": "x"} for n in range(1000)]
        return {"Contents": contents, "NextContinuationToken": str(number + 1) if number < 7 else ""}

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", page)

    def peak():
        listing = photos_of(["s3://bucket/p"], FindOptions())
        next(listing)  # what is loaded once
        tracemalloc.start()
        try:
            assert sum(1 for _ in listing) == 7_999
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # A page is about one; all of them would be eight. Threads of other tests may allocate now and then.
    assert min(peak() for _ in range(3)) < 3 << 20
