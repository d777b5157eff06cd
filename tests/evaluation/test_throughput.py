"""Speeds: what is counted, what adds up, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import COLOURS, INDOOR_COLOUR, Ran

from cascade import Cascade
from cascade.errors import DataError, UsageError
from cascade.evaluation.throughput import SHARES, Throughput, measure_throughput
from cascade.inference.routing import ASK_MODES

Photo = Callable[..., Path]


def test_every_classifier_is_measured_in_turns(tiny_bundle: Path, photo: Photo) -> None:
    paths = [photo(f"{i}.png", label) for i, label in enumerate(COLOURS)] + [photo("both.png", INDOOR_COLOUR)]
    broken = paths[0].with_name("broken.jpg")
    broken.write_bytes(b"no photo")
    steps: list[tuple[int, int]] = []
    cascades = {ask: Cascade(tiny_bundle, ask=ask, workers=2) for ask in ASK_MODES}
    speeds = measure_throughput(
        cascades, [*paths, broken], rounds=2, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 9) for done in range(1, 10)]
    for speed in speeds.values():
        assert len(speed.rounds) == 2
        assert min(speed.rounds) <= speed.photos_per_second <= max(speed.rounds)
        assert speed.failed == 1
        assert sum(speed.shares.values()) == pytest.approx(1.0)
        assert {"decode", "preprocess", "general", "arbiter"} <= set(speed.stage_ms)
    assert speeds["never"].experts_per_photo == 0
    assert speeds["never"].shares["experts"] == 0
    assert speeds["always"].experts_per_photo == 1
    assert speeds["always"].shares["experts"] > 0
    # One photo of the six is doubtful, and it alone is worth an expert.
    assert speeds["router"].experts_per_photo == pytest.approx(1 / 6)
    assert "rooms" in speeds["router"].stage_ms


def test_what_cannot_be_measured_is_refused(tiny_bundle: Path, photo: Photo, tmp_path: Path) -> None:
    cascades = {"router": Cascade(tiny_bundle)}
    with pytest.raises(DataError, match="no photos"):
        measure_throughput(cascades, [])
    with pytest.raises(UsageError, match="rounds"):
        measure_throughput(cascades, [photo()], rounds=0)
    with pytest.raises(DataError, match="none of the 1 photos can be read"):
        measure_throughput(cascades, [tmp_path / "missing.jpg"])


def test_a_speed_must_add_up() -> None:
    shares = dict.fromkeys(SHARES, 0.2)
    Throughput(10.0, (10.0,), {}, shares, 0.0, 1.0, 0)
    with pytest.raises(ValueError, match="sum to one"):
        Throughput(10.0, (10.0,), {}, shares | {"rest": 0.3}, 0.0, 1.0, 0)
    with pytest.raises(ValueError, match="round"):
        Throughput(10.0, (), {}, shares, 0.0, 1.0, 0)


def test_the_command_prints_a_table_and_json(run_cli: Callable[..., Ran], photo: Photo) -> None:
    folder = photo("in/one.png").parent
    photo("in/two.png", "forest")
    table = run_cli("benchmark", folder, "--rounds", "1", "--workers", "1")
    assert table.code == 0, table.err
    assert "photos per second" in table.out
    assert all(mode in table.out for mode in ASK_MODES)
    found = run_cli("benchmark", folder, "--rounds", "2", "--count", "1", "--json")
    document = json.loads(found.out)
    assert document["photos"] == 1
    assert set(document["ask"]) == set(ASK_MODES)
    assert len(document["ask"]["router"]["rounds"]) == 2


def test_the_command_says_what_is_missing(run_cli: Callable[..., Ran], tmp_path: Path) -> None:
    empty = run_cli("benchmark", tmp_path)
    assert empty.code == 2
    assert "no photos" in empty.err
    without = run_cli("benchmark")  # the tiny bundle has no sample photos
    assert without.code == 2
    assert "cascade benchmark FOLDER" in without.err
