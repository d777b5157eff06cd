"""Runs one ONNX graph on named arrays, after checking that it is the graph that the bundle promises.

onnxruntime's own threads spin while they wait, which costs more than it gives when several workers share
the cores; so a session runs on one thread and parallelism comes from running several photos at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cascade.arrays import Float32s
from cascade.bundle.graph_file import read_graph
from cascade.bundle.graph_safety import check_graph
from cascade.bundle.stage import Stage
from cascade.errors import BundleError
from cascade.onnx_runtime import ort

__all__ = ["GraphSession", "open_stage"]

#: Photos that an image stage sees at a time. The activations of more no longer fit a core's caches: with
#: EfficientNet-Lite0, 16 at a time take a quarter more time per photo than 2 (`benchmarks/batch_sizes.py`).
_PHOTOS_AT_A_TIME: Final = 2


class GraphSession:
    """An onnxruntime session that checks its own contract.

    Safe to share between threads.

    Args:
        path: the graph.
        inputs: names that the graph must take, no more and no fewer.
        outputs: names that it must give.
        threads: threads per run.
        content: of the file, if it was read already.

    Raises:
        BundleError: when the file is no graph or its inputs and outputs are others.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        threads: int = 1,
        content: bytes | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                content or str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many types, all meaning "cannot load"
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise BundleError(f"{path}: onnxruntime cannot load this graph ({first})") from error
        self.path = path
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        found_inputs = {item.name: item for item in self._session.get_inputs()}
        found_outputs = {item.name: item for item in self._session.get_outputs()}
        if set(found_inputs) != set(inputs) or not set(outputs) <= set(found_outputs):
            raise BundleError(
                f"{path}: the graph takes {sorted(found_inputs)} and gives {sorted(found_outputs)}, "
                f"but the bundle needs {sorted(inputs)} -> {sorted(outputs)}; export it again"
            )
        #: Last dimension of every output, where the graph fixes it.
        self.widths: dict[str, int | None] = {
            name: _last_dimension(found_outputs[name].shape) for name in outputs
        }
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float32s]:
        """Run the graph on named arrays and return its outputs by name."""
        values = self._session.run(list(self.outputs), dict(feeds))
        return dict(zip(self.outputs, values, strict=True))

    def run_photos(self, taken: npt.NDArray[Any]) -> dict[str, Float32s]:
        """Run an image stage on its one input, a few photos at a time.

        Args:
            taken: uint8 (N, H, W, 3), or float32 (N, C, H, W) of a stage that takes features; N above 0.
        """
        (name,) = self.inputs
        starts = range(0, len(taken), _PHOTOS_AT_A_TIME)
        parts = [self.run({name: taken[start : start + _PHOTOS_AT_A_TIME]}) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}


def open_stage(folder: Path, stage: Stage, inputs: Sequence[str], outputs: Sequence[str]) -> GraphSession:
    """Load a graph of a bundle after checking its hash, its operators and its number of labels.

    Args:
        folder: of the bundle.
        stage: its entry in the manifest.
        inputs: names that the graph must take.
        outputs: names that it must give; the first has one column per label.

    Raises:
        BundleError: when the graph is damaged, unsafe, or not what the manifest says.
    """
    path = folder / stage.file
    content = read_graph(folder, stage)
    check_graph(content, path)
    # What was checked is what is loaded, also when the file changes in the meantime.
    session = GraphSession(path, inputs, outputs, content=content)
    width = session.widths[outputs[0]]
    if width is not None and width != len(stage.labels):
        raise BundleError(
            f"{path}: gives {width} values per photo, but bundle.json names {len(stage.labels)} labels; "
            "graph and manifest are not from the same training run"
        )
    return session


def _last_dimension(shape: Sequence[Any]) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None
