"""Calibrating says what it changed, and warns when it made things worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from cascade import Cascade
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate
from cascade.training.calibration.before_after import before_and_after, one_source


def test_worse_is_a_warning_and_better_is_none(labelled_folder: Path, tiny_bundle: Path) -> None:
    found = evaluate(Cascade(tiny_bundle), scan(labelled_folder).photos)
    turned = replace(found, probabilities={w: p[:, ::-1] for w, p in found.probabilities.items()})
    better, worse = sorted((found, turned), key=lambda e: e.measure("cascade").nll)
    assert not any("warning" in line for line in before_and_after(found, found))
    told = before_and_after(better, worse)
    assert "the new bundle is worse there" in told[-1]
    assert f"{better.measure('cascade').accuracy:.1%} right" in told[1]
    assert f"{worse.measure('cascade').accuracy:.1%} right" in told[2]


def test_one_source_is_a_warning(labelled_folder: Path) -> None:
    photos = scan(labelled_folder).photos
    assert one_source([replace(photo, source="") for photo in photos]) is None
    assert "one source, portal;" in str(one_source([replace(p, source="portal") for p in photos]))
    assert one_source([replace(photos[0], source="a"), replace(photos[1], source="b")]) is None
