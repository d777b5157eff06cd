"""What surrounds training: the study of rates, sweeps, the estimate of time, Weights & Biases."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tiny_training import write_colours, write_recipe

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")
pytest.importorskip("sklearn", reason="needs the extra `train`")

from cascade.errors import RecipeError, UsageError
from cascade.training import time_estimate as estimating
from cascade.training.explore.learning_rate import study_project, suggest
from cascade.training.explore.sweep import Sweep, run_sweep
from cascade.training.fit.network import fit
from cascade.training.fit.teacher import opinions_file
from cascade.training.overrides import override
from cascade.training.project import Project, open_project
from cascade.training.time_estimate import announce, estimate, in_words
from cascade.training.tracking import Tracker, choose_samples
from cascade.training.training_log import TrainingLog

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A working folder whose views are shared by all tests here."""
    data = write_colours(tmp_path_factory.mktemp("colours"))
    recipes = write_recipe(tmp_path_factory.mktemp("recipes"))
    return open_project(data, [recipes], tmp_path_factory.mktemp("work"), device="cpu")


@pytest.fixture
def anew(project: Project, tmp_path: Path) -> Project:
    """The same project in a working folder of its own, where nothing but the exported graphs is there yet."""
    found = list(project.views.glob("*/frozen.onnx"))
    for path in found:
        home = tmp_path / "views" / path.parent.name
        home.mkdir(parents=True)
        shutil.copy(path, home)
    return replace(project, work=tmp_path)


def quiet() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=160), text


# --- the study of learning rates ----------------------------------------------------------------------


def test_the_suggestion_is_a_tenth_of_the_lowest() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    smoothed = 2 + (np.log10(rates) + 2) ** 2  # lowest at 1e-2
    smoothed[:5] = 0  # of the burn-in, which does not count
    lowest, steepest, suggested = suggest(rates.tolist(), smoothed.tolist())
    assert lowest == pytest.approx(1e-2, rel=0.1)
    assert suggested == pytest.approx(lowest / 10)
    assert steepest < lowest


def test_a_study_leaves_figures_and_nothing_to_go_on_from(project: Project) -> None:
    console, text = quiet()
    with TrainingLog(console=console) as log:
        (study,) = study_project(project, steps=30, log=log, console=console)
        (again,) = study_project(project, steps=30, log=log, console=console)
    assert again == study
    folder = project.work / "lr_study"
    assert sorted(p.name for p in folder.iterdir()) == ["general.csv", "general.json", "general.png"]
    assert not (project.work / "general").exists(), "no checkpoint"
    rows = list(csv.DictReader((folder / "general.csv").read_text().splitlines()))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(1e6) / 29, rtol=1e-6)
    document = json.loads((folder / "general.json").read_text())
    assert document["suggested"] == study.suggested == pytest.approx(study.lowest / 10)
    assert f"suggested learning rate {study.suggested:.2g}" in text.getvalue()
    assert "a tenth of the rate" in text.getvalue()


# --- sweeps -------------------------------------------------------------------------------------------

SWEEP = """
method = "grid"
[parameters]
train.learning_rate = [1e-2, 1e-5]
"train.mixup" = [0.0]
"""


def test_a_sweep_ranks_its_runs_and_goes_on_where_it_was(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(SWEEP)
    plan = override(project.recipes[0], {"train.development": 0.25, "train.ema_decay": 0.5})
    console, text = quiet()
    varied = replace(project, chosen=(plan,))
    ranked = run_sweep(varied, Sweep.load(path), wandb="disabled", console=console)
    assert [o.settings["train.learning_rate"] for o in ranked] == [1e-2, 1e-5]
    assert ranked[0].development_loss < ranked[1].development_loss
    home = project.work / "sweeps" / "rates_general"
    document = json.loads((home / "sweep.json").read_text())
    assert [run["settings"] for run in document["runs"]] == [o.settings for o in ranked]
    before = {p: p.stat().st_mtime_ns for p in home.rglob("checkpoint.pt")}
    assert len(before) == 2
    assert run_sweep(varied, Sweep.load(path), wandb="disabled", console=console) == ranked
    assert {p: p.stat().st_mtime_ns for p in home.rglob("checkpoint.pt")} == before
    assert "development loss" in text.getvalue()


def test_a_grid_is_every_combination_and_random_is_reproducible() -> None:
    grid = Sweep("s", "grid", {"train.epochs": [1, 2], "train.mixup": [0.0, 0.1, 0.2]})
    assert len(grid.combinations()) == 6
    ranges = {
        "train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        "train.epochs": {"min": 2, "max": 4},
        "train.mixup": {"min": 0.0, "max": 0.4},
        "train.balance": ["none", "weights"],
    }
    drawn = Sweep("s", "random", ranges, runs=200, seed=3).combinations()
    assert drawn == Sweep("s", "random", ranges, runs=200, seed=3).combinations()
    assert drawn != Sweep("s", "random", ranges, runs=200, seed=4).combinations()
    assert {each["train.epochs"] for each in drawn} == {2, 3, 4}
    assert {each["train.balance"] for each in drawn} == {"none", "weights"}
    rates = [each["train.learning_rate"] for each in drawn]
    assert min(rates) >= 1e-4
    assert max(rates) <= 1e-2
    assert np.median(rates) == pytest.approx(1e-3, rel=0.5), "uniform in the logarithm"
    json.dumps(drawn)
    few = Sweep("s", "random", {"train.epochs": [1, 2]}, runs=9).combinations()
    assert sorted(each["train.epochs"] for each in few) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method = 'best'\n[parameters]\ntrain.epochs = [1]", "method is 'best'"),
        ("method = 'grid'", "names no field"),
        ("method = 'random'\n[parameters]\ntrain.epochs = [1]", "needs at least 1"),
        ("[parameters]\ntrain.epochs = 3", "give a list of values"),
        ("[parameters]\ntrain.epochs = []", "has no values"),
        ("[parameters]\ntrain.epochs = { min = 1, max = 3 }", "a grid needs a list"),
        ("method='random'\nruns=1\n[parameters]\ntrain.mixup = { min = 1, max = 1 }", "min must be below"),
        ("[parameters]\ntrain.seed = [1, 2]", "train.seed decides which photos judge"),
        ("rounds = 3\n[parameters]\ntrain.epochs = [1]", "rounds"),
        ("method =", "is not TOML"),
    ],
)
def test_a_wrong_sweep_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        Sweep.load(path)
    assert str(path) in str(error.value)


def test_a_sweep_with_a_wrong_value_trains_nothing(project: Project) -> None:
    console, _ = quiet()
    with pytest.raises(RecipeError, match="epochs"):
        run_sweep(project, Sweep("bad", "grid", {"train.epochs": [1, 0]}), wandb="disabled", console=console)
    assert not (project.work / "sweeps" / "bad_general").exists()
    with pytest.raises(UsageError, match="--only"):
        run_sweep(
            replace(project, chosen=()),
            Sweep("s", "grid", {"train.epochs": [1]}),
            wandb="disabled",
            console=console,
        )


# --- the estimate of time -----------------------------------------------------------------------------


def test_the_estimate_knows_the_teacher(anew: Project) -> None:
    taught = override(
        anew.recipes[0],
        {
            "teacher.share": 0.5,
            "teacher.backbones": ["test_efficientnet"],
            "teacher.weights": ["none"],
            "teacher.sides": [32],
            "teacher.folds": 2,
        },
    )
    twin = taught.replace(name="twin", kind="expert", train=taught.train.replace(negatives=0.5))
    project = replace(anew, chosen=(taught, twin))
    first, second = estimate(project)
    assert first.teaching > 0
    assert second.teaching == 0, "it asks the same teacher"
    training = project.data.split("train")
    opinions_file(taught, training, project.views, project.teacher_seed).touch()
    assert [found.teaching for found in estimate(project)] == [0, 0]


def test_the_estimate_knows_what_is_done_and_changes_nothing(
    anew: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "measure_recipe", lambda *arguments: (0.5, 3.0))
    recipe = override(anew.recipes[0], {"train.epochs": 4})
    twin = recipe.replace(name="twin", kind="expert", train=recipe.train.replace(negatives=0.5))
    fresh = replace(anew, chosen=(recipe, twin))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = estimate(fresh)
    assert torch.equal(torch.rand(3), expected), "the generator is where it was"
    # 24 photos in one view and 8 that are looked at; 3 steps and a look an epoch.
    assert first.caching == pytest.approx(32 * 0.5)
    assert first.training == pytest.approx(4 * 3.0 * (3 + 8 / 8 / 3))
    assert second.caching == 0, "it shares the views of the first"

    alone = replace(fresh, chosen=(recipe,))

    class StopError(Exception):
        pass

    class Impatient(TrainingLog):
        def epoch(self, stage: str, number: int, total: int, metrics: dict[str, float]) -> None:
            if number == 3:
                raise StopError

    with pytest.raises(StopError), Impatient() as log:
        fit(recipe, anew.data, anew.work, device=anew.device, log=log)
    (left,) = estimate(alone)
    assert left.caching == 0
    assert left.training == pytest.approx(first.training / 4)
    with TrainingLog() as log:
        fit(recipe, anew.data, anew.work, device=anew.device, log=log)
    console, text = quiet()
    with TrainingLog(console=console) as log:
        announce(alone, log)
    assert "general: is trained already" in text.getvalue()


def test_a_real_measurement_is_positive_and_leaves_generators_alone(anew: Project) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    (found,) = estimate(anew)
    assert found.caching > 0
    assert found.training > 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40, "40 s"), (1500, "25 min"), (3900, "1 h 5 min"), (7200, "2 h 0 min")],
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# --- Weights & Biases ---------------------------------------------------------------------------------


def test_samples_are_confident_mistakes_and_others() -> None:
    truth = np.zeros(100, dtype=np.int64)
    right = np.linspace(1.0, 0.05, 100)
    probabilities = np.stack([right, 1 - right], axis=1)
    chosen = choose_samples(truth, probabilities)
    assert len(chosen) == len(set(chosen.tolist())) == 32
    assert chosen[:16].tolist() == list(range(99, 83, -1))
    assert (probabilities[chosen[16:]].argmax(1) == 0).any()
    assert sorted(choose_samples(truth[:3], probabilities[:3])) == [0, 1, 2]


def test_wandb_gets_a_confusion_matrix_photos_and_the_bundle(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs the extra `train`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for unneeded in ("DISABLE_GIT", "DISABLE_CODE", "X_DISABLE_STATS", "X_DISABLE_META"):
        monkeypatch.setenv(f"WANDB_{unneeded}", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    tracker = Tracker("offline", group="some", name="one")
    with TrainingLog(tracker=tracker) as log:
        fit(
            project.recipes[0],
            project.data,
            tmp_path,
            device=project.device,
            log=log,
            views=project.views,
        )
        tracker.bundle(bundle, "my bundle", "1.2.3", {"accuracy": 0.5})
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (recorded,) = run.glob("*.wandb")
    expected = (b"general/monitor_accuracy", b"general/confusion", b"general/samples", b"my-bundle")
    end = time.monotonic() + 60
    while missing := [name for name in expected if name not in recorded.read_bytes()]:
        assert time.monotonic() < end, missing  # a process of wandb's own writes the file
        time.sleep(0.1)
    tables = list(run.glob("files/media/table/general/samples*.json"))
    assert len(tables) == 1
    assert len(json.loads(tables[0].read_text())["data"]) == 8
    staged = [p.read_bytes() for p in (tmp_path / "staging").rglob("*") if p.is_file()]
    assert sum(content.startswith(b"\x89PNG") for content in staged) == 8, "a photo in each row"


def test_an_unknown_wandb_mode_is_misuse() -> None:
    with pytest.raises(UsageError, match="wandb mode 'maybe'"):
        Tracker("maybe")


# --- on the command line ------------------------------------------------------------------------------


def test_settings_and_studies_from_the_command_line(run_cli, project: Project, tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    write_recipe(recipes)
    common = ("train", project.data.folder, "--recipes", recipes, "--device", "cpu")
    ran = run_cli(*common)
    assert (ran.code, "--out is missing" in ran.err) == (2, True)
    ran = run_cli(*common, "--work", project.work, "--set", "train.epoch=3", "--lr-study")
    assert (ran.code, "train: contains unknown field `epoch`" in ran.err) == (2, True)
    ran = run_cli(*common, "--work", project.work, "--lr-study", "--sweep", "x.toml")
    assert (ran.code, "give one of them" in ran.err) == (2, True)
    ran = run_cli(*common, "--out", tmp_path / "b", "--set", "train.loss=no.such.loss")
    assert (ran.code, "train.loss 'no.such.loss' cannot be imported" in ran.err) == (2, True)
    ran = run_cli(*common, "--work", project.work, "--lr-study", "--set", "train.batch_size=4")
    assert ran.code == 0, ran.err
    assert "suggested learning rate" in ran.out
    sweep = tmp_path / "cli.toml"
    sweep.write_text("[parameters]\ntrain.epochs = [1]\n")
    ran = run_cli(*common, "--work", project.work, "--sweep", sweep)
    assert ran.code == 0, ran.err
    assert "development loss" in ran.out
    ran = run_cli(
        *common,
        "--out",
        tmp_path / "b",
        "--work",
        project.work,
        "--only",
        "general",
        "--set",
        "train.epochs=1",
    )
    assert ran.code == 0, ran.err
    assert "general: epoch 1/1" in ran.err
    assert "in all about" in ran.err
    assert not (tmp_path / "b").exists()
