"""Evaluation: the three ways must be what `Cascade` itself answers, and a bad folder gives one clear line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cascade import Cascade
from cascade.dataset import scan
from cascade.errors import DataError, UsageError
from cascade.evaluation import evaluate, evaluate_folder
from cascade.scores import WAYS, Evaluation

ASK = {"general": "never", "cascade": "router", "always": "always"}
LABELS = ("bedroom", "kitchen", "beach", "forest", "menu")


@pytest.fixture
def folder(tmp_path: Path, photo: Callable[..., Path]) -> Path:
    """LABEL/FILE: eight photos per label around its colour, and so also in between."""
    from PIL import Image

    random = np.random.default_rng(4)
    for label in LABELS:
        clean = np.asarray(Image.open(photo(f"data/{label}/clean.png", label)))[0, 0]
        for index in range(7):
            rgb = np.clip(clean + random.normal(0, 60, 3), 0, 255).astype(int).tolist()
            photo(f"data/{label}/{index}.png", tuple(rgb), size=(40 + 30 * index, 50))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def two_experts(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a second expert, and the router and arbiter that training would build."""
    onnx = pytest.importorskip("onnx")
    from cascade.training import graphs

    home = tmp_path_factory.mktemp("two") / "bundle"
    shutil.copytree(tiny_bundle, home)
    shutil.copy(home / "rooms.onnx", home / "more.onnx")
    experts = {"rooms": LABELS[:2], "more": LABELS[:2]}
    random = np.random.default_rng(4)
    arbiter = graphs.ArbiterParameters(1.3, np.array([1.0, 2.0]), np.array([0.9, 0.4]), np.array([-0.1, 0.2]))
    router = graphs.RouterParameters(1.3, random.normal(0, 2, (2, 9)), random.normal(0, 2, (2, 9)))
    onnx.save(graphs.arbiter_graph(arbiter, LABELS, experts, {}), home / "arbiter.onnx")
    onnx.save(graphs.router_graph(router, LABELS, experts, {}), home / "router.onnx")

    def change(manifest: dict) -> None:
        stages = manifest["stages"]
        stages["experts"].append({**stages["experts"][0], "name": "more", "file": "more.onnx", "cost": 0.7})
        stages["router"]["labels"] = ["rooms", "more"]
        manifest["operating_points"]["default"]["cost_weight"] = 0.0

    return rewrite(home, change)


@pytest.fixture(scope="session")
def no_experts(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a general model and a calibrating arbiter."""
    onnx = pytest.importorskip("onnx")
    from cascade.training import graphs

    home = tmp_path_factory.mktemp("none") / "bundle"
    shutil.copytree(tiny_bundle, home)
    (home / "rooms.onnx").unlink()
    (home / "router.onnx").unlink()
    nobody = np.zeros(0)
    onnx.save(
        graphs.arbiter_graph(graphs.ArbiterParameters(2.0, nobody, nobody, nobody), LABELS, {}, {}),
        home / "arbiter.onnx",
    )

    def change(manifest: dict) -> None:
        manifest["stages"]["experts"] = []
        manifest["stages"]["router"] = None

    return rewrite(home, change)


def rewrite(home: Path, change: Callable[[dict], None]) -> Path:
    """Change a manifest and set its hashes right."""
    path = home / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    stages = manifest["stages"]
    for stage in (stages["general"], stages["router"], stages["arbiter"], *stages["experts"]):
        if stage:
            stage["sha256"] = hashlib.sha256((home / stage["file"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    return home


def run(bundle: Path, folder: Path) -> Evaluation:
    return evaluate(Cascade(bundle), scan(folder).photos)


class TestWays:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("bundle", ["tiny_bundle", "two_experts", "no_experts"])
    def test_each_way_is_what_the_cascade_answers(
        self, bundle: str, way: str, folder: Path, request: pytest.FixtureRequest
    ) -> None:
        home = request.getfixturevalue(bundle)
        evaluation = run(home, folder)
        answers = Cascade(home, ask=ASK[way]).predict_many(photo.path for photo in evaluation.photos)
        costs = {expert.name: expert.cost for expert in evaluation.bundle.experts}
        for row, answer in enumerate(answers):
            label, confidence = answer.top[0]
            assert label == evaluation.bundle.tree.labels[evaluation.predicted(way)[row]]
            assert confidence == pytest.approx(evaluation.confidence(way)[row], abs=1e-5)
            asked = [opinion.name for opinion in answer.experts]
            flags = evaluation.asked[way][row]
            assert asked == [name for name, flag in zip(costs, flags, strict=True) if flag]
            assert evaluation.cost(way)[row] == pytest.approx(1 + sum(costs[name] for name in asked))

    def test_the_photos_exercise_the_router(self, folder: Path, two_experts: Path) -> None:
        """Otherwise the test above would compare nobody with nobody."""
        asked = run(two_experts, folder).asked["cascade"]
        patterns = {tuple(row) for row in asked.tolist()}
        assert len(patterns) >= 3

    def test_without_one_expert_is_the_others_alone(self, folder: Path, two_experts: Path) -> None:
        evaluation = run(two_experts, folder)
        asked = evaluation.asked["cascade"]
        same = {name: ~asked[:, column] for column, name in enumerate(("rooms", "more"))}
        for name, rows in same.items():
            np.testing.assert_allclose(
                evaluation.without[name][rows], evaluation.probabilities["cascade"][rows], atol=1e-6
            )
        only_rooms = asked[:, 0] & ~asked[:, 1]
        assert only_rooms.any()
        np.testing.assert_allclose(
            evaluation.without["rooms"][only_rooms],
            evaluation.probabilities["general"][only_rooms],
            atol=1e-6,
        )

    def test_batch_size_changes_nothing(self, folder: Path, two_experts: Path) -> None:
        cascade, photos = Cascade(two_experts), scan(folder).photos
        one, many = (evaluate(cascade, photos, batch_size=size) for size in (1, 13))
        assert one.photos == many.photos
        for way in WAYS:
            np.testing.assert_allclose(one.probabilities[way], many.probabilities[way], atol=1e-6)

    def test_scores_of_the_ways(self, folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, folder)
        general, cascade, always = (evaluation.scores(way) for way in WAYS)
        assert (general.cost, general.deferral_rate) == (1.0, 0.0)
        assert (always.cost, always.deferral_rate) == (2.5, 1.0)
        assert cascade.cost == pytest.approx(1 + 1.5 * cascade.deferral_rate)
        assert 0 < cascade.deferral_rate < 1
        for scores in (general, cascade, always):
            assert scores.n == 40
            assert scores.accuracy <= scores.group_accuracy
            assert scores.accuracy_interval.low < scores.accuracy < scores.accuracy_interval.high
        difference = evaluation.difference()
        assert difference.difference == pytest.approx(cascade.accuracy - general.accuracy)

    def test_group_accuracy_sums_leaves(self, folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, folder)
        probabilities = np.tile(np.float32([0.3, 0.29, 0.36, 0.0, 0.05]), (40, 1))
        changed = dataclasses.replace(
            evaluation, probabilities=dict.fromkeys(WAYS, probabilities), truth=np.repeat([1, 2], 20)
        )
        assert changed.scores().accuracy == 0.5  # beach
        assert changed.group_right().tolist() == [True] * 20 + [False] * 20  # indoor

    def test_curve_runs_from_nobody_to_whoever_may_help(self, folder: Path, two_experts: Path) -> None:
        evaluation = run(two_experts, folder)
        first, last = evaluation.curve[0], evaluation.curve[-1]
        assert (first.cost, first.deferral_rate) == (1.0, 0.0)
        assert first.accuracy == evaluation.scores("general").accuracy
        assert last.cost_weight == 0  # which is this bundle's operating point
        assert last.accuracy == evaluation.scores("cascade").accuracy
        assert last.cost == pytest.approx(evaluation.scores("cascade").cost)
        costs = [point.cost for point in evaluation.curve]
        assert costs == sorted(costs)

    def test_without_experts_all_ways_are_one(self, folder: Path, no_experts: Path) -> None:
        evaluation = run(no_experts, folder)
        assert evaluation.scores("cascade") == evaluation.scores("general")
        assert evaluation.scores().cost == 1.0
        assert evaluation.curve == ()


class TestFolders:
    def test_a_folder_without_splits_is_taken_whole(self, folder: Path, tiny_bundle: Path) -> None:
        assert len({photo.split for photo in scan(folder).photos}) > 1  # scan would split it
        assert len(evaluate_folder(folder, bundle=tiny_bundle).photos) == 40

    def test_of_a_folder_with_splits_one_is_taken(self, folder: Path, tiny_bundle: Path) -> None:
        data = folder.parent / "split"
        for index, path in enumerate(sorted(folder.rglob("*.png"))):
            target = data / ("train" if index % 4 else "test") / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        assert len(evaluate_folder(data, bundle=tiny_bundle).photos) == 10
        assert len(evaluate_folder(data, bundle=tiny_bundle, split="train").photos) == 30
        with pytest.raises(DataError, match=r"no photos in calibration/.*--split \(train, test\)"):
            evaluate_folder(data, bundle=tiny_bundle, split="calibration")
        with pytest.raises(UsageError, match="choose one of train, calibration, test"):
            evaluate_folder(data, bundle=tiny_bundle, split="dev")

    def test_unreadable_photos_are_counted_and_listed(self, folder: Path, tiny_bundle: Path) -> None:
        (folder / "menu" / "broken.jpg").write_bytes(b"no photo at all")
        (folder / "menu" / "empty.jpg").write_bytes(b"")
        evaluation = evaluate_folder(folder, bundle=tiny_bundle)
        assert len(evaluation.photos) == 40
        [(photo, why)] = evaluation.failed
        assert (photo.path.name, photo.label, why.code) == ("broken.jpg", "menu", "not_an_image")
        assert [path.name for path, _ in evaluation.dropped] == ["empty.jpg"]
        assert json.loads(json.dumps(evaluation.to_dict()))["failed"][0]["code"] == "not_an_image"

    def test_a_whole_batch_of_unreadable_photos_is_no_problem(self, folder: Path, tiny_bundle: Path) -> None:
        (folder / "bedroom" / "0.png").write_bytes(b"x")
        evaluation = evaluate(Cascade(tiny_bundle), scan(folder).photos, batch_size=1)
        assert (len(evaluation.photos), len(evaluation.failed)) == (39, 1)
        assert "0.png" not in {p.path.name for p in evaluation.photos if p.label == "bedroom"}

    def test_nothing_readable_is_an_error(self, tmp_path: Path, tiny_bundle: Path) -> None:
        (tmp_path / "menu").mkdir()
        (tmp_path / "menu" / "a.jpg").write_bytes(b"x")
        with pytest.raises(DataError, match=r"none of the 1 photos.*a\.jpg: the content is not an image"):
            evaluate_folder(tmp_path, bundle=tiny_bundle)

    def test_labels_that_the_bundle_does_not_know(self, folder: Path, tiny_bundle: Path) -> None:
        (folder / "forest").rename(folder / "Forests")
        (folder / "menu").rename(folder / "zebra")
        with pytest.raises(DataError, match=r"Forests \(did you mean forest\?\), zebra; it knows bedroom"):
            evaluate_folder(folder, bundle=tiny_bundle)

    def test_unknown_labels_of_another_split_do_not_matter(self, folder: Path, tiny_bundle: Path) -> None:
        data = folder.parent / "split"
        shutil.copytree(folder, data / "test")
        shutil.copytree(folder / "menu", data / "train" / "zebra")
        (data / "train" / "zebra" / "other.png").write_bytes((folder / "menu" / "0.png").read_bytes() + b" ")
        assert len(evaluate_folder(data, bundle=tiny_bundle).photos) == 40

    def test_progress_reaches_the_end(self, folder: Path, tiny_bundle: Path) -> None:
        steps: list[tuple[int, int]] = []
        evaluate_folder(folder, bundle=tiny_bundle, progress=lambda done, total: steps.append((done, total)))
        assert [done for done, _ in steps] == [16, 32, 40]
        assert {total for _, total in steps} == {40}

    def test_sizes_are_upright(self, folder: Path, tiny_bundle: Path) -> None:
        from PIL import Image

        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (90, 30), (220, 40, 40)).save(folder / "bedroom" / "turned.jpg", exif=exif)
        evaluation = evaluate_folder(folder, bundle=tiny_bundle)
        row = [photo.path.name for photo in evaluation.photos].index("turned.jpg")
        assert evaluation.sizes[row].tolist() == [30, 90]

    def test_misuse(self, tiny_bundle: Path, folder: Path) -> None:
        with pytest.raises(DataError, match="no photos to evaluate"):
            evaluate(Cascade(tiny_bundle), [])
        with pytest.raises(UsageError, match="batch_size is 0"):
            evaluate(Cascade(tiny_bundle), scan(folder).photos, batch_size=0)


class TestResult:
    def test_shapes_are_checked(self, folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, folder)
        with pytest.raises(ValueError, match=r"truth has shape \(39,\), not \(40,\)"):
            dataclasses.replace(evaluation, truth=evaluation.truth[:-1])
        with pytest.raises(ValueError, match="at least one photo"):
            dataclasses.replace(evaluation, photos=())

    def test_json_form(self, folder: Path, tiny_bundle: Path) -> None:
        form = run(tiny_bundle, folder).to_dict()
        assert list(form) == [
            "bundle",
            "operating_point",
            "photos",
            "failed",
            "dropped",
            "ways",
            "cascade_minus_general",
            "cascade_minus_always",
            "curve",
        ]
        assert list(form["ways"]) == ["general", "cascade", "always"]
        assert json.loads(json.dumps(form))["ways"]["cascade"]["accuracy_interval"] == list(
            form["ways"]["cascade"]["accuracy_interval"]
        )
