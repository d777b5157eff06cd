"""Choosing photos to label: doubtful ones, unlike each other, and as a run that `cascade review` opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cascade.review.active_choice import choose_photos, most_doubtful
from cascade.review.corrections import Change, CorrectionLog
from cascade.runs.read_rows import read_rows


def gradients(probabilities: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Return what `choose_photos` never builds, (N, L * D)."""
    a = probabilities.copy()
    a[np.arange(len(a)), a.argmax(1)] -= 1
    h = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    return np.einsum("nl,nd->nld", a, h).reshape(len(a), -1)


def test_each_photo_is_chosen_once_and_the_same_seed_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    p, h = rng.dirichlet(np.ones(5), 60), rng.normal(size=(60, 8))
    chosen = choose_photos(p, h, 20, seed=3)
    assert len(set(chosen.tolist())) == 20
    np.testing.assert_array_equal(chosen, choose_photos(p, h, 20, seed=3))
    assert sorted(choose_photos(p, h, 100).tolist()) == list(range(60))


def test_what_is_chosen_covers_the_gradients_better_than_chance_and_than_doubt_alone() -> None:
    rng = np.random.default_rng(1)
    # One crowd of doubtful look-alikes, and a few photos of ten other kinds, less doubtful.
    h = np.concatenate(
        [rng.normal(0, 0.02, (200, 16)) + np.eye(16)[0], np.repeat(np.eye(16)[3:13], 8, axis=0)]
    )
    p = np.concatenate([np.tile([0.34, 0.33, 0.33], (200, 1)), np.tile([0.6, 0.3, 0.1], (80, 1))])
    g = gradients(p, h)

    def farthest(chosen: np.ndarray) -> float:
        return float(np.linalg.norm(g[:, None] - g[chosen][None], axis=2).min(1).mean())

    ours = np.mean([farthest(choose_photos(p, h, 15, seed)) for seed in range(5)])
    chance = np.mean([farthest(np.random.default_rng(seed).permutation(280)[:15]) for seed in range(5)])
    assert ours < 0.5 * chance
    assert ours < 0.5 * farthest(most_doubtful(p, 15))


def test_certain_photos_are_not_chosen_before_doubtful_ones() -> None:
    h = np.random.default_rng(2).normal(size=(100, 6))
    p = np.tile([1.0, 0.0], (100, 1))
    p[:10] = [0.55, 0.45]
    assert set(choose_photos(p, h, 10).tolist()) == set(range(10))
    assert most_doubtful(p, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_command_writes_a_run_that_review_opens(
    run_cli: Callable, labelled_folder: Path, tmp_path: Path, kind: str
) -> None:
    run, chosen = tmp_path / f"run.{kind}", tmp_path / f"next.{kind}"
    assert run_cli("classify", labelled_folder, "-o", run, "-q").code == 0
    ran = run_cli("suggest", run, "--count", "7", "-o", chosen)
    assert ran.code == 0, ran.err
    assert "chose 7 of 40 photos" in ran.err
    rows = {row["path"]: row for row in read_rows(run)}
    found = list(read_rows(chosen))
    assert len({row["path"] for row in found}) == 7
    for row in found:
        assert row["label"] == rows[row["path"]]["label"]
        assert row["confidence"] == rows[row["path"]]["confidence"]
    assert run_cli("review", chosen, "--export", tmp_path / "none.csv").code == 0


def test_the_command_prints_paths_and_leaves_out_what_was_reviewed(
    run_cli: Callable, labelled_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.jsonl"
    assert run_cli("classify", labelled_folder, "-o", run, "-q").code == 0
    first = run_cli("suggest", run, "--count", "5", "-q").out.splitlines()
    assert len(first) == 5
    assert all(Path(path).is_file() for path in first)
    with closing(CorrectionLog(run.with_name("run.jsonl.corrections.sqlite"))) as log:
        log.append([Change(path, "accept", "bedroom", None, 0) for path in first], "ann")
    ran = run_cli("suggest", run, "--count", "35")
    assert "chose 35 of 35 photos" in ran.err
    assert not set(first) & set(ran.out.splitlines())


def test_what_cannot_be_suggested_is_said(run_cli: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run.jsonl"
    run.write_text(json.dumps({"path": "gone.jpg", "label": "bedroom", "confidence": 0.5}) + "\n")
    ran = run_cli("suggest", run)
    assert ran.code == 2
    assert "none of its photos is where it says" in ran.err
    run.write_text("")
    assert "holds no photo that has an answer" in run_cli("suggest", run).err
    assert "ends with .jsonl, .json or .csv" in run_cli("suggest", run, "-o", "next.txt").err
    (tmp_path / "mine.csv").write_text("my,own\n")
    assert "was not written by cascade" in run_cli("suggest", run, "-o", tmp_path / "mine.csv").err
