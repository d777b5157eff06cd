"""Says what calibrating a bundle changed, on photos that fitted neither the old numbers nor the new ones."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.evaluation.dataset import Photo
from cascade.evaluation.results import Evaluation

__all__ = ["before_and_after", "one_source"]


def before_and_after(before: Evaluation, after: Evaluation) -> list[str]:
    """Return lines: accuracy, NLL and ECE before and after, and a warning for what became worse.

    Args:
        before: the old bundle on the held-out photos.
        after: the new bundle on the same photos.
    """
    lines = [f"on the {len(after.photos)} photos that were held out:"]
    old, new = before.measure("cascade"), after.measure("cascade")
    for name, metrics in (("before", old), ("after", new)):
        low, high = metrics.accuracy_interval
        lines.append(
            f"  {name:<6} {metrics.accuracy:.1%} right ({low:.1%} to {high:.1%}), NLL {metrics.nll:.3f}, "
            f"ECE {metrics.ece:.1%} ({metrics.ece_floor:.1%} by chance), cost {metrics.cost:.2f}"
        )
    if new.accuracy < old.accuracy or new.nll > old.nll:
        difference = after.right("cascade").mean() - before.right("cascade").mean()
        lines.append(
            f"warning: the new bundle is worse there (accuracy {difference:+.1%}, NLL "
            f"{new.nll - old.nll:+.3f}); keep the old one, or calibrate with more photos, of every "
            "label and source"
        )
    return lines


def one_source(photos: Sequence[Photo]) -> str | None:
    """Return a warning if all photos come from one source, as far as the data set says."""
    sources = {photo.source for photo in photos}
    if len(sources) == 1 and (source := sources.pop()):
        return (
            f"warning: all photos come from one source, {source}; on photos of other sources the new bundle "
            "may be worse than the old one"
        )
    return None
