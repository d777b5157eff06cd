"""The report: every figure is counted again by other means, and the page is whole, closed and escaped."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Ran

from cascade import Cascade
from cascade.errors import OutputError
from cascade.evaluation.corruptions import CORRUPTIONS
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate, evaluate_folder
from cascade.evaluation.report import prepare_report, render_table, write_report
from cascade.evaluation.report.analysis import SIZES, analyse
from cascade.evaluation.report.photo_csv import photo_rows
from cascade.evaluation.results import Evaluation

_VOID = {"meta", "img", "br", "link", "path", "use", "rect"}


@pytest.fixture(scope="module")
def evaluation(two_expert_bundle: Path, labelled_photos: Path) -> Evaluation:
    return evaluate(Cascade(two_expert_bundle), scan(labelled_photos).photos)


@pytest.fixture(scope="module")
def plain(expertless_bundle: Path, labelled_photos: Path) -> Evaluation:
    return evaluate(Cascade(expertless_bundle), scan(labelled_photos).photos)


class Page(HTMLParser):
    """Collects what a browser would load and show, and which tags are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.anchors.append(value or "")
            elif name in ("src", "href", "xlink:href", "action", "data"):
                self.loads.append(value or "")
        assert tag not in ("script", "iframe", "object", "embed", "link")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += " " + data


def page_of(evaluation: Evaluation, folder: Path) -> Page:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    return Page(write_report(evaluation, folder).read_text(encoding="utf-8"))


class TestAnalysis:
    def test_confusions_are_counted_again(self, evaluation: Evaluation) -> None:
        labels = evaluation.bundle.tree.labels
        pairs = Counter(
            (photo.label, labels[column])
            for photo, column in zip(evaluation.photos, evaluation.predicted(), strict=True)
        )
        wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
        assert wrong
        found = analyse(evaluation)["confusions"]
        assert {(c["label"], c["predicted"]): c["photos"] for c in found} == wrong
        assert [c["photos"] for c in found] == sorted(wrong.values(), reverse=True)
        for confusion in found:
            assert confusion["share_of_label"] == pytest.approx(confusion["photos"] / 8)
            for place in confusion["examples"]:
                assert evaluation.photos[place].label == confusion["label"]
                assert labels[evaluation.predicted()[place]] == confusion["predicted"]

    def test_pairs(self, evaluation: Evaluation) -> None:
        found = analyse(evaluation)
        both_ways = Counter()
        for confusion in found["confusions"]:
            both_ways[frozenset((confusion["label"], confusion["predicted"]))] += confusion["photos"]
        assert {frozenset(pair["labels"]): sum(pair["confused"]) for pair in found["pairs"]} == both_ways
        columns = {label: column for column, label in enumerate(evaluation.bundle.tree.labels)}
        for pair in found["pairs"]:
            apart = []
            for photo, row in zip(evaluation.photos, evaluation.probabilities["cascade"], strict=True):
                if photo.label in pair["labels"]:
                    [other] = set(pair["labels"]) - {photo.label}
                    apart.append(row[columns[photo.label]] > row[columns[other]])
            assert pair["photos"] == len(apart)
            assert pair["cascade"] == pytest.approx(np.mean(apart))

    def test_pairs_that_the_recipe_watches_come_first_however_rarely_confused(
        self, evaluation: Evaluation
    ) -> None:
        before = analyse(evaluation)["pairs"]
        assert not any(pair["watched"] for pair in before)
        confused = {frozenset(pair["labels"]) for pair in before}
        labels = sorted({photo.label for photo in evaluation.photos})
        calm = next(p for p in itertools.combinations(labels, 2) if frozenset(p) not in confused)
        card = {"pairs": f"{calm[1]} {calm[0]}, {' '.join(before[-1]['labels'])}"}
        bundle = dataclasses.replace(evaluation.bundle, provenance={"recipes": {"general": {"card": card}}})
        found = analyse(dataclasses.replace(evaluation, bundle=bundle))["pairs"]
        assert [set(pair["labels"]) for pair in found[:2]] == [set(before[-1]["labels"]), set(calm)]
        assert [pair["watched"] for pair in found[:3]] == [True, True, False]
        assert len(found) == len(before) + 1

    def test_routing_is_counted_again_with_the_cascade_itself(
        self, evaluation: Evaluation, two_expert_bundle: Path, tmp_path: Path
    ) -> None:
        """An expert helps where the answer is wrong when the same router may ask only the other one."""
        answers = {
            "both": [p.top[0][0] for p in Cascade(two_expert_bundle).predict_many(paths(evaluation))],
        }
        for column, (name, other) in enumerate((("rooms", "more"), ("more", "rooms"))):
            home = tmp_path / f"without-{name}"
            shutil.copytree(two_expert_bundle, home)
            manifest = json.loads((home / "bundle.json").read_text())
            # What one costs too much to be asked: no gain reaches it.
            manifest["stages"]["experts"][column]["cost"] = 1e9
            manifest["operating_points"]["default"]["cost_weight"] = 1e-9
            (home / "bundle.json").write_text(json.dumps(manifest))
            answers[other] = [p.top[0][0] for p in Cascade(home).predict_many(paths(evaluation))]
        truth = [photo.label for photo in evaluation.photos]
        experts = analyse(evaluation)["routing"]["experts"]
        assert [expert["name"] for expert in experts] == ["rooms", "more"]
        for expert, other in zip(experts, ("more", "rooms"), strict=True):
            triples = list(zip(truth, answers["both"], answers[other], strict=True))
            assert expert["helped"] == sum(now == label != before for label, now, before in triples)
            assert expert["harmed"] == sum(before == label != now for label, now, before in triples)
            assert expert["asked"] == evaluation.deferred["cascade"][:, experts.index(expert)].sum()
            if expert["asked"]:
                gain = (expert["helped"] - expert["harmed"]) / expert["asked"]
                assert expert["seen_gain"] == pytest.approx(gain)
        assert any(expert["helped"] or expert["harmed"] for expert in experts)

    def test_photos_by_experts_asked(self, evaluation: Evaluation) -> None:
        routing = analyse(evaluation)["routing"]
        counts = Counter(len(p.experts) for p in Cascade(evaluation.bundle).predict_many(paths(evaluation)))
        assert routing["photos_by_experts_asked"] == [counts[n] for n in range(3)]
        difference = evaluation.difference("cascade", "always")
        assert (routing["missed"], routing["spared"]) == (difference.helped, difference.harmed)

    def test_answers_are_those_of_the_policy(self, evaluation: Evaluation) -> None:
        tree = evaluation.bundle.tree
        given = Counter()
        right = Counter()
        for photo, answer in zip(
            evaluation.photos, Cascade(evaluation.bundle).predict_many(paths(evaluation)), strict=True
        ):
            given[answer.reason] += 1
            right[answer.reason] += answer.label in (photo.label, tree.parent_of[photo.label])
        rows = analyse(evaluation)["answers"]
        assert {row["reason"]: row["photos"] for row in rows if row["photos"]} == given
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        for row in rows:
            if row["reason"] == "doubtful" or not row["photos"]:
                assert row["accuracy"] is None
            else:
                assert row["accuracy"] == pytest.approx(right[row["reason"]] / row["photos"])

    def test_breakdowns(self, evaluation: Evaluation) -> None:
        photos = tuple(
            dataclasses.replace(photo, source="phone" if photo.label == "menu" else "")
            for photo in evaluation.photos
        )
        found = analyse(dataclasses.replace(evaluation, photos=photos))
        assert [(row["name"], row["photos"]) for row in found["sources"]] == [("unknown", 32), ("phone", 8)]
        assert {row["name"]: row["photos"] for row in found["groups"]} == {
            "indoor": 16,
            "outdoor": 16,
            "menu": 8,
        }
        menu = np.array([photo.label == "menu" for photo in photos])
        phone = found["sources"][1]
        assert phone["cascade"] == pytest.approx(evaluation.right()[menu].mean())
        assert phone["general"] == pytest.approx(evaluation.right("general")[menu].mean())
        assert phone["deferral_rate"] == pytest.approx(
            evaluation.deferred["cascade"][menu].any(axis=1).mean()
        )

    def test_no_sources_no_breakdown(self, evaluation: Evaluation) -> None:
        assert analyse(evaluation)["sources"] == []

    def test_sizes_are_classed_by_the_shorter_side(self, evaluation: Evaluation) -> None:
        sides = [159, 160, 319, 320, 640, 1279, 1280, 4000]
        sizes = np.array([(side, 5000) for side in sides] + [(5000, 10)] * (40 - len(sides)))
        found = analyse(dataclasses.replace(evaluation, sizes=sizes))["sizes"]
        assert [row["name"] for row in found] == list(SIZES)
        assert [row["photos"] for row in found] == [33, 2, 1, 2, 2]

    def test_labels_add_up(self, evaluation: Evaluation) -> None:
        rows = analyse(evaluation)["labels"]
        assert sum(row["photos"] for row in rows) == sum(row["predicted"] for row in rows) == 40
        assert sum(row["correct"] for row in rows) == evaluation.right().sum()
        assert [row["f1"] for row in rows] == sorted(row["f1"] for row in rows)
        for row in rows:
            low, high = row["f1_interval"]
            assert low <= row["f1"] <= high

    def test_a_label_without_photos_and_answers_is_left_out(self, evaluation: Evaluation) -> None:
        keep = [place for place, photo in enumerate(evaluation.photos) if photo.label in ("menu", "bedroom")]
        part = subset(evaluation, keep)
        assert all(row["photos"] or row["predicted"] for row in analyse(part)["labels"])
        json.dumps(analyse(part), allow_nan=False)

    def test_json_has_no_nan(self, evaluation: Evaluation, plain: Evaluation) -> None:
        for one in (evaluation, plain, subset(evaluation, [0])):
            json.dumps(analyse(one), allow_nan=False)


class TestPage:
    def test_is_whole_closed_and_self_contained(self, evaluation: Evaluation, tmp_path: Path) -> None:
        page = page_of(evaluation, tmp_path / "out")
        assert page.open == []
        assert page.loads
        assert all(target.startswith(("data:image/", "#")) for target in page.loads)
        assert {anchor.lstrip("#") for anchor in page.anchors} <= set(page.ids)
        for section in ("ways", "answers", "routing", "labels", "confusions", "mistakes", "where"):
            assert section in page.ids

    def test_shows_the_figures_of_the_json(self, evaluation: Evaluation, tmp_path: Path) -> None:
        page = page_of(evaluation, tmp_path)
        found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        nothing_proved = {"promise": [], "label_sets": []}
        assert found.pop("generator").startswith("cascade ")
        assert found == json.loads(json.dumps(analyse(evaluation))) | nothing_proved
        for system in ("general", "cascade", "always"):
            assert f"{100 * found['ways'][system]['accuracy']:.1f}" in page.text
            assert f"{found['ways'][system]['cost']:.2f}" in page.text
        words = re.sub(r"\s+", " ", page.text)
        for expert in found["routing"]["experts"]:
            assert f"{expert['name']} {expert['cost']:.2f} {expert['asked']} " in words

    def test_names_are_escaped(self, tiny_bundle: Path, photo: Callable[..., Path], tmp_path: Path) -> None:
        evil = "<img src=x onerror=alert(1)>&amp;.png"
        photo(f"data/bedroom/{evil}", "forest")
        photo("data/forest/fine.png", "forest")
        (tmp_path / "data" / "forest" / "<script>.jpg").write_bytes(b"x")
        page = page_of(evaluate_folder(tmp_path / "data", bundle=tiny_bundle), tmp_path / "out")
        assert "x" not in page.loads
        assert "<script>.jpg" in page.text

    def test_a_photo_that_is_gone_leaves_a_gap(self, evaluation: Evaluation, tmp_path: Path) -> None:
        gone = tuple(dataclasses.replace(one, path=tmp_path / one.path.name) for one in evaluation.photos)
        page = page_of(dataclasses.replace(evaluation, photos=gone), tmp_path / "out")
        assert "not readable now" in page.text
        assert not any(target.startswith("data:image/jpeg") for target in page.loads)

    def test_without_experts(self, plain: Evaluation, tmp_path: Path) -> None:
        page = page_of(plain, tmp_path)
        assert "routing" not in page.ids
        assert "all experts" not in page.text
        assert page.open == []

    def test_the_same_evaluation_gives_the_same_files(self, evaluation: Evaluation, tmp_path: Path) -> None:
        page_of(evaluation, tmp_path / "one")
        page_of(evaluation, tmp_path / "two")
        for name in ("report.html", "report.json", "photos.csv"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_a_single_photo_is_enough(self, evaluation: Evaluation, tmp_path: Path) -> None:
        assert page_of(subset(evaluation, [3]), tmp_path).open == []

    def test_missing_extra_is_said_before_the_work(
        self,
        run_cli: Callable[..., Ran],
        labelled_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "jinja2" else find(name, *rest)
        )
        monkeypatch.setattr(
            "cascade.evaluation.evaluate.evaluate_folder", lambda *_, **__: pytest.fail("work began")
        )
        ran = run_cli("evaluate", labelled_folder, "--report", tmp_path / "out")
        assert ran.code == 2
        assert "cascade-vision[report]" in ran.err
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_made_is_said_before_the_work(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OutputError, match="cannot be made"):
            prepare_report(tmp_path / "file" / "out")

    def test_a_file_that_cannot_be_written(self, evaluation: Evaluation, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
        (tmp_path / "photos.csv").mkdir()
        with pytest.raises(OutputError, match="is a folder"):
            write_report(evaluation, tmp_path)


def test_the_table_needs_no_extra() -> None:
    """The light install evaluates without matplotlib and jinja2; the page imports them when it is written."""
    code = (
        "import sys, cascade.evaluation.evaluate; sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with_extra = code.replace("cascade.evaluation.evaluate", "cascade.evaluation.report.plots")
    assert subprocess.run([sys.executable, "-c", with_extra], check=False).returncode == 1


class TestDial:
    def test_the_curve_is_the_bundles_dial(
        self, dial_bundle: Path, labelled_photos: Path, tmp_path: Path
    ) -> None:
        evaluation = evaluate(Cascade(dial_bundle, budget=0.5), scan(labelled_photos).photos)
        text = write_page(evaluation, tmp_path)
        assert [point.budget for point in evaluation.curve] == [0.0, 0.5, 1.0]
        cost = next(svg for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL) if "dial" in svg)
        texts = [found.strip() for found in re.findall(r"<text[^>]*>(.*?)</text>", cost, flags=re.DOTALL)]
        assert {"0.5", "1", "general alone", "cascade", "all experts always"} <= set(texts)
        assert "other budgets" in text

    def test_without_a_dial_the_line_is_of_prices(self, evaluation: Evaluation, tmp_path: Path) -> None:
        assert {point.budget for point in evaluation.curve} == {None}
        assert "other prices on asking" in write_page(evaluation, tmp_path)


class TestPromise:
    def test_the_page_shows_what_the_command_prints(
        self, run_cli: Callable[..., Ran], dial_bundle: Path, labelled_folder: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
        home = tmp_path / "out"
        ran = run_cli(
            "evaluate", labelled_folder, "--bundle", dial_bundle, "--shifted", "8", "--report", home
        )
        assert ran.code == 0
        assert ran.err.splitlines()[-1] == f"report: {home / 'report.html'}"
        text = (home / "report.html").read_text(encoding="utf-8")
        assert "Promised: at most 25.0% of the answers are wrong, with 95% confidence" in text
        rows = json.loads((home / "report.json").read_text(encoding="utf-8"))["promise"]
        assert len(rows) == 1 + len(CORRUPTIONS)
        section = text[text.index('id="promise"') : text.index('id="routing"')]
        for row in rows:
            assert f"<td>{row['name']}</td>" in section
            assert row["name"] in ran.out
        printed = next(line for line in ran.out.splitlines() if line.startswith("as they are"))
        shown = f"{100 * rows[0]['error']:.1f}"
        assert shown in printed
        assert f">{shown}</td>" in section

    def test_without_a_proof_there_is_no_section(self, evaluation: Evaluation, tmp_path: Path) -> None:
        assert 'id="promise"' not in write_page(evaluation, tmp_path)


def write_page(evaluation: Evaluation, folder: Path) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    return write_report(evaluation, folder).read_text(encoding="utf-8")


class TestCsv:
    def test_one_row_per_photo(self, labelled_folder: Path, two_expert_bundle: Path, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
        (labelled_folder / "menu" / "broken.jpg").write_bytes(b"x")
        evaluation = evaluate_folder(labelled_folder, bundle=two_expert_bundle)
        write_report(evaluation, tmp_path / "out")
        with (tmp_path / "out" / "photos.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 41
        broken = rows[-1]
        assert (broken["status"], broken["error_code"], broken["answer"]) == ("error", "not_an_image", "")
        assert sum(int(row["cascade_right"]) for row in rows[:-1]) == evaluation.right().sum()
        mean = np.mean([float(row["cost"]) for row in rows[:-1]])
        assert mean == pytest.approx(evaluation.measure().cost)

    def test_rows_are_what_predict_says(self, evaluation: Evaluation) -> None:
        answers = Cascade(evaluation.bundle).predict_many(paths(evaluation))
        for row, answer in zip(photo_rows(evaluation), answers, strict=True):
            assert row["path"] == answer.path
            assert (row["answer"], row["reason"]) == (answer.label, answer.reason)
            assert row["confidence"] == pytest.approx(answer.confidence, abs=1e-5)
            assert row["asked"].split() == [opinion.name for opinion in answer.experts]
            for opinion in answer.experts:
                assert row[f"{opinion.name}_says"] == opinion.label
                assert row[f"{opinion.name}_confidence"] == pytest.approx(opinion.confidence, abs=1e-5)


class TestTable:
    def test_lines(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        (labelled_folder / "menu" / "bro\x1bken.jpg").write_bytes(b"x")
        text = render_table(evaluate_folder(labelled_folder, bundle=tiny_bundle))
        assert all(len(line) <= 100 for line in text.splitlines() if "ken.jpg" not in line)
        assert text.endswith("\n")
        assert "\x1b" not in text
        lines = text.splitlines()
        headings = " ".join(lines[0].split())
        assert headings == "top-1 % 95 % group % NLL Brier ECE % smECE % asked % cost"
        assert [line[:20].strip() for line in lines[2:5]] == [
            "general alone",
            "cascade",
            "all experts always",
        ]
        assert "40 photos, 5 labels, bundle tiny 1.2.3" in lines
        assert "1 could not be read:" in lines

    def test_figures(self, evaluation: Evaluation) -> None:
        line = render_table(evaluation).splitlines()[3].split()
        metrics = evaluation.measure()
        assert line[0] == "cascade"
        assert line[1] == f"{100 * metrics.accuracy:.1f}"
        assert line[-1] == f"{metrics.cost:.2f}"
        assert line[-2] == f"{100 * metrics.deferral_rate:.1f}"

    def test_without_experts_there_is_one_row(self, plain: Evaluation) -> None:
        text = render_table(plain)
        assert "general, no experts" in text
        assert "all experts" not in text
        assert "cascade -" not in text

    def test_long_lists_are_cut(self, labelled_folder: Path, tiny_bundle: Path) -> None:
        for index in range(14):
            (labelled_folder / "menu" / f"broken{index}.jpg").write_bytes(b"x%d" % index)
        text = render_table(evaluate_folder(labelled_folder, bundle=tiny_bundle))
        assert "14 could not be read:" in text
        assert text.count("broken") == 10
        assert text.endswith("and 4 more\n")


def paths(evaluation: Evaluation) -> list[Path]:
    return [photo.path for photo in evaluation.photos]


def subset(evaluation: Evaluation, places: list[int]) -> Evaluation:
    """The same evaluation of fewer photos."""

    def cut(arrays: dict) -> dict:
        return {name: array[places] for name, array in arrays.items()}

    return dataclasses.replace(
        evaluation,
        photos=tuple(evaluation.photos[place] for place in places),
        sizes=evaluation.sizes[places],
        truth=evaluation.truth[places],
        gain=evaluation.gain[places],
        expert_logits=cut(evaluation.expert_logits),
        deferred=cut(evaluation.deferred),
        probabilities=cut(evaluation.probabilities),
        without=cut(evaluation.without),
    )
