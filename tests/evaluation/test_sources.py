"""Accuracy by source: counted again, and every source the same in the mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cascade import Cascade
from cascade.evaluation.dataset import Photo, scan
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.results import Evaluation
from cascade.evaluation.sources import accuracy_by_source, render_sources


def evaluated(bundle: Path, folder: Path, sources: list[str]) -> Evaluation:
    photos = scan(folder).photos
    named: list[Photo] = [replace(p, source=sources[i % len(sources)]) for i, p in enumerate(photos)]
    return evaluate(Cascade(bundle), named)


def test_every_source_counts_the_same(tiny_bundle: Path, labelled_folder: Path) -> None:
    evaluation = evaluated(tiny_bundle, labelled_folder, ["web:a", "web:b", "portal", "portal", "portal"])
    found = accuracy_by_source(evaluation)
    assert found is not None
    assert [row.source for row in found.sources] == ["portal", "web"]
    right = evaluation.right()
    for row in found.sources:
        mine = np.array([photo.collection == row.source for photo in evaluation.photos])
        assert (row.photos, row.accuracy) == (mine.sum(), right[mine].mean())
        assert row.interval.low <= row.accuracy <= row.interval.high
    assert found.mean == np.mean([row.accuracy for row in found.sources])
    text = render_sources(found)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "mean over sources" in text


def test_a_handful_of_photos_is_never_the_worst_source(tiny_bundle: Path, labelled_folder: Path) -> None:
    evaluation = evaluated(tiny_bundle, labelled_folder, ["big"] * 9 + ["few"])
    found = accuracy_by_source(evaluation)
    assert found is not None
    assert found.worst != "few"


def test_one_source_is_nothing_to_compare(tiny_bundle: Path, labelled_folder: Path) -> None:
    assert accuracy_by_source(evaluated(tiny_bundle, labelled_folder, [""])) is None
