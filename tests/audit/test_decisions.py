"""What is proposed, what a person may write, and the clean copy that follows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cascade.audit.apply import apply_decisions, plan_changes
from cascade.audit.decisions import Decision, propose, read_decisions, with_earlier, write_decisions
from cascade.audit.finding import Finding
from cascade.audit.listing import list_photos
from cascade.errors import DataError, OutputError, UsageError
from cascade.runs.sorting import undo_sorting


def finding(kind: str, path: str, score: float = 1.0, split: str = "train", **more: str) -> Finding:
    return Finding(kind, path, "bar", score, "because", split=split, **more)


def test_what_is_proposed() -> None:
    found = [
        finding("corrupt", "a"),
        finding("near_duplicate", "b", 0.9, other="c"),
        finding("mislabelled", "d", 0.97, suggested="lobby"),
        finding("mislabelled", "e", 0.8, suggested="lobby"),
        finding("outlier", "f", 0.9),
        finding("confusable", "", 0.5, other="lobby"),
    ]
    assert [one.action for one in propose(found)] == ["remove", "remove", "relabel", "keep", "keep"]
    measured = [finding(kind, "a", split="test") for kind in ("corrupt", "exact_duplicate", "mislabelled")]
    assert {one.action for one in propose(measured)} == {"keep"}


def test_decisions_survive_a_file_and_a_second_audit(tmp_path: Path) -> None:
    proposed = propose([finding("corrupt", "=a,b\n.jpg"), finding("outlier", "c")])
    write_decisions(tmp_path / "d.csv", proposed)
    assert read_decisions(tmp_path / "d.csv") == proposed
    changed = [Decision("keep", one.proposed, one.finding) for one in proposed]
    write_decisions(tmp_path / "d.csv", changed)
    again = propose([finding("corrupt", "=a,b\n.jpg"), finding("blank", "d")])
    assert [one.action for one in with_earlier(again, read_decisions(tmp_path / "d.csv"))] == [
        "keep",
        "remove",
    ]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("action", "delete", r"line 2: the action is 'delete'; it must be keep, relabel, remove"),
        ("action", "relabel", r"line 2: .*'suggested' must name a label"),
        ("kind", "ugly", r"line 2: unknown kind"),
        ("score", "high", r"line 2: "),
    ],
)
def test_a_wrong_line_is_named(column: str, value: str, message: str, tmp_path: Path) -> None:
    row = propose([finding("outlier", "a")])[0].to_dict() | {column: value}
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    with pytest.raises(DataError, match=message):
        read_decisions(tmp_path / "d.csv")


def test_another_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("path,label\na,b\n")
    with pytest.raises(DataError, match="has no column 'action'"):
        read_decisions(tmp_path / "d.csv")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    home = tmp_path / "data"
    for name in ("train/bar/a.jpg", "train/bar/b.jpg", "train/lobby/a.jpg", "test/bar/a.jpg"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "manifest.csv").write_text("file,source\ntrain/bar/a.jpg,phone\n")
    return home


def decide(data: Path, **actions: str) -> list[Decision]:
    names = {"a": "train/bar/a.jpg", "b": "train/bar/b.jpg", "t": "test/bar/a.jpg"}
    return [
        Decision(action, "keep", finding("mislabelled", str(data / names[name]), suggested="lobby"))
        for name, action in actions.items()
    ]


def files(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_the_clean_copy_and_its_undo(mode: str, data: Path, tmp_path: Path) -> None:
    before = files(data)
    plan = plan_changes(list_photos([data]), decide(data, a="relabel", b="remove"), edit_test=False)
    assert plan.changed == {"relabel": 1, "remove": 1}
    clean = tmp_path / "clean"
    done = apply_decisions(plan, clean, tmp_path / "manifest.csv", [data], mode=mode)
    assert (done.placed, done.missing) == (3, 0)
    assert done.undo_file is not None
    # The relabelled photo has the name of one that is there already.
    photos = {"train/lobby/a.jpg", "train/lobby/a (2).jpg", "test/bar/a.jpg"}
    assert files(clean) == {*photos, "manifest.csv", done.undo_file.name}
    assert (clean / "test/bar/a.jpg").is_symlink() == (mode == "link")
    again = {Path(photo.path).resolve().read_text(): photo for photo in list_photos([clean])}
    assert again["train/bar/a.jpg"].label == "lobby"
    assert again["train/bar/a.jpg"].source == "phone"
    with pytest.raises(OutputError, match="is not empty; take it back with cascade undo"):
        apply_decisions(plan, clean, tmp_path / "manifest.csv", [data])
    assert undo_sorting(done.undo_file).left == ()
    assert files(clean) == set()
    assert not any(clean.iterdir())
    assert files(data) == before


def test_test_photos_are_not_edited_silently(data: Path) -> None:
    photos, decisions = list_photos([data]), decide(data, t="remove")
    with pytest.raises(UsageError, match="change 1 photos of the split test"):
        plan_changes(photos, decisions, edit_test=False)
    assert plan_changes(photos, decisions, edit_test=True).measured == 1


def test_the_strongest_decision_about_a_photo_counts(data: Path) -> None:
    decisions = [*decide(data, a="relabel"), *decide(data, a="remove"), *decide(data, a="keep")]
    plan = plan_changes(list_photos([data]), decisions, edit_test=False)
    assert plan.changed == {"remove": 1}


def test_decisions_about_other_photos_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name none of these photos"):
        plan_changes(list_photos([data]), decide(tmp_path / "elsewhere", a="remove"), edit_test=False)
    plan = plan_changes(list_photos([data]), decide(data, a="keep"), edit_test=False)
    with pytest.raises(UsageError, match=r"--clean .* is inside"):
        apply_decisions(plan, data / "clean", tmp_path / "manifest.csv", [data])
