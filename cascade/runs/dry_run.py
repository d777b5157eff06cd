"""Says what `cascade classify` would read and write, and does nothing of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cascade.imaging.files import FindOptions, Found
from cascade.runs.durable_output import check_place, state_path
from cascade.runs.journal import Journal
from cascade.runs.options import ClassifyOptions
from cascade.runs.reading import Item, with_hashes

__all__ = ["dry_run"]


def dry_run(
    options: ClassifyOptions,
    fingerprint: Mapping[str, str],
    batches: Iterable[Iterable[Found]],
    find: FindOptions,
) -> list[str]:
    """Return what the command would do, line by line.

    Args:
        options: of the command.
        fingerprint: see `ClassifyOptions.fingerprint`.
        batches: the photos.
        find: how they are found; counts what is passed over.

    Raises:
        OutputError: when the output may not be written, as the run itself would say.
        UsageError: when the run that would be continued was started with other options.
    """
    output = options.output_path
    journal = None
    if output is not None:
        check_place(output, resume=options.resume, restart=options.restart)
        if options.resume and state_path(output).exists():
            journal = Journal(state_path(output), read_only=True)
            journal.compare(dict(fingerprint))
    to_read = done = 0
    found = (one for batch in batches for one in batch)
    for item in with_hashes(found) if options.by_content and journal is not None else map(Item, found):
        known = journal is not None and journal.is_done(
            item, by_content=options.by_content, retry_failed=options.retry_failed
        )
        done, to_read = done + known, to_read + (not known)
    if journal is not None:
        journal.close()
    lines = [f"would classify {to_read:,} photos" + (f"; {done:,} are done" if done else "")]
    passed = ", ".join(f"{what} {number:,}" for what, number in sorted(find.left_out.items()))
    if passed:
        lines.append(f"would pass over: {passed}")
    where = output or "standard output"
    lines.append(f"would write rows to {where} as {options.row_format}")
    if options.gallery is not None:
        lines.append(f"would write the gallery {options.gallery}")
    if options.sort_into is not None:
        asking = "" if options.yes else ", after asking"
        lines.append(f"would {options.sort_mode} photos into folders of {options.sort_into}{asking}")
    if options.write_xmp:
        lines.append("would write side-cars beside the photos")
    return lines
