"""Holds what the user asked `cascade classify` for, and refuses what makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade.errors import UsageError
from cascade.ownership import check_file_target, check_pages_target, check_writable
from cascade.runs.gallery.plan import pages_folder
from cascade.runs.sorting import check_target
from cascade.storage.sources import is_local

__all__ = ["ENGINES", "LOCAL", "ClassifyOptions"]

#: What spreads the work: the threads of this process, or Ray.
LOCAL: Final = "local"
ENGINES: Final = (LOCAL, "ray")

_FORMAT_OF_SUFFIX: Final = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "table",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """The options of `cascade classify`; its --help says what each of them means.

    Raises:
        UsageError: when they contradict each other.
    """

    paths: tuple[str, ...]
    format_name: str | None
    output: str
    fields: str | None
    explain: bool
    bundle: Path | None
    ask: str
    operating_point: str
    max_error: float | None
    budget: float | None = None
    label_set: float | None
    top_k: int
    workers: int | None
    variant: str = "auto"
    max_pixels: int
    resume: bool
    restart: bool
    retry_failed: bool = False
    dry_run: bool = False
    by_content: bool
    watch: bool
    null: bool
    follow_links: bool
    hidden: bool
    archives: bool = False
    image_column: str | None = None
    gallery: Path | None
    sort_into: Path | None
    sort_mode: str
    yes: bool
    write_xmp: bool
    engine: str = LOCAL
    ray_address: str | None = None
    part_size: int | None = None
    quiet: bool
    verbose: int

    def __post_init__(self) -> None:
        problems = (
            (self.resume and self.restart, "--resume continues and --restart begins again; give one of them"),
            (
                self.output_path is None and (self.resume or self.restart),
                "--resume and --restart need a file; give one with --output",
            ),
            (
                self.retry_failed and not self.resume,
                "--retry-failed is about rows of an earlier run; give it with --resume",
            ),
            (self.dry_run and self.watch, "--watch has no end to foresee; leave out --dry-run"),
            (self.dry_run and self.from_list, "--dry-run needs files or folders; give them in place of -"),
            (
                self.engine == LOCAL
                and self.format_name is None
                and Path(self.output).suffix.lower() not in ("", *_FORMAT_OF_SUFFIX),
                f"{self.output}: rows are not written as {Path(self.output).suffix}; end the name with "
                ".jsonl, .json, .csv, .parquet or .txt (a table), or say what is meant with --format",
            ),
            (
                "-" in self.paths and len(self.paths) > 1,
                "- takes the paths from standard input; give it alone",
            ),
            self._needs_local_photos(),
            (
                self.null and not self.from_list,
                "--null is about the list on standard input; give - in place of paths",
            ),
            (
                self.row_format == "parquet" and self.output_path is None,
                "parquet cannot be written to standard output; give a file with --output",
            ),
            (
                self.fields is not None and self.row_format == "table",
                "--fields is about jsonl, csv and parquet; choose one of them with --format",
            ),
            (
                self.watch and self.from_list,
                "--watch needs folders to watch; give them in place of -",
            ),
            (self.yes and self.sort_into is None, "--yes confirms --sort-into; give a folder with it"),
            (
                self.gallery is not None and self.gallery.exists() and not (self.resume or self.restart),
                f"{self.gallery}: exists and is not overwritten; give another name to --gallery",
            ),
        )
        for wrong, text in (*self._engine_problems(), *problems):
            if wrong:
                raise UsageError(text)

    def _needs_local_photos(self) -> tuple[bool, str]:
        """Return whether an option works with local files and photos are none, and what to say then."""
        wanting = {
            "--gallery": self.gallery is not None,
            "--sort-into": self.sort_into is not None,
            "--write-xmp": self.write_xmp,
            "--watch": self.watch,
        }
        option = next((name for name, given in wanting.items() if given), None)
        other = next(
            (path for path in self.paths if not is_local(path)), "--archives" if self.archives else None
        )
        return option is not None and other is not None, (
            f"{option} works with photos that are files on this machine, and not with {other}; leave out one "
            "of them, or copy or unpack the photos first"
        )

    @property
    def local_only(self) -> bool:
        """Whether photos that are no files on this machine cannot be used."""
        return self.needs_all_rows or self.write_xmp

    def _engine_problems(self) -> Iterator[tuple[bool, str]]:
        """Yield (whether it is wrong, what to say) of what only one machine, or only an engine, can do."""
        if self.engine == LOCAL:
            for option, given in (("--ray-address", self.ray_address), ("--part-size", self.part_size)):
                yield given is not None, f"{option} is about clusters; give it with --engine ray"
            return
        engine = f"--engine {self.engine}"
        yield (
            self.output_path is None,
            f"{engine} writes many files; give a folder or a URL such as s3://bucket/rows with --output",
        )
        yield (
            self.format_name not in (None, "parquet"),
            f"{engine} writes Parquet; leave out --format",
        )
        alone = {
            "--by-content": self.by_content,
            "--watch": self.watch,
            "--dry-run": self.dry_run,
            "--retry-failed": self.retry_failed,
            "--gallery": self.gallery is not None,
            "--sort-into": self.sort_into is not None,
            "--write-xmp": self.write_xmp,
            "--archives": self.archives,
        }
        for option, given in alone.items():
            yield given, f"{option} works on one machine; leave it out, or leave out {engine}"

    @property
    def from_list(self) -> bool:
        """Whether paths come from standard input."""
        return self.paths == ("-",)

    @property
    def output_path(self) -> Path | None:
        """The output file; None is standard output."""
        return None if self.output == "-" else Path(self.output)

    @property
    def row_format(self) -> str:
        """The format of the rows."""
        if self.engine != LOCAL:
            return "parquet"
        return self.format_name or _FORMAT_OF_SUFFIX.get(Path(self.output).suffix.lower(), "table")

    def check_targets(self) -> None:
        """Make sure, before the work begins, that what is to be written after it can be written.

        Raises:
            OutputError: when something else is in the way, or a folder does not exist or may not be written.
            UsageError: when photos would be sorted into a folder that is classified.
        """
        roots = () if self.from_list else self.paths
        if self.gallery is not None:
            check_file_target(self.gallery, "--gallery")
            check_pages_target(pages_folder(self.gallery))
        if self.sort_into is not None:
            check_target(self.sort_into, roots)
        if self.write_xmp:
            for root in map(Path, roots):
                if root.exists():
                    check_writable(root if root.is_dir() else root.parent, "--write-xmp")

    @property
    def needs_all_rows(self) -> bool:
        """Whether something is done with every row after the run."""
        return self.gallery is not None or self.sort_into is not None

    def fingerprint(self, bundle_sha256: str, fields: tuple[str, ...], variant: str) -> dict[str, str]:
        """Return all that decides what a row says and how; a continued run must have the same.

        What only decides which photos can be read at all (--max-pixels) may change from run to run.
        ``variant`` is the one that runs: "auto" may be another one on another machine.
        """
        return {
            "bundle": bundle_sha256,
            "--format": self.row_format,
            "--fields": ",".join(fields),
            "--explain": str(self.explain),
            "--ask": self.ask,
            "the variant that runs": variant,
            "--operating-point": self.operating_point,
            "--max-error": str(self.max_error),
            "--budget": str(self.budget),
            "--label-set": str(self.label_set),
            "--top-k": str(self.top_k),
            "--by-content": str(self.by_content),
            "--image-column": str(self.image_column),
        }
