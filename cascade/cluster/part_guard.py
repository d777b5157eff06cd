"""Finds the photo that ends the worker process, so that one photo cannot stop a part for ever.

Engines start a part again when its worker dies. While a part is in work a small file beside it says so. A
worker that finds this file, left by another worker of the same run, reads the photos one at a time and notes
each before it reads it. A photo at which workers died three times gets a row that says so and is passed over:
fewer would blame photos for machines that were taken away. `cascade.runs.crash_guard` does it on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.partition import Photo
from cascade.errors import ImageError

__all__ = ["PartGuard"]

_DEATHS: Final = 3
_KILLED: Final = ImageError(
    "killed",
    f"the worker process died {_DEATHS} times while it read this photo, probably for lack of memory; "
    "it is passed over",
)


class PartGuard:
    """Notes that a part is in work; see the module.

    Args:
        folder: of the run.
        number: of the part.
        run: what an earlier run left means nothing: it was stopped as a whole.
    """

    def __init__(self, folder: OutputFolder, number: int, run: str) -> None:
        self._folder, self._name = folder, f"_cascade/begun/{number:06d}.json"
        content = folder.read(self._name)
        left: dict[str, Any] = json.loads(content) if content else {}
        #: Whether a worker died in this part before.
        self.suspicious = left.get("run") == run
        self._note: dict[str, Any] = {"run": run, "position": None, "deaths": {}}
        if self.suspicious:
            self._note["deaths"] = left["deaths"]
            if left["position"] is not None:
                place = str(left["position"])
                self._note["deaths"][place] = self._note["deaths"].get(place, 0) + 1
        self._keep()

    def watch(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """Yield the photos, each after it was noted, and those at which workers died with an error."""
        for position, photo in enumerate(photos):
            if self._note["deaths"].get(str(position), 0) >= _DEATHS:
                yield replace(photo, content=None, error=_KILLED)
                continue
            self._note["position"] = position
            self._keep()
            yield photo

    def done(self) -> None:
        """Note that the part has its rows."""
        self._folder.remove(self._name)

    def _keep(self) -> None:
        self._folder.write(self._name, json.dumps(self._note).encode())
