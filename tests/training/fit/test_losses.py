"""Losses against torch's own, and losses of one's own by name."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from cascade.errors import RecipeError
from cascade.training.fit.losses import cross_entropy, focal, make_loss
from cascade.training.recipe_sections import Schedule

pytestmark = pytest.mark.train


def some_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (6, 4), targets (6, 4) whose rows sum to one, weights (4,)."""
    torch.manual_seed(0)
    return torch.randn(6, 4) * 3, torch.softmax(torch.randn(6, 4), 1), torch.tensor([0.5, 1.0, 2.0, 3.0])


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, targets, weights = some_batch()
    for w in (weights, torch.ones(4)):
        torch.testing.assert_close(focal(logits, targets, w, gamma=0.0), cross_entropy(logits, targets, w))


def test_cross_entropy_of_soft_targets_is_the_mean_of_hard_ones() -> None:
    logits, targets, weights = some_batch()
    expected = torch.zeros(())
    for label in range(4):
        each = torch.nn.functional.cross_entropy(
            logits, torch.full((6,), label), weight=weights, reduction="none"
        )
        expected = expected + (each * targets[:, label]).mean()
    torch.testing.assert_close(cross_entropy(logits, targets, weights), expected)


def test_focal_is_the_formula_of_the_paper() -> None:
    p = torch.tensor([0.9, 0.6, 0.1])
    logits = torch.stack([p.log(), (1 - p).log()], 1)
    targets = torch.tensor([[1.0, 0.0]] * 3)
    expected = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(focal(logits, targets, torch.ones(2), gamma=2.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_certain_answer_gives_no_nan(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2), gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_loss_of_ones_own_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses_of_mine.py").write_text(
        "def brier(logits, targets, weights):\n"
        "    return ((logits.softmax(1) - targets) ** 2 * weights).sum(1).mean()\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    logits, targets, weights = some_batch()
    loss = make_loss(Schedule(loss="losses_of_mine.brier"))(logits, targets, weights)
    torch.testing.assert_close(loss, ((logits.softmax(1) - targets) ** 2 * weights).sum(1).mean())
    with pytest.raises(RecipeError, match="use 'cross_entropy', 'focal' or the dotted name"):
        make_loss(Schedule(loss="losses_of_mine.number"))


@pytest.mark.parametrize(
    "name", ["no_such_module.loss", "math.no_such_name", "hinge", ".loss", "..", "a..b", ""]
)
def test_a_wrong_name_is_a_wrong_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.loss"):
        make_loss(Schedule(loss=name))
