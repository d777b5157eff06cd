"""A second audit reads only what changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_photos import scene

from cascade.audit.examine import Examiner
from cascade.audit.store import Store
from cascade.bundle.manifest import Bundle
from cascade.errors import OutputError


def test_what_was_found_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    examiner = Examiner(Bundle.load(tiny_bundle))
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(paths):
        scene(number).save(path)
    found = {path: examiner.examine(path) for path in paths}
    with Store(tmp_path / "seen", "model") as store:
        assert list(store.unknown(paths)) == paths
        store.add(found.items())
    with Store(tmp_path / "seen", "model") as store:
        assert list(store.unknown(paths)) == []
        assert [store.facts(path) for path in paths] == [one.facts for one in found.values()]
        expected = np.stack([one.embedding for one in found.values()])
        np.testing.assert_allclose(store.embeddings(paths), expected, atol=2e-3)
        np.testing.assert_array_equal(store.small(paths[1]), found[paths[1]].small)
        scene(9, (80, 60)).save(paths[1])
        assert list(store.unknown(paths)) == [paths[1]]
    with Store(tmp_path / "seen", "another model") as store:
        assert list(store.unknown(paths)) == paths


def test_a_store_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("no database, but longer than the header of one would be" * 3)
    with pytest.raises(OutputError, match=r"seen: .*delete it"):
        Store(tmp_path / "seen", "model")
