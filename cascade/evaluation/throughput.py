"""Measures how fast classifiers are on given photos, in turns, so that other load hits all alike."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cascade.classifier import Cascade
from cascade.errors import DataError, UsageError
from cascade.prediction import Prediction

__all__ = ["SHARES", "Throughput", "measure_throughput"]

#: What `Throughput.shares` tells apart; ``"rest"`` is router, arbiter and scope.
SHARES: Final = ("decode", "preprocess", "general", "experts", "rest")


@dataclass(frozen=True, slots=True)
class Throughput:
    """The throughput of one classifier.

    Attributes:
        photos_per_second: median over the rounds.
        rounds: photos per second of each round, in the order in which they ran.
        stage_ms: stage -> milliseconds of one worker per photo that the stage worked on.
        shares: key of `SHARES` -> share of a worker's time, summing to one.
        experts_per_photo: how many experts were asked about a photo, on average.
        cost: mean per photo, in units of one run of the general model.
        failed: photos that could not be read.
    """

    photos_per_second: float
    rounds: tuple[float, ...]
    stage_ms: Mapping[str, float]
    shares: Mapping[str, float]
    experts_per_photo: float
    cost: float
    failed: int

    def __post_init__(self) -> None:
        if not self.photos_per_second > 0 or not self.rounds:
            raise ValueError("a throughput needs at least one round and must be above 0")
        if set(self.shares) != set(SHARES) or abs(sum(self.shares.values()) - 1.0) > 1e-6:
            raise ValueError(f"shares must be those of {', '.join(SHARES)} and sum to one")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "photos_per_second": round(self.photos_per_second, 2),
            "rounds": [round(value, 2) for value in self.rounds],
            "stage_ms": {stage: round(value, 3) for stage, value in self.stage_ms.items()},
            "shares": {key: round(value, 4) for key, value in self.shares.items()},
            "experts_per_photo": round(self.experts_per_photo, 4),
            "cost": round(self.cost, 4),
            "failed": self.failed,
        }


def measure_throughput(
    cascades: Mapping[str, Cascade],
    photos: Sequence[Path],
    *,
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Throughput]:
    """Classify the photos with each classifier in turn, several times over.

    One round more is run first and not counted: it loads the graphs and brings the files into memory.

    Args:
        cascades: by the names that the result has.
        photos: paths; those that cannot be read are counted and otherwise left out of the results.
        rounds: at least 1.
        progress: called with the number of runs done and of all runs.

    Raises:
        DataError: when there are no photos, or none can be read.
        UsageError: when ``rounds`` is below 1.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}; it must be at least 1")
    if not photos:
        raise DataError("there are no photos to measure with; give a folder of photos")
    seconds: dict[str, list[float]] = {name: [] for name in cascades}
    answers: dict[str, list[Prediction]] = {name: [] for name in cascades}
    failed = dict.fromkeys(cascades, 0)
    for done in range(rounds + 1):
        for place, (name, cascade) in enumerate(cascades.items()):
            started = time.perf_counter()
            predictions = list(cascade.predict_many(photos))
            elapsed = time.perf_counter() - started
            good = [prediction for prediction in predictions if prediction.ok]
            if not good:
                first = predictions[0].error
                raise DataError(
                    f"none of the {len(photos)} photos can be read; the first: {predictions[0].path}: "
                    f"{first.message if first else ''}"
                )
            if done:
                seconds[name].append(elapsed)
                answers[name] += good
                failed[name] = len(predictions) - len(good)
            if progress is not None:
                progress(done * len(cascades) + place + 1, (rounds + 1) * len(cascades))
    return {
        name: _throughput(
            [(len(photos) - failed[name]) / s for s in seconds[name]],
            answers[name],
            {stage.name: stage.cost for stage in cascade.bundle.image_stages},
            failed[name],
        )
        for name, cascade in cascades.items()
    }


def _throughput(
    rounds: Sequence[float], answers: Sequence[Prediction], costs: Mapping[str, float], failed: int
) -> Throughput:
    total: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    experts = {opinion.name for prediction in answers for opinion in prediction.experts}
    for prediction in answers:
        stages = {stage: ms for stage, ms in prediction.ms.items() if stage != "total"}
        total.update(stages)
        seen.update(stages.keys())
    spent: Counter[str] = Counter()
    for stage, ms in total.items():
        spent["experts" if stage in experts else stage if stage in SHARES else "rest"] += ms
    everything = sum(spent.values())
    return Throughput(
        photos_per_second=statistics.median(rounds),
        rounds=tuple(rounds),
        stage_ms={stage: total[stage] / seen[stage] for stage in total},
        shares={key: spent[key] / everything for key in SHARES},
        experts_per_photo=statistics.mean(len(prediction.experts) for prediction in answers),
        cost=costs["general"]
        + statistics.mean(sum(costs[opinion.name] for opinion in p.experts) for p in answers),
        failed=failed,
    )
