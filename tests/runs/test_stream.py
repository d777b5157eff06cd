"""`cascade.runs.stream`: order, errors of folders, identical content."""

from __future__ import annotations

import shutil

import pytest

from cascade import Cascade
from cascade.imaging.files import Found, find_photos
from cascade.prediction import ErrorInfo
from cascade.runs import stream
from cascade.runs.reading import Item, content_hash, with_hashes
from cascade.runs.stream import classify_stream


class Run:
    """Collects rows the way a journal does, and counts what was really classified."""

    def __init__(self, bundle, monkeypatch) -> None:
        self.rows: list[dict] = []
        self.classified: list[str] = []
        self._answers: dict[str, dict] = {}
        self._cascade = Cascade(bundle, workers=2)
        real = self._cascade.predict_many

        def counting(images, **options):
            def seen():
                for image in images:
                    self.classified.append(image)
                    yield image

            return real(seen(), **options)

        monkeypatch.setattr(self._cascade, "predict_many", counting)

    def __call__(self, items, stop_after: int = 10**9) -> list[dict]:
        classify_stream(
            self._cascade,
            items,
            self._emit,
            bundle="b",
            known=self._answers.get,
            stopped=lambda: len(self.rows) >= stop_after,
        )
        return self.rows

    def _emit(self, item, row) -> None:
        self.rows.append(row)
        if item.sha256:
            self._answers.setdefault(item.sha256, row)


@pytest.fixture
def run(tiny_bundle, monkeypatch):
    return Run(tiny_bundle, monkeypatch)


def test_order_is_kept_with_failures_in_between(run, photo, tmp_path):
    names = [f"{number:02d}.jpg" for number in range(40)]
    items = []
    for number, name in enumerate(names):
        if number % 7 == 3:
            items.append(Item(Found(name, error=ErrorInfo("not_permitted", "no"))))
        elif number % 7 == 5:
            items.append(Item(Found(str(tmp_path / name))))
        else:
            items.append(Item(Found(str(photo(name, size=(8, 8))))))
    rows = run(items)
    assert [row["path"] for row in rows] == [item.found.path for item in items]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes[3] == "not_permitted"
    assert codes[5] == "not_found"
    assert codes.count(None) == 29


@pytest.mark.parametrize("bound", [2000, 3])
def test_identical_files_are_classified_once(run, photo, tmp_path, monkeypatch, bound):
    monkeypatch.setattr(stream, "MOST_WAITING", bound)
    folder = tmp_path / "album"
    for number in range(100):
        if number % 10 == 0:
            photo(f"album/{number:03d}.png", (number, number, 200))
        else:
            shutil.copy(folder / f"{number // 10 * 10:03d}.png", folder / f"{number:03d}.png")
    rows = run(with_hashes(find_photos([str(folder)])))
    assert [row["path"] for row in rows] == [str(folder / f"{n:03d}.png") for n in range(100)]
    for number, row in enumerate(rows):
        assert row["confidence"] == rows[number // 10 * 10]["confidence"]
    assert len({row["confidence"] for row in rows}) == 10
    if bound == 2000:
        assert len(run.classified) == 10
    else:  # memory comes first: when too many places wait, a copy is classified again
        assert 10 < len(run.classified) < 100


def test_stopping_finishes_what_was_begun(run, photo):
    paths = [str(photo(f"{number:03d}.jpg", size=(8, 8))) for number in range(400)]
    rows = run([Item(Found(path)) for path in paths], stop_after=5)
    assert 5 <= len(rows) < 400
    assert [row["path"] for row in rows] == paths[: len(rows)]


def test_hashes(photo, tmp_path):
    path = photo()
    import hashlib

    (found,) = find_photos([str(path)])
    assert content_hash(found) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content_hash(Found(str(tmp_path / "none.jpg"))) is None
    assert content_hash(Found(str(tmp_path), size=1)) is None
    assert content_hash(Found("x", size=1, error=ErrorInfo("unreadable", "x"))) is None
