"""Contrasts within a source: what is left out of a photo's softmax, and what never is."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from cascade.training.data.contrasts import excluded_labels, weighted_contrasts

BAR, BEDROOM, BEER = 0, 1, 2


def test_a_contrast_that_another_source_holds_is_left_out() -> None:
    # The portal holds no bar; the web holds bars and bedrooms, so the portal's bedrooms leave bars out.
    targets = np.array([BEDROOM, BAR, BEDROOM, BEER])
    excluded = excluded_labels(targets, ["portal", "web", "web", "drinks"], 3)
    assert excluded[0].tolist() == [True, False, False]


def test_a_contrast_that_no_source_holds_stays() -> None:
    # No source holds bedrooms and beer together: somebody has to teach that contrast.
    targets = np.array([BEDROOM, BAR, BEDROOM, BEER])
    excluded = excluded_labels(targets, ["portal", "web", "web", "drinks"], 3)
    assert not excluded[0, BEER]
    assert not excluded[3].any()


def test_the_right_label_is_never_left_out_and_one_source_leaves_nothing_out() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 200)
    sources = rng.choice(["a", "b", "c"], 200).tolist()
    excluded = excluded_labels(targets, sources, 6)
    assert not excluded[np.arange(200), targets].any()
    assert not excluded_labels(targets, ["one"] * 200, 6).any()


def test_a_label_left_out_counts_as_much_as_its_weight_says() -> None:
    logits, excluded = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[False, True, False]])
    odds = {
        weight: weighted_contrasts(logits, excluded, weight).softmax(1)[0, 1]
        / weighted_contrasts(logits, excluded, weight).softmax(1)[0, 0]
        for weight in (0.0, 0.25, 1.0)
    }
    assert float(odds[0.0]) == 0
    assert float(odds[0.25]) == pytest.approx(0.25 * float(odds[1.0]))
    assert torch.equal(weighted_contrasts(logits, excluded, 1.0), logits)
