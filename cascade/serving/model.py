"""Loads and checks the bundle of the service in the background, and answers with the options of a request."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade.bundle.manifest import Bundle
from cascade.classifier import Cascade
from cascade.errors import BundleError
from cascade.runs.rows import bundle_id

__all__ = ["ClassifyOptions", "NotReadyError", "ServedModel"]

_LOG: Final = logging.getLogger("cascade.serving")
#: Combinations of options that are kept; making one anew costs microseconds, the graphs are shared.
_REMEMBERED: Final = 64


class NotReadyError(Exception):
    """The bundle is still being loaded and verified."""


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """What a request may choose; None and the defaults are those of `Cascade`."""

    top_k: int = 5
    max_error: float | None = None
    budget: float | None = None
    label_set: float | None = None


class ServedModel:
    """One bundle, loaded once, with any options.

    Args:
        load: makes the classifier; called by `start` in a thread of its own.
        verify: whether to compare with the bundle's golden outputs first.

    Attributes:
        error: why loading failed; None while it has not.
    """

    def __init__(self, load: Callable[[], Cascade], *, verify: bool = True) -> None:
        self._load, self._verify = load, verify
        self._cascade: Cascade | None = None
        self._loader: threading.Thread | None = None
        self._bundle_id = ""
        self._lock = threading.Lock()
        self._views: OrderedDict[ClassifyOptions, Cascade] = OrderedDict()
        self.error: Exception | None = None

    def start(self, done: Callable[[], None] = lambda: None) -> None:
        """Begin to load; ``done`` is called, in that thread, when loading has ended either way."""

        def run() -> None:
            try:
                self.load()
            except Exception as error:
                self.error = error
            done()

        self._loader = threading.Thread(target=run, name="load", daemon=True)
        self._loader.start()

    def join(self, seconds: float) -> bool:
        """Wait for loading to end, and return whether it has."""
        if self._loader is not None:
            self._loader.join(seconds)
        return self._loader is None or not self._loader.is_alive()

    def load(self) -> None:
        """Load, verify and warm up.

        Raises:
            BundleError: when the bundle is damaged or does not compute here what it should.
        """
        started = time.perf_counter()
        cascade = self._load()
        if self._verify:
            _check(cascade)
        cascade.warm_up()
        self._bundle_id = bundle_id(cascade.bundle, cascade.variant)
        self._cascade = cascade
        _LOG.info("ready: %s after %.1f s", self._bundle_id, time.perf_counter() - started)

    @property
    def ready(self) -> bool:
        """Whether photos can be classified."""
        return self._cascade is not None

    @property
    def cascade(self) -> Cascade:
        """The classifier with the service's own options.

        Raises:
            NotReadyError: while it is being loaded.
        """
        if self._cascade is None:
            raise NotReadyError("the bundle is still being loaded and verified; try again in a moment")
        return self._cascade

    @property
    def bundle(self) -> Bundle:
        """The bundle; raises like `cascade`."""
        return self.cascade.bundle

    @property
    def bundle_id(self) -> str:
        """See `cascade.runs.rows.bundle_id`; raises like `cascade`."""
        return self._bundle_id if self.cascade else ""

    def with_options(self, options: ClassifyOptions) -> Cascade:
        """Return the classifier for a request's options; equal options give the same object.

        Raises:
            NotReadyError: while the bundle is being loaded.
            UsageError: when the bundle cannot give what is asked for.
        """
        if options == ClassifyOptions():
            return self.cascade
        with self._lock:
            found = self._views.get(options)
            if found is None:
                found = self.cascade.with_options(
                    max_error=options.max_error,
                    budget=options.budget,
                    label_set=options.label_set,
                    top_k=options.top_k,
                )
            self._views[options] = found
            self._views.move_to_end(options)
            if len(self._views) > _REMEMBERED:
                self._views.popitem(last=False)
            return found


def _check(cascade: Cascade) -> None:
    """Refuse graphs that compute here something else than where they were made."""
    from cascade.inference.golden_check import verify

    if not (Path(cascade.bundle.folder) / "golden" / "golden.json").is_file():
        _LOG.warning("the bundle has no golden outputs; it is served without a check")
        return
    for checked in verify(cascade.bundle):
        if checked.variant == cascade.variant and checked.problems:
            raise BundleError(
                f"{cascade.bundle.folder}: the variant {checked.variant!r} must not be used on this machine: "
                f"{'; '.join(checked.problems)}; see: cascade verify"
            )
