"""Sources of calibration photos: what each counts, and where a promise has to hold by itself."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.evaluation.labelled_answers import LabelledAnswers
from cascade.guarantees.risk_control import Promise
from cascade.training.calibration.sources import promised_collections, rows_of, source_weights

pytest.importorskip("mapie", reason="needs the extra `train`")

from cascade.training.calibration.risk_control import fit_promise


def test_a_source_of_many_photos_counts_more_but_not_in_proportion() -> None:
    sources = ["big"] * 900 + ["web:a"] * 60 + ["web:b"] * 40
    weights = source_weights(sources)
    assert weights.mean() == pytest.approx(1)
    # 900 photos against the 100 of one collection: three to one instead of nine to one.
    assert weights[:900].sum() / weights[900:].sum() == pytest.approx(3)


def test_collections_of_many_sites_with_enough_photos_are_promised_by_themselves() -> None:
    sources = ["big"] * 900 + ["web:a"] * 60 + ["web:b"] * 40 + ["few:a"] * 5 + ["few:b"] * 5 + ["one:a"] * 90
    assert promised_collections(sources) == ("one", "web")
    assert rows_of(sources, "web").tolist() == list(range(900, 1000))
    assert promised_collections(["", "big"]) == ()


def answers(n: int, error: float, seed: int) -> LabelledAnswers:
    """Answers whose probability says nothing: any threshold errs equally often."""
    rng = np.random.default_rng(seed)
    p, right = rng.uniform(0.5, 1, n), rng.random(n) >= error
    return LabelledAnswers(p, right, p, right, np.zeros(n))


def promised(**groups: tuple[LabelledAnswers, LabelledAnswers]) -> Promise:
    """The promise of answers of which one in twenty is wrong, on 800 photos."""
    promise = fit_promise(
        answers(800, 0.05, 1),
        answers(800, 0.05, 2),
        max_error=0.1,
        cost_weight=0.0,
        scope_threshold=None,
        groups=groups,
    )
    assert promise is not None
    assert ("kept also by the photos of web alone" in promise.method) == bool(groups)
    return promise


def test_a_promise_is_not_given_where_a_group_is_seen_to_break_it() -> None:
    # One group errs on three photos in ten: nothing below that can be promised to it.
    assert promised(web=(answers(200, 0.3, 5), answers(200, 0.3, 6))).smallest > 0.25


def test_a_group_too_small_to_prove_a_share_does_not_stop_all_photos_from_proving_it() -> None:
    alone = promised()
    assert alone.smallest < 0.1
    small = promised(web=(answers(40, 0.0, 3), answers(40, 0.0, 4)))
    assert small.smallest == pytest.approx(alone.smallest, abs=0.01)
    since = float(small.method.rpartition("from ")[2].removesuffix(" on"))
    assert since > small.smallest
    # Where the group is tested too, nothing is answered that it could not prove.
    point = small.operating_point(since)
    assert point.leaf_threshold >= alone.operating_point(since).leaf_threshold


def test_a_larger_share_answers_more_also_where_the_group_comes_in() -> None:
    small = promised(web=(answers(40, 0.0, 3), answers(40, 0.0, 4)))
    leaf = [point[1] for point in small.curve]
    assert leaf == sorted(leaf, reverse=True)
