"""Training a tiny network: early stopping, resuming, and what decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tiny_training import COLOURS, write_colours

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")

from cascade.evaluation.dataset import Dataset, scan
from cascade.imaging.preprocessing import InputSpec
from cascade.training.data.sampling import learned_from
from cascade.training.fit import network as module
from cascade.training.fit.network import Fitted, fit, prepare_lesson
from cascade.training.progress import Report
from cascade.training.recipe import Augmentation, Backbone, Recipe, Schedule

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="general",
    kind="general",
    labels={"red": "colour", "green": "colour"},
    backbone=Backbone("test_efficientnet", "none"),
    input=InputSpec(32, 32),
    augment=Augmentation(views=1),
    train=Schedule(
        train_from="blocks.4", epochs=6, batch_size=8, early_stopping=2, development=0.25, learning_rate=0.01
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scan(write_colours(tmp_path_factory.mktemp("colours")))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cached views, shared by all runs here."""
    return tmp_path_factory.mktemp("views")


def run(data: Dataset, work: Path, views: Path, report: type[Report] = Report, **plan: object) -> Fitted:
    recipe = replace(RECIPE, train=replace(RECIPE.train, **plan))
    with report() as told:
        return fit(recipe, data, work, device=CPU, report=told, views=views)


def same_weights(one: Fitted, two: Fitted) -> bool:
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def scripted(losses: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the development part be judged as a test wants it, epoch by epoch."""
    real = module._look_at

    def look(*arguments: object) -> dict[str, float]:
        metrics = real(*arguments)
        look.epoch += 1
        return metrics | {"development_loss": losses[look.epoch - 1]}

    look.epoch = 0
    monkeypatch.setattr(module, "_look_at", look)


def test_training_stops_early_and_returns_the_best_epoch(
    data: Dataset, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Keeping(Report):
        """Remembers the averaged weights of every epoch, as the checkpoint has them."""

        kept: ClassVar[list[dict]] = []

        def epoch(self, stage: str, number: int, total: int, metrics: dict[str, float]) -> None:
            state = torch.load(tmp_path / "general" / "checkpoint.pt", weights_only=True)["ema"]
            self.kept.append({k[len("module.") :]: v for k, v in state.items() if k.startswith("module.")})

    scripted([0.9, 0.5, 0.6, 0.7, 0.1, 0.1], monkeypatch)
    fitted = run(data, tmp_path, views, Keeping)
    assert [e["development_loss"] for e in fitted.history] == [0.9, 0.5, 0.6, 0.7]
    network = fitted.network
    found = torch.nn.ModuleDict({"trained": network.trained, "head": network.head}).state_dict()
    assert all(torch.equal(found[key], value) for key, value in Keeping.kept[1].items())
    assert not all(torch.equal(found[key], value) for key, value in Keeping.kept[3].items())
    # The same call finds that it is done, and gives the same weights.
    assert same_weights(fitted, run(data, tmp_path, views))


def test_an_early_stopped_run_resumes_to_the_same_end(data: Dataset, views: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Impatient(Report):
        def epoch(self, stage: str, number: int, total: int, metrics: dict[str, float]) -> None:
            if number == 2:
                raise StopError

    whole = run(data, tmp_path / "whole", views, epochs=4)
    with pytest.raises(StopError):
        run(data, tmp_path / "parts", views, Impatient, epochs=4)
    assert same_weights(whole, run(data, tmp_path / "parts", views, epochs=4))


def test_calibration_decides_nothing(data: Dataset, views: Path, tmp_path: Path) -> None:
    other = {"red": "green", "green": "red"}
    swapped = replace(
        data,
        photos=tuple(p if p.split == "train" else replace(p, label=other[p.label]) for p in data.photos),
    )
    one, two = run(data, tmp_path / "a", views, epochs=3), run(swapped, tmp_path / "b", views, epochs=3)
    assert same_weights(one, two)
    accuracy = [[e["monitor_accuracy"] for e in f.history] for f in (one, two)]
    assert np.add(*accuracy) == pytest.approx(1), "it was looked at, though"


def test_what_early_stopping_watches_is_not_learned_from(data: Dataset, views: Path) -> None:
    network = module.build(RECIPE)
    with Report() as report:
        lesson = prepare_lesson(RECIPE, network, data, views, teacher_seed=0, device=CPU, report=report)
    targets = np.array([list(COLOURS).index(p.label) for p in data.split("train")])
    learned, watched = learned_from(targets, RECIPE)
    assert lesson.rows.tolist() == learned.tolist()
    assert not set(lesson.rows.tolist()) & set(watched.tolist())
    assert lesson.development.tolist() == targets[watched].tolist()
    assert len(lesson.views.monitor) == len(data.split("calibration")) + len(watched)


@pytest.mark.parametrize(
    "plan",
    [{"loss": "focal", "balance": "weights", "cutmix": 1.0}, {"balance": "sampling", "layer_decay": 0.5}],
)
def test_every_way_of_training_learns_two_colours(
    data: Dataset, views: Path, tmp_path: Path, plan: dict[str, object]
) -> None:
    # It watches the same photos as the other runs here, so that views are shared, but never stops.
    fitted = run(data, tmp_path, views, early_stopping=6, ema_decay=0.5, **plan)
    assert len(fitted.history) == 6
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
