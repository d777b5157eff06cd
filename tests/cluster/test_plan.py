"""`cascade.cluster.plan`: parts of a listing, continued where it was broken off, in memory with a bound."""

from __future__ import annotations

import tracemalloc

import pytest

pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")

from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.plan import Plan
from cascade.imaging.files import FindOptions
from cascade.storage.listing import can_continue
from cascade.storage.sources import photos_of


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
        page = {"Contents": [{"Key": f"a/{n:09}.jpg", "Size": 9, "ETag": "x"} for n in keys]}
        return page if keys.stop >= Pages.objects else page | {"NextContinuationToken": str(keys.stop)}


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **_: (Pages(), url.removeprefix("s3://")))

    def set_up(objects):
        Pages.objects, Pages.asked = objects, []

    return set_up


def test_a_bucket_is_read_page_by_page_from_any_name_on(pages):
    pages(2500)
    found = list(photos_of(["s3://bucket/a"], FindOptions()))
    assert [one.path for one in found] == [f"s3://bucket/a/{n:09}.jpg" for n in range(2500)]
    assert [asked.get("ContinuationToken") for asked in Pages.asked] == [None, "1000", "2000"]
    assert {asked["Prefix"] for asked in Pages.asked} == {"a/"}  # not "a", which names "ab/" too
    pages(2500)
    rest = list(photos_of(["s3://bucket/a"], FindOptions(), "s3://bucket/a/000002497.jpg"))
    assert [one.path for one in rest] == [f"s3://bucket/a/{n:09}.jpg" for n in (2498, 2499)]
    assert len(Pages.asked) == 1


def test_memory_does_not_grow_with_the_bucket(pages, tmp_path):
    peaks = {}
    for objects in (1_000, 4_000, 16_000):  # the first for what is imported on the way
        pages(objects)
        plan = Plan(OutputFolder(str(tmp_path / str(objects))))
        tracemalloc.start()
        found = photos_of(["s3://bucket/a"], FindOptions())
        totals = plan.extend(found, size=1000, left_out=dict, stopped=lambda: False)
        peaks[objects] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (totals.parts, totals.photos) == (objects // 1000, objects)
    assert peaks[16_000] < 1.2 * peaks[4_000] < 5e6


def test_a_plan_that_was_broken_off_continues_where_the_kind_of_input_allows_it(pages, tmp_path):
    pages(3_500)
    plan = Plan(OutputFolder(str(tmp_path)))
    inputs = ("s3://bucket/a",)
    assert can_continue(inputs)
    assert can_continue(("gs://bucket/a",))
    assert not can_continue(("https://host/a",))
    assert not can_continue(("s3://bucket/b", *inputs))  # in the order of the user, not of the keys
    seen = []
    plan.extend(
        photos_of(inputs, FindOptions()),
        size=500,
        left_out=dict,
        stopped=lambda: seen.append(1) or len(seen) == 4,
    )
    assert (plan.count(), plan.totals()) == (4, None)
    last = plan.photos(3)[-1].path
    assert last == "s3://bucket/a/000001999.jpg"
    rest = photos_of(inputs, FindOptions(), last)
    plan.extend(rest, size=500, left_out=dict, stopped=lambda: False, first=4, photos=2000)
    assert (plan.totals().parts, plan.totals().photos, plan.size(6)) == (7, 3500, 500)
    paths = [one.path for n in range(7) for one in plan.photos(n)]
    assert paths == [f"s3://bucket/a/{n:09}.jpg" for n in range(3500)]
