"""Takes a cluster run from its listing to the rows of every photo, whatever stopped it before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part import STOP_FILE, PartTask, part_counts
from cascade.cluster.plan import Plan, Totals, part_name, part_number
from cascade.errors import OutputError, UsageError
from cascade.imaging.files import FindOptions, Found, printable
from cascade.storage.listing import can_continue
from cascade.storage.sources import photos_of

__all__ = ["MANIFEST_FILE", "ClusterRun", "Engine"]

#: What every finished part amounted to, one JSON object a line; written when a run ends.
MANIFEST_FILE: Final = "_cascade/manifest.jsonl"
#: Seconds between two looks whether the user wants an end.
_LOOK: Final = 0.2

#: Has `cascade.cluster.part.classify_part` classify the parts that are not in a set, and yields their counts.
Engine = Callable[[PartTask, frozenset[int]], Iterable[dict[str, Any]]]


class ClusterRun:
    """Lists photos, cuts the listing into parts, and has an engine classify those that have no rows yet.

    Args:
        folder: of the run, begun by `cascade.cluster.run_folder.begin`.
        task: for the workers.
        inputs: files and folders, or URLs; or photos that were listed already.
        find: what is looked at.
        part_size: photos in a part.
        stopped: whether the user asked for an end.

    Attributes:
        done_before: parts that earlier runs finished.
    """

    def __init__(
        self,
        folder: OutputFolder,
        task: PartTask,
        inputs: tuple[str, ...] | Iterator[Found],
        *,
        find: FindOptions,
        part_size: int,
        stopped: Callable[[], bool],
    ) -> None:
        self._folder, self._task, self._inputs, self._find = folder, task, inputs, find
        self._size, self._stopped = part_size, stopped
        self._plan = Plan(folder)
        self._totals: Totals | None = self._plan.totals()
        self._listed, self._finished, self._begun = threading.Event(), threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self.done_before = frozenset(self._parts())
        folder.remove(STOP_FILE)

    def _parts(self) -> Iterator[int]:
        return (n for name in self._folder.names() if (n := part_number(name)) is not None)

    def photos_to_do(self) -> int:
        """Return how many photos this run classifies; waits until all are listed."""
        self._listed.wait()
        return 0 if self._totals is None else self._totals.photos - self.photos_done_before()

    def photos_done_before(self) -> int:
        """Return how many photos earlier runs classified."""
        count = len(self.done_before) * self._size
        if self._totals is not None and self._totals.parts - 1 in self.done_before:
            count += self._totals.photos - self._totals.parts * self._size  # the last part is a shorter one
        return count

    @property
    def left_out(self) -> dict[str, int]:
        """Reason -> files that are no photos to classify."""
        return {} if self._totals is None else self._totals.left_out

    def run(self, engine: Engine) -> Iterator[dict[str, Any]]:
        """Yield the counts of each part when it is finished; write the manifest in the end.

        Raises:
            UsageError: when there are no photos, or they cannot be listed.
            OutputError: when parts remain without rows.
            CascadeError: what a worker raised.
        """
        thread = threading.Thread(target=self._list_and_watch, name="list", daemon=True)
        thread.start()
        try:
            self._begun.wait()
            if self._error is None:
                yield from self._classify(engine)
        finally:
            self._finished.set()
            thread.join()
            self._folder.remove(STOP_FILE)
        if self._error is not None:
            raise self._error

    def _classify(self, engine: Engine) -> Iterator[dict[str, Any]]:
        done: dict[int, dict[str, Any]] = {}
        while True:
            before = len(done)
            for counts in engine(self._task, self.done_before | done.keys()):
                if "stopped" not in counts:
                    done[counts["part"]] = counts
                    yield counts
            if self._stopped() or self._error is not None:
                return
            assert self._totals is not None  # the engine ends when the listing has
            missing = set(range(self._totals.parts)) - set(self._parts())
            if not missing:
                self._write_manifest(done)
                return
            if len(done) == before:
                raise OutputError(
                    f"{self._folder.url}: {len(missing):,} parts have no rows, the first is "
                    f"{part_name(min(missing))}; give the same command with --resume"
                )

    def manifest(self) -> list[dict[str, Any]]:
        """Return what every part amounted to, as the finished run wrote it; empty while it is unfinished."""
        content = self._folder.read(MANIFEST_FILE) or b""
        return [json.loads(line) for line in content.splitlines()]

    def _write_manifest(self, done: dict[int, dict[str, Any]]) -> None:
        old = sorted(self.done_before - done.keys())
        with ThreadPoolExecutor(8, thread_name_prefix="manifest") as pool:
            counts = dict(zip(old, pool.map(lambda n: part_counts(self._folder, n), old), strict=True))
        lines = [
            json.dumps({"file": part_name(number), **(found or {})}) + "\n"
            for number, found in sorted((counts | done).items())
        ]
        self._folder.write(MANIFEST_FILE, "".join(lines).encode())

    def _list_and_watch(self) -> None:
        """Plan the parts, then wait for the end; the user's wish to stop is told to the workers."""
        try:
            if self._totals is None:
                self._totals = self._list()
        except BaseException as error:  # raised again by `run`
            self._error = error
        self._listed.set()
        self._begun.set()
        while not self._finished.wait(_LOOK):
            if self._stopped() or self._error is not None:
                self._folder.write(STOP_FILE, b"")
                return

    def _list(self) -> Totals | None:
        count, after = self._plan.count(), None
        if count and isinstance(self._inputs, tuple) and can_continue(self._inputs):
            after = self._plan.photos(count - 1)[-1].path
            self._begun.set()
        elif count:
            # Parts are classified only when such a listing is complete, so nothing is lost.
            self._plan.clear()
            count = 0
        totals = self._plan.extend(
            self._found(after),
            size=self._size,
            left_out=lambda: dict(self._find.left_out),
            stopped=self._planned,
            first=count,
            photos=count * self._size,
        )
        if totals is not None and totals.parts == 0:
            self._plan.clear()
            names = ", ".join(map(printable, self._inputs)) if isinstance(self._inputs, tuple) else "the list"
            passed = ", ".join(f"{what} {number:,}" for what, number in self._find.left_out.items())
            advice = f" (passed over: {passed})" if passed else ""
            if self._find.left_out["archives"]:
                advice += "; archives are read on one machine, without --engine: docs/archives.md"
            raise UsageError(f"{names}: holds no photos; give a folder or a prefix that does{advice}")
        return totals

    def _found(self, after: str | None) -> Iterator[Found]:
        return photos_of(self._inputs, self._find, after) if isinstance(self._inputs, tuple) else self._inputs

    def _planned(self) -> bool:
        """Note that there is a part, and tell whether to stop listing."""
        if isinstance(self._inputs, tuple) and can_continue(self._inputs):
            self._begun.set()
        return self._stopped() or self._finished.is_set()
