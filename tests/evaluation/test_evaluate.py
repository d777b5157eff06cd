"""Evaluation: the three ways must be what `Cascade` itself answers, and a bad folder gives one clear line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade import Cascade
from cascade.errors import DataError, UsageError
from cascade.evaluation.corruptions import CORRUPTIONS
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.evaluation.evaluate import evaluate, evaluate_folder
from cascade.evaluation.report import render_table
from cascade.evaluation.results import SYSTEMS, Evaluation

ASK = {"general": "never", "cascade": "router", "always": "always"}


def run(bundle: Path, folder: Path) -> Evaluation:
    return evaluate(Cascade(bundle), scan(folder).photos)


def real_photos(folder: Path) -> list[Photo]:
    """The test split, without `scan`, which reads and hashes all splits."""
    return [
        Photo(path, path.parent.name, "test", "", "")
        for path in sorted((folder / "photos" / "test").glob("*/*.jpg"), reverse=True)
    ]


@pytest.fixture(scope="module")
def real_evaluation(shipped_bundle: Path, photos_folder: Path) -> Evaluation:
    """Three real stages and real photographs, one of each label."""
    first = {photo.label: photo for photo in real_photos(photos_folder)}
    return evaluate(Cascade(shipped_bundle), list(first.values()))


class TestSystems:
    @pytest.mark.parametrize("system", SYSTEMS)
    @pytest.mark.parametrize("bundle", ["tiny_bundle", "two_expert_bundle", "expertless_bundle"])
    def test_each_system_is_what_the_cascade_answers(
        self, bundle: str, system: str, labelled_folder: Path, request: pytest.FixtureRequest
    ) -> None:
        home = request.getfixturevalue(bundle)
        evaluation = run(home, labelled_folder)
        answers = Cascade(home, ask=ASK[system]).predict_many(photo.path for photo in evaluation.photos)
        costs = {expert.name: expert.cost for expert in evaluation.bundle.experts}
        for row, answer in enumerate(answers):
            label, confidence = answer.top[0]
            assert label == evaluation.bundle.tree.labels[evaluation.predicted(system)[row]]
            assert confidence == pytest.approx(evaluation.confidence(system)[row], abs=1e-5)
            deferred = [opinion.name for opinion in answer.experts]
            flags = evaluation.deferred[system][row]
            assert deferred == [name for name, flag in zip(costs, flags, strict=True) if flag]
            assert evaluation.cost(system)[row] == pytest.approx(1 + sum(costs[name] for name in deferred))

    @pytest.mark.parametrize("system", SYSTEMS)
    def test_each_system_is_what_the_shipped_bundle_answers(
        self, system: str, shipped_bundle: Path, real_evaluation: Evaluation
    ) -> None:
        evaluation, labels = real_evaluation, real_evaluation.bundle.tree.labels
        answers = Cascade(shipped_bundle, ask=ASK[system]).predict_many(p.path for p in evaluation.photos)
        for row, answer in enumerate(answers):
            assert answer.top[0][1] == pytest.approx(evaluation.confidence(system)[row], abs=1e-4)
            place = labels.index(answer.top[0][0])
            assert evaluation.probabilities[system][row, place] == pytest.approx(answer.top[0][1], abs=1e-4)
        assert len(evaluation.photos) == len(labels)

    def test_the_photos_exercise_the_router(self, labelled_folder: Path, two_expert_bundle: Path) -> None:
        """Otherwise the test above would compare nobody with nobody."""
        deferred = run(two_expert_bundle, labelled_folder).deferred["cascade"]
        patterns = {tuple(row) for row in deferred.tolist()}
        assert len(patterns) >= 3

    def test_without_one_expert_is_the_others_alone(
        self, labelled_folder: Path, two_expert_bundle: Path
    ) -> None:
        evaluation = run(two_expert_bundle, labelled_folder)
        deferred = evaluation.deferred["cascade"]
        same = {name: ~deferred[:, column] for column, name in enumerate(("rooms", "more"))}
        for name, rows in same.items():
            np.testing.assert_allclose(
                evaluation.without[name][rows], evaluation.probabilities["cascade"][rows], atol=1e-6
            )
        only_rooms = deferred[:, 0] & ~deferred[:, 1]
        assert only_rooms.any()
        np.testing.assert_allclose(
            evaluation.without["rooms"][only_rooms],
            evaluation.probabilities["general"][only_rooms],
            atol=1e-6,
        )

    def test_batch_size_changes_nothing(self, labelled_folder: Path, two_expert_bundle: Path) -> None:
        cascade, photos = Cascade(two_expert_bundle), scan(labelled_folder).photos
        one, many = (evaluate(cascade, photos, batch_size=size) for size in (1, 13))
        assert one.photos == many.photos
        for system in SYSTEMS:
            np.testing.assert_allclose(one.probabilities[system], many.probabilities[system], atol=1e-6)

    def test_scores_of_the_ways(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, labelled_folder)
        general, cascade, always = (evaluation.measure(system) for system in SYSTEMS)
        assert (general.cost, general.deferral_rate) == (1.0, 0.0)
        assert (always.cost, always.deferral_rate) == (2.5, 1.0)
        assert cascade.cost == pytest.approx(1 + 1.5 * cascade.deferral_rate)
        assert 0 < cascade.deferral_rate < 1
        for measure in (general, cascade, always):
            assert measure.n == 40
            assert measure.accuracy <= measure.group_accuracy
            assert measure.accuracy_interval.low < measure.accuracy < measure.accuracy_interval.high
        difference = evaluation.difference()
        assert difference.difference == pytest.approx(cascade.accuracy - general.accuracy)

    def test_group_accuracy_sums_leaves(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, labelled_folder)
        probabilities = np.tile(np.float32([0.3, 0.29, 0.36, 0.0, 0.05]), (40, 1))
        changed = dataclasses.replace(
            evaluation, probabilities=dict.fromkeys(SYSTEMS, probabilities), truth=np.repeat([1, 2], 20)
        )
        assert changed.measure().accuracy == 0.5  # beach
        assert changed.group_right().tolist() == [True] * 20 + [False] * 20  # indoor

    def test_curve_runs_from_nobody_to_whoever_may_help(
        self, labelled_folder: Path, two_expert_bundle: Path
    ) -> None:
        evaluation = run(two_expert_bundle, labelled_folder)
        first, last = evaluation.curve[0], evaluation.curve[-1]
        assert (first.cost, first.deferral_rate) == (1.0, 0.0)
        assert first.accuracy == evaluation.measure("general").accuracy
        assert last.cost_weight == 0  # which is this bundle's operating point
        assert last.accuracy == evaluation.measure("cascade").accuracy
        assert last.cost == pytest.approx(evaluation.measure("cascade").cost)
        costs = [point.cost for point in evaluation.curve]
        assert costs == sorted(costs)

    def test_without_experts_all_ways_are_one(self, labelled_folder: Path, expertless_bundle: Path) -> None:
        evaluation = run(expertless_bundle, labelled_folder)
        assert evaluation.measure("cascade") == evaluation.measure("general")
        assert evaluation.measure().cost == 1.0
        assert evaluation.curve == ()


class TestFolders:
    def test_a_folder_without_splits_is_taken_whole(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        assert len({photo.split for photo in scan(labelled_folder).photos}) > 1  # scan would split it
        assert len(evaluate_folder(labelled_folder, bundle=tiny_bundle).photos) == 40

    def test_of_a_folder_with_splits_one_is_taken(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        data = labelled_folder.parent / "split"
        for index, path in enumerate(sorted(labelled_folder.rglob("*.png"))):
            target = data / ("train" if index % 4 else "test") / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        assert len(evaluate_folder(data, bundle=tiny_bundle).photos) == 10
        assert len(evaluate_folder(data, bundle=tiny_bundle, split="train").photos) == 30
        with pytest.raises(DataError, match=r"no photos in calibration/.*--split \(train, test\)"):
            evaluate_folder(data, bundle=tiny_bundle, split="calibration")
        with pytest.raises(UsageError, match="choose one of train, calibration, test"):
            evaluate_folder(data, bundle=tiny_bundle, split="dev")

    def test_unreadable_photos_are_counted_and_listed(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        (labelled_folder / "menu" / "broken.jpg").write_bytes(b"no photo at all")
        (labelled_folder / "menu" / "empty.jpg").write_bytes(b"")
        evaluation = evaluate_folder(labelled_folder, bundle=tiny_bundle)
        assert len(evaluation.photos) == 40
        [(photo, why)] = evaluation.failed
        assert (photo.path.name, photo.label, why.code) == ("broken.jpg", "menu", "not_an_image")
        assert [path.name for path, _ in evaluation.dropped] == ["empty.jpg"]
        assert json.loads(json.dumps(evaluation.to_dict()))["failed"][0]["code"] == "not_an_image"

    def test_a_heic_photo_stops_nothing(
        self, labelled_folder: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'cascade-vision[heic]'")
        path = scan(labelled_folder).photos[0].path.with_name("phone.heic")
        coffee = Image.new("RGB", (120, 80), (90, 60, 30))
        pillow_heif.from_pillow(coffee).save(path)
        evaluation = run(tiny_bundle, labelled_folder)
        place = [photo.path for photo in evaluation.photos].index(path)
        assert tuple(evaluation.sizes[place]) == coffee.size
        # Without the extra it is named and left out.
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        without = run(tiny_bundle, labelled_folder)
        ((photo, why),) = without.failed
        assert photo.path == path
        assert "cascade-vision[heic]" in why.message
        assert len(without.photos) == len(evaluation.photos) - 1

    def test_a_whole_batch_of_unreadable_photos_is_no_problem(
        self, labelled_folder: Path, tiny_bundle: Path
    ) -> None:
        (labelled_folder / "bedroom" / "0.png").write_bytes(b"x")
        evaluation = evaluate(Cascade(tiny_bundle), scan(labelled_folder).photos, batch_size=1)
        assert (len(evaluation.photos), len(evaluation.failed)) == (39, 1)
        assert "0.png" not in {p.path.name for p in evaluation.photos if p.label == "bedroom"}

    def test_nothing_readable_is_an_error(self, tmp_path: Path, tiny_bundle: Path) -> None:
        (tmp_path / "menu").mkdir()
        (tmp_path / "menu" / "a.jpg").write_bytes(b"x")
        with pytest.raises(DataError, match=r"none of the 1 photos.*a\.jpg: the content is not an image"):
            evaluate_folder(tmp_path, bundle=tiny_bundle)

    def test_labels_that_the_bundle_does_not_know(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        (labelled_folder / "forest").rename(labelled_folder / "Forests")
        (labelled_folder / "menu").rename(labelled_folder / "zebra")
        with pytest.raises(DataError, match=r"Forests \(did you mean forest\?\), zebra; it knows bedroom"):
            evaluate_folder(labelled_folder, bundle=tiny_bundle)

    def test_unknown_labels_of_another_split_do_not_matter(
        self, labelled_folder: Path, tiny_bundle: Path
    ) -> None:
        data = labelled_folder.parent / "split"
        shutil.copytree(labelled_folder, data / "test")
        shutil.copytree(labelled_folder / "menu", data / "train" / "zebra")
        (data / "train" / "zebra" / "other.png").write_bytes(
            (labelled_folder / "menu" / "0.png").read_bytes() + b" "
        )
        assert len(evaluate_folder(data, bundle=tiny_bundle).photos) == 40

    def test_progress_reaches_the_end(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        steps: list[tuple[int, int]] = []
        evaluate_folder(
            labelled_folder, bundle=tiny_bundle, progress=lambda done, total: steps.append((done, total))
        )
        done = [number for number, _ in steps]
        assert done == sorted(set(done))
        assert done[-1] == 40
        assert {total for _, total in steps} == {40}

    def test_sizes_are_upright(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        from PIL import Image

        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (90, 30), (220, 40, 40)).save(labelled_folder / "bedroom" / "turned.jpg", exif=exif)
        evaluation = evaluate_folder(labelled_folder, bundle=tiny_bundle)
        row = [photo.path.name for photo in evaluation.photos].index("turned.jpg")
        assert evaluation.sizes[row].tolist() == [30, 90]

    def test_misuse(self, tiny_bundle: Path, labelled_folder: Path) -> None:
        with pytest.raises(DataError, match="no photos to evaluate"):
            evaluate(Cascade(tiny_bundle), [])
        with pytest.raises(UsageError, match="batch_size is 0"):
            evaluate(Cascade(tiny_bundle), scan(labelled_folder).photos, batch_size=0)


class TestMadeWith:
    def test_photos_that_a_bundle_was_made_with_are_left_out(
        self, labelled_folder: Path, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        mine = shutil.copytree(tiny_bundle, tmp_path / "mine")
        manifest = json.loads((mine / "bundle.json").read_text(encoding="utf-8"))
        photos = scan(labelled_folder)
        corrupt = photos.photos[0]
        readable = Dataset(photos.folder, photos.photos[1:], ())
        manifest["provenance"]["data"] = {
            "fingerprint": readable.fingerprint(),
            "left_out": [[corrupt.path.relative_to(photos.folder).as_posix(), "corrupt"]],
        }
        (mine / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
        found = evaluate_folder(labelled_folder, bundle=mine)
        assert {photo.path for photo in found.photos} == {p.path for p in photos.split("test")}
        left_out = [path for path, why in found.dropped if why == "the bundle was made with it"]
        assert len(left_out) == len(photos.photos) - len(found.photos) > 0
        # One photo more makes it another folder: all of it is measured.
        (labelled_folder / corrupt.label / "more.png").write_bytes(Path(corrupt.path).read_bytes() + b"0")
        assert len(evaluate_folder(labelled_folder, bundle=mine).photos) == len(photos.photos) + 1


class TestResult:
    def test_shapes_are_checked(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        evaluation = run(tiny_bundle, labelled_folder)
        with pytest.raises(ValueError, match=r"truth has shape \(39,\), not \(40,\)"):
            dataclasses.replace(evaluation, truth=evaluation.truth[:-1])
        with pytest.raises(ValueError, match="at least one photo"):
            dataclasses.replace(evaluation, photos=())

    def test_what_one_expert_brings_is_counted_photo_by_photo(
        self, labelled_folder: Path, tiny_bundle: Path
    ) -> None:
        evaluation = run(tiny_bundle, labelled_folder)
        right, without = evaluation.right(), dict(evaluation.without)
        name, rows = next(iter(without.items()))
        changed = rows.copy()
        places = np.flatnonzero(right)[:3]  # three photos that would be wrong without this expert
        changed[places] = np.roll(changed[places], 1, axis=1)
        plain = evaluation.contribution(name)
        found = dataclasses.replace(evaluation, without=without | {name: changed}).contribution(name)
        assert (found.helped, found.harmed) == (plain.helped + 3, plain.harmed)
        assert f"cascade - without {name}: " in render_table(evaluation)

    def test_json_form(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        form = run(tiny_bundle, labelled_folder).to_dict()
        assert list(form) == [
            "bundle",
            "operating_point",
            "photos",
            "failed",
            "dropped",
            "ways",
            "cascade_minus_general",
            "cascade_minus_always",
            "without",
            "curve",
        ]
        assert list(form["ways"]) == ["general", "cascade", "always"]
        assert json.loads(json.dumps(form))["ways"]["cascade"]["accuracy_interval"] == list(
            form["ways"]["cascade"]["accuracy_interval"]
        )


class TestCommand:
    def test_prints_the_table(self, run_cli: Callable[..., Any], labelled_folder: Path) -> None:
        ran = run_cli("evaluate", labelled_folder)
        expected = render_table(evaluate_folder(labelled_folder))
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(expected)
        assert "nothing is promised" in ran.out.removeprefix(expected)

    def test_writes_json_and_report(
        self, run_cli: Callable[..., Any], labelled_folder: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
        ran = run_cli("evaluate", labelled_folder, "--json", "-", "--report", tmp_path / "out")
        assert ran.code == 0
        figures = json.loads(ran.out)
        report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
        assert [row["photos"] for row in figures.pop("promise")] == [40] * (1 + len(CORRUPTIONS))
        assert figures.pop("label_sets") == []
        assert figures.pop("generator").startswith("cascade ")
        assert figures == {key: report[key] for key in figures}
        assert (tmp_path / "out" / "report.html").is_file()

    def test_a_folder_that_does_not_fit_is_one_line(
        self, run_cli: Callable[..., Any], labelled_folder: Path
    ) -> None:
        (labelled_folder / "menu").rename(labelled_folder / "zebra")
        ran = run_cli("evaluate", labelled_folder)
        assert (ran.code, ran.out) == (2, "")
        assert "does not know these labels: zebra" in ran.err
        assert "Traceback" not in ran.err
