"""`cascade.cluster.listing` and `plan`: S3 page by page, continued behind a name, in memory with a bound."""

from __future__ import annotations

import os
import tracemalloc

import pytest

pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")

from cascade.cluster.listing import can_continue, list_photos
from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.plan import Plan
from cascade.errors import UsageError
from cascade.imaging.files import FindOptions


class Pages(fsspec.AbstractFileSystem):
    """What s3fs answers, for a bucket with any number of objects; counts what it was asked."""

    protocol = "s3"
    cachable = False
    objects = 0
    asked: list[dict[str, str]]

    def call_s3(self, method, **asked):
        assert method == "list_objects_v2"
        Pages.asked.append(asked)
        first = int(asked.get("ContinuationToken") or asked.get("StartAfter", "a/-1.jpg")[2:-4]) + (
            "ContinuationToken" not in asked
        )
        keys = range(first, min(first + 1000, Pages.objects))
        page = {"Contents": [{"Key": f"a/{n:09}.jpg", "Size": 9} for n in keys]}
        return page if keys.stop >= Pages.objects else page | {"NextContinuationToken": str(keys.stop)}


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **_: (Pages(), url.removeprefix("s3://")))

    def set_up(objects):
        Pages.objects, Pages.asked = objects, []

    return set_up


def test_a_bucket_is_read_page_by_page(pages):
    pages(2500)
    found = list(list_photos(["s3://bucket/a"], FindOptions()))
    assert [one.path for _, one in found] == [f"s3://bucket/a/{n:09}.jpg" for n in range(2500)]
    assert [asked.get("ContinuationToken") for asked in Pages.asked] == [None, "1000", "2000"]
    assert {asked["Prefix"] for asked in Pages.asked} == {"a/"}  # not "a", which names "ab/" too
    pages(2500)
    rest = list(list_photos(["s3://bucket/a"], FindOptions(), (0, "s3://bucket/a/000002497.jpg")))
    assert [one.path for _, one in rest] == [f"s3://bucket/a/{n:09}.jpg" for n in (2498, 2499)]
    assert len(Pages.asked) == 1


def test_memory_does_not_grow_with_the_bucket(pages, tmp_path):
    peaks = {}
    for objects in (1_000, 5_000, 50_000):  # the first for what is imported on the way
        pages(objects)
        plan = Plan(OutputFolder(str(tmp_path / str(objects))))
        tracemalloc.start()
        totals = plan.extend(
            list_photos(["s3://bucket/a"], FindOptions()), size=1000, left_out=dict, stopped=lambda: False
        )
        peaks[objects] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (totals.parts, totals.photos) == (objects // 1000, objects)
    assert peaks[50_000] < 1.2 * peaks[5_000] < 5e6


def test_a_plan_that_was_broken_off_continues_where_the_kinds_of_input_allow_it(pages, tmp_path):
    pages(10_500)
    plan = Plan(OutputFolder(str(tmp_path)))
    inputs = ("s3://bucket/a",)
    assert can_continue(inputs)
    assert not can_continue(("gs://bucket/a", *inputs))
    seen = []
    plan.extend(
        list_photos(inputs, FindOptions()),
        size=1000,
        left_out=dict,
        stopped=lambda: seen.append(1) or len(seen) == 4,
    )
    assert (plan.count(), plan.totals(), plan.last(3)) == (4, None, (0, "s3://bucket/a/000003999.jpg"))
    rest = list_photos(inputs, FindOptions(), plan.last(3))
    plan.extend(rest, size=1000, left_out=dict, stopped=lambda: False, first=4, photos=4000)
    assert (plan.totals().parts, plan.totals().photos, plan.size(10)) == (11, 10_500, 500)
    paths = [one.path for n in range(11) for one in plan.photos(n)]
    assert paths == [f"s3://bucket/a/{n:09}.jpg" for n in range(10_500)]


def test_a_bucket_that_is_not_there_is_named(monkeypatch):
    def missing(self, method, **asked):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **_: (Pages(), url.removeprefix("s3://")))
    monkeypatch.setattr(Pages, "call_s3", missing)
    with pytest.raises(
        UsageError, match=r"s3://gone/a: cannot be listed \(The specified bucket.*AWS_ENDPOINT_URL"
    ):
        list(list_photos(["s3://gone/a"], FindOptions()))


def test_objects_of_a_real_server(monkeypatch):
    """Listing, an object by name, one that is gone when it is read, and one that is empty."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'cascade-vision[ray]'")
    moto = pytest.importorskip("moto.server", reason="needs an S3 server: pip install 'moto[server]'")
    from cascade.cluster.fetching import read_url
    from cascade.errors import ImageError

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setitem(os.environ, "AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setitem(os.environ, name, "test")
        monkeypatch.setitem(os.environ, "AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3 = s3fs.S3FileSystem()
        s3.mkdir("photos")
        for name in ("a/1.jpg", "a/2.JPG", "a/x.txt", "a/.hidden/1.jpg", "ab/9.jpg", "a/empty.png"):
            s3.pipe_file(f"photos/{name}", b"" if "empty" in name else name.encode())
        find = FindOptions()
        found = [one.path for _, one in list_photos(["s3://photos/a/", "s3://photos/ab/9.jpg"], find)]
        assert found == [f"s3://photos/{name}" for name in ("a/1.jpg", "a/2.JPG", "a/empty.png", "ab/9.jpg")]
        assert find.left_out == {"not photos": 1, "hidden": 1}
        after = [one.path for _, one in list_photos(["s3://photos/a"], find, (0, "s3://photos/a/1.jpg"))]
        assert after == ["s3://photos/a/2.JPG", "s3://photos/a/empty.png"]
        assert (read_url("s3://photos/a/1.jpg"), read_url("s3://photos/a/empty.png")) == (b"a/1.jpg", b"")
        for gone in ("s3://photos/a/9.jpg", "s3://elsewhere/a.jpg"):
            with pytest.raises(ImageError, match="not_found"):
                read_url(gone)
        with pytest.raises(UsageError, match=r"s3://elsewhere/a: cannot be listed"):
            list(list_photos(["s3://elsewhere/a"], find))
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
