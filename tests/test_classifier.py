"""The cascade as a whole: a photo gives the same answer however it comes and whatever comes with it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, INDOOR_COLOUR, UNKNOWN_COLOUR
from PIL import Image

from cascade import Cascade, ImageError, UsageError

Photo = Callable[..., Path]


def test_every_kind_of_input_gives_the_same_answer(shipped_bundle: Path) -> None:
    cascade = Cascade(shipped_bundle)
    path = shipped_bundle / "golden" / "coffee.png"
    image = Image.open(path)
    answers = [
        cascade.predict(path),
        cascade.predict(str(path)),
        cascade.predict(path.read_bytes()),
        cascade.predict(io.BytesIO(path.read_bytes())),
        cascade.predict(image),
        cascade.predict(np.asarray(image.convert("RGB"))),
    ]
    with path.open("rb") as file:
        answers.append(cascade.predict(file))
    rows = [answer.to_dict() | {"path": None, "ms": None} for answer in answers]
    assert rows == [rows[0]] * len(rows)
    assert answers[0].path == str(path)
    assert answers[2].path is None


def test_a_batch_is_answered_as_one_by_one(shipped_bundle: Path) -> None:
    cascade = Cascade(shipped_bundle, workers=2)
    photos = sorted((shipped_bundle / "golden").glob("*.png")) * 3
    alone = [cascade.predict(photo) for photo in photos]
    for size in (1, 5, 16):
        together = list(cascade.predict_many(photos, batch_size=size))
        assert [p.label for p in together] == [p.label for p in alone]
        for one, many in zip(alone, together, strict=True):
            assert [name for name, _ in one.top] == [name for name, _ in many.top]
            np.testing.assert_allclose([p for _, p in one.top], [p for _, p in many.top], atol=1e-4)


def test_answers_come_in_order_and_bad_photos_are_rows(tiny_bundle: Path, photo: Photo) -> None:
    cascade = Cascade(tiny_bundle, workers=3)
    labels = list(COLOURS)
    paths: list[Path] = []
    for i in range(60):
        paths.append(photo(f"{i}.png", labels[i % 5]))
        if i % 7 == 0:
            bad = paths[-1].with_suffix(".bad.jpg")
            bad.write_bytes(b"this is no photo")
            paths.append(bad)
    rows = list(cascade.predict_many(paths, batch_size=4))
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert sum(not row.ok for row in rows) == 9
    for row in rows:
        if row.ok:
            assert row.label == labels[int(Path(row.path or "").stem) % 5]
        else:
            assert row.error is not None
            assert row.error.code == "not_an_image"
            with pytest.raises(ImageError, match="not_an_image"):
                row.raise_for_error()


def test_a_stream_is_read_only_as_far_as_it_is_needed(tiny_bundle: Path, photo: Photo) -> None:
    path, taken = photo(), 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    cascade = Cascade(tiny_bundle, workers=2)
    stream = cascade.predict_many(endless(), batch_size=4)
    for _ in range(100):
        assert next(stream).ok
    assert taken <= 100 + 3 * 2 * 4 + 4
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cascade")]


def test_the_first_answer_does_not_wait_for_a_batch(tiny_bundle: Path, photo: Photo) -> None:
    path, taken = photo(), 0

    def counted() -> Iterator[Path]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield path

    next(Cascade(tiny_bundle, workers=1).predict_many(counted(), batch_size=256))
    assert taken < 20


def test_experts_are_asked_where_the_router_says(tiny_bundle: Path, photo: Photo) -> None:
    clear, doubtful = photo("clear.png", "forest"), photo("doubtful.png", INDOOR_COLOUR)
    cascade = Cascade(tiny_bundle)
    assert cascade.predict(clear).experts == ()
    asked = cascade.predict(doubtful)
    assert [opinion.name for opinion in asked.experts] == ["rooms"]
    assert {"decode", "preprocess", "general", "router", "rooms", "arbiter", "total"} == set(asked.ms)
    assert Cascade(tiny_bundle, ask="never").predict(doubtful).experts == ()
    always = Cascade(tiny_bundle, ask="always").predict(clear)
    assert [(o.name, o.label) for o in always.experts] == [("rooms", "not_mine")]


def test_leaf_then_parent_then_unknown(tiny_bundle: Path, photo: Photo) -> None:
    cascade = Cascade(tiny_bundle, ask="never")
    sure = cascade.predict(photo("a.png", "bedroom"))
    assert (sure.label, sure.parent, sure.reason) == ("bedroom", "indoor", "leaf")
    broad = cascade.predict(photo("b.png", INDOOR_COLOUR))
    assert (broad.label, broad.parent, broad.reason) == ("indoor", "indoor", "parent")
    lost = cascade.predict(photo("c.png", UNKNOWN_COLOUR))
    assert (lost.label, lost.parent, lost.reason) == ("unknown", None, "doubtful")
    murky = photo("d.png", (150, 100, 90))
    default, strict = (Cascade(tiny_bundle, operating_point=p).predict(murky) for p in ("default", "strict"))
    assert default.label != "unknown"
    assert (strict.label, strict.top) == ("unknown", default.top)


def test_one_instance_serves_many_threads(shipped_bundle: Path) -> None:
    cascade = Cascade(shipped_bundle)
    photos = sorted((shipped_bundle / "golden").glob("*.png"))
    expected = [cascade.predict(photo).top[0] for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda p: cascade.predict(p).top[0], photos * 6))
    assert found == expected * 6


@pytest.mark.parametrize("thing", [None, 7, ["a.jpg"], np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)])
def test_misuse_raises(tiny_bundle: Path, thing: object) -> None:
    cascade = Cascade(tiny_bundle)
    with pytest.raises(UsageError):
        cascade.predict(thing)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        list(cascade.predict_many([thing]))  # type: ignore[list-item]


def test_arguments_that_make_no_sense_raise(tiny_bundle: Path) -> None:
    for wrong in (
        {"operating_point": "bold"},
        {"ask": "sometimes"},
        {"top_k": 0},
        {"workers": 0},
    ):
        with pytest.raises(UsageError):
            Cascade(tiny_bundle, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size"):
        Cascade(tiny_bundle).predict_many([], batch_size=0)


def test_top_k_is_bounded_by_the_labels(tiny_bundle: Path, photo: Photo) -> None:
    path = photo()
    assert len(Cascade(tiny_bundle, top_k=2).predict(path).top) == 2
    every = Cascade(tiny_bundle, top_k=99).predict(path).top
    assert sum(p for _, p in every) == pytest.approx(1.0, abs=1e-5)
    assert sorted(every, key=lambda pair: -pair[1]) == list(every)
