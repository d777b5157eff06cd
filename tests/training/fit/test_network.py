"""Training a tiny network: early stopping, resuming, and what decides nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from tiny_training import COLOURS, write_colours

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")

from cascade.evaluation.dataset import Dataset, scan
from cascade.imaging.preprocessing import InputSpec
from cascade.training.data.sampling import learned_from
from cascade.training.fit import network as module
from cascade.training.fit.averaging import decay_after, explain, warmed_up_average
from cascade.training.fit.backbone import Network
from cascade.training.fit.checkpoint import Checkpoint
from cascade.training.fit.network import Fitted, fit
from cascade.training.fit.training_data import prepare_training_data
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Augmentation, Backbone, Schedule
from cascade.training.training_log import TrainingLog

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


def run(
    data: Dataset, work: Path, views: Path, log: type[TrainingLog] = TrainingLog, **plan: object
) -> Fitted:
    recipe = RECIPE.replace(train=RECIPE.train.replace(**plan))
    with log() as told:
        return fit(recipe, data, work, device=CPU, log=told, views=views)


def same_weights(one: Fitted, two: Fitted) -> bool:
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def scripted(losses: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the development part be judged as a test wants it, epoch by epoch."""
    real = module.validate

    def look(*arguments: object) -> dict[str, float]:
        metrics = real(*arguments)
        look.epoch += 1
        return metrics | {"development_loss": losses[look.epoch - 1], "last_development_loss": 1.0}

    look.epoch = 0
    monkeypatch.setattr(module, "validate", look)


def test_training_stops_early_and_returns_the_best_epoch(
    data: Dataset, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Keeping(TrainingLog):
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

    class Impatient(TrainingLog):
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
    with TrainingLog() as log:
        examples = prepare_training_data(RECIPE, network, data, views, teacher_seed=0, device=CPU, log=log)
    photos = data.split("train")
    targets = np.array([list(COLOURS).index(p.label) for p in photos])
    learned, watched = learned_from(photos, targets, RECIPE)
    assert examples.rows.tolist() == learned.tolist()
    assert not set(examples.rows.tolist()) & set(watched.tolist())
    assert examples.development.tolist() == targets[watched].tolist()
    assert len(examples.views.monitor) == len(data.split("calibration")) + len(watched)


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


def test_a_short_run_is_not_dragged_to_its_start(data: Dataset, views: Path, tmp_path: Path) -> None:
    # Eighteen steps: an average with a decay of 0.998 from the first step on would still be the start.
    fitted = run(data, tmp_path, views, early_stopping=6, ema_decay=0.998)
    last = fitted.history[-1]
    assert last["development_accuracy"] >= last["last_development_accuracy"] - 0.2
    assert last["development_loss"] < 0.6, "two colours, and guessing has 0.69"


@pytest.mark.parametrize(("averaged", "last"), [(0.2, 0.4), (0.4, 0.2)])
def test_the_better_of_averaged_and_last_weights_is_exported(
    data: Dataset,
    views: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    averaged: float,
    last: float,
) -> None:
    real = module.validate

    def look(*arguments: object) -> dict[str, float]:
        accuracies = {"development_accuracy": 1 - averaged, "last_development_accuracy": 1 - last}
        losses = {"development_loss": averaged, "last_development_loss": last}
        return real(*arguments) | losses | accuracies

    monkeypatch.setattr(module, "validate", look)
    fitted = run(data, tmp_path, views, epochs=1)
    state = torch.load(tmp_path / "general" / "checkpoint.pt", weights_only=True)
    ema = {k.removeprefix("module."): v for k, v in state["ema"].items() if k.startswith("module.")}
    network = fitted.network
    found = torch.nn.ModuleDict({"trained": network.trained, "head": network.head}).state_dict()
    expected, other = (ema, state["model"]) if averaged < last else (state["model"], ema)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert not all(torch.equal(found[key], value) for key, value in other.items())


def test_the_log_says_which_weights_each_accuracy_belongs_to(
    data: Dataset, views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data, tmp_path, views, epochs=1)
    said = capsys.readouterr().err
    (epoch,) = (line for line in said.splitlines() if "epoch 1/1" in line)
    trained, averaged = epoch.split(" | ")[:2]
    assert "weights in training: loss" in trained
    assert "monitor_accuracy" not in trained
    assert averaged.startswith("averaged weights: monitor_loss")
    assert "weights of epoch 1 are exported: on the 6 photos of train that were held out" in said


def test_too_few_photos_to_compare_are_said_to_be() -> None:
    history = [{"loss": 0.1, "accuracy": 1.0, "monitor_loss": 0.2, "monitor_accuracy": 1.0}]
    (line,) = explain(history, RECIPE.train, 0)
    assert "too few photos to hold some out" in line


def test_averaged_and_last_weights_that_differ_clearly_are_a_warning() -> None:
    def told(averaged: float, last: float, photos: int) -> list[str]:
        accuracy = {"development_accuracy": averaged, "last_development_accuracy": last}
        loss = {"development_loss": 1 - averaged, "last_development_loss": 1 - last}
        return explain([accuracy | loss], Schedule(), photos)

    assert "the last weights of epoch 1 are exported" in told(0.69, 0.976, 100)[0]
    assert "lower train.ema_decay" in told(0.69, 0.976, 100)[1]
    assert "lower train.learning_rate" in told(0.976, 0.69, 100)[1]
    assert len(told(0.9, 0.92, 100)) == len(told(0.8, 0.9, 10)) == 1


def test_the_average_is_warmed_up_as_tensorflow_does_it() -> None:
    # tf.train.ExponentialMovingAverage: min(decay, (1 + num_updates) / (10 + num_updates))
    assert [decay_after(t, 0.998) for t in (1, 32)] == pytest.approx([2 / 11, 33 / 42])
    assert decay_after(10_000, 0.998) == 0.998
    model = torch.nn.Linear(1, 1, bias=False)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=warmed_up_average(0.998))
    expected = None
    for step in range(5):
        torch.nn.init.constant_(model.weight, float(step))
        average.update_parameters(model)
        decay = decay_after(step, 0.998)
        expected = float(step) if step == 0 else decay * expected + (1 - decay) * step
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_a_network_that_saw_outliers_is_less_sure_of_such_photos(
    data: Dataset, views: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere" / "orange"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = np.array([250, 120, 20]) + rng.integers(-5, 5, size=(32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    outliers = scan(tmp_path / "elsewhere").photos
    image = torch.from_numpy(np.array(Image.open(outliers[0].path))).permute(2, 0, 1)[None]

    def surest(**plan: object) -> float:
        recipe = RECIPE.replace(train=RECIPE.train.replace(early_stopping=6, **plan))
        with TrainingLog() as told:
            work = tmp_path / str(len(plan))
            fitted = fit(recipe, data, work, device=CPU, log=told, views=views, outliers=outliers)
        with torch.inference_mode():
            return float(fitted.network(image)[0].softmax(1).max())

    assert surest(outliers=1.0) < surest() - 0.05


def test_the_ends_of_both_cycles_are_averaged(data: Dataset, views: Path, tmp_path: Path) -> None:
    plan = {"epochs": 3, "early_stopping": 0, "restart_at": 2, "development": 0.25}
    second = run(data, tmp_path / "a", views, **plan)
    mixed = run(data, tmp_path / "b", views, **plan, restart_share=0.75)
    kept = torch.load(tmp_path / "b" / "general" / "before_restart.pt", weights_only=True)
    for name, value in torch.nn.ModuleDict(
        {"trained": second.network.trained, "head": second.network.head}
    ).state_dict().items():  # fmt: skip
        found = dict(mixed.network.state_dict())[name]
        if value.is_floating_point():
            torch.testing.assert_close(found, 0.75 * value + 0.25 * kept[name])
    # The same call finds that it is done, and gives the same weights.
    assert same_weights(mixed, run(data, tmp_path / "b", views, **plan, restart_share=0.75))


def test_the_weights_before_the_restart_teach_the_second_cycle(
    data: Dataset, views: Path, tmp_path: Path
) -> None:
    images = np.stack([np.array(Image.open(photo.path).convert("RGB")) for photo in data.photos])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    plan = {"epochs": 6, "early_stopping": 0, "restart_at": 3, "restart_factor": 1.0, "label_smoothing": 0.0}
    taught, plain = (
        run(data, tmp_path / str(share), views, **plan, restart_teacher=share).network
        for share in (0.95, 0.0)
    )
    teacher = copy.deepcopy(plain)
    before = torch.load(tmp_path / "0.95" / "general" / "before_restart.pt", weights_only=True)
    teacher.load_state_dict(before, strict=False)

    def said(network: Network) -> torch.Tensor:
        with torch.inference_mode():
            return network.eval()(pixels)[0].softmax(1)

    # Labels alone make the second cycle surer; who is taught stays near what was said before.
    apart = [float((said(network) - said(teacher)).abs().mean()) for network in (taught, plain)]
    assert apart[0] < apart[1] / 2


def test_labels_left_out_count_a_little_after_the_restart(data: Dataset, views: Path, tmp_path: Path) -> None:
    # Two sources that hold both labels, and a third that holds one: its photos leave the other label out.
    photos = [
        replace(p, source="third" if i % 3 == 0 and p.label == "red" else "both")
        for i, p in enumerate(data.photos)
    ]
    mixed = Dataset(data.folder, tuple(photos), ())
    plan = {"early_stopping": 0, "restart_at": 2, "contrasts": "within_source", "mixup": 0.0}

    def runs(epochs: int) -> bool:
        pair = (
            run(mixed, tmp_path / f"{epochs} {weight}", views, **plan, epochs=epochs, contrast_weight=weight)
            for weight in (0.0, 0.5)
        )
        return same_weights(*pair)

    assert runs(2)  # nothing differs before the restart
    assert not runs(4)


def test_a_training_that_ends_before_its_restart_mixes_nothing(
    data: Dataset, views: Path, tmp_path: Path
) -> None:
    plan = {"epochs": 2, "restart_at": 5, "early_stopping": 0, "development": 0.25}
    plain = run(data, tmp_path / "a", views, **plan)
    home = tmp_path / "b" / "general"
    home.mkdir(parents=True)
    (home / "before_restart.pt").write_bytes(b"of another training")
    assert same_weights(plain, run(data, tmp_path / "b", views, **plan, restart_share=0.5))


def test_other_outliers_are_another_training(data: Dataset, tmp_path: Path) -> None:
    recipe = RECIPE.replace(train=RECIPE.train.replace(outliers=0.5))
    photos = data.split("train")
    some = (photos[:1], photos[1:2], ())
    one, two, none = (Checkpoint(tmp_path, recipe, data, outliers).identity for outliers in some)
    assert len({one, two, none}) == 3
    assert Checkpoint(tmp_path, RECIPE, data, photos).identity == Checkpoint(tmp_path, RECIPE, data).identity
