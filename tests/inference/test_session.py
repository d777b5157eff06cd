"""A session runs an image stage a few photos at a time, and that changes no answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cascade.bundle.manifest import Bundle
from cascade.inference.pipeline import Pipeline


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_give_what_the_whole_gives(shipped_bundle: Path, count: int) -> None:
    bundle = Bundle.load(shipped_bundle)
    session = Pipeline.of(bundle).session(bundle.general)
    spec = bundle.general.input
    assert spec is not None
    shape = (count, spec.height, spec.width, 3)
    images = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    whole = session.run({"image": images})
    parts = session.run_photos(images)
    assert list(parts) == list(whole)
    assert {"logits", "embedding"} <= set(parts)
    for name, values in whole.items():
        assert parts[name].shape == values.shape
        np.testing.assert_allclose(parts[name], values, atol=1e-4)


def test_a_batch_never_reaches_the_graph_whole(shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(shipped_bundle)
    session = Pipeline.of(bundle).session(bundle.general)
    spec = bundle.general.input
    assert spec is not None
    seen = []
    run = session.run

    def watched(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(len(feeds["image"]))
        return run(feeds)

    monkeypatch.setattr(session, "run", watched)
    session.run_photos(np.zeros((9, spec.height, spec.width, 3), dtype=np.uint8))
    assert sum(seen) == 9
    assert max(seen) <= 4
