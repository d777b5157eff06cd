"""Measures time to the first answer, start-up time, sizes and memory of this clone, and prints a table.

    python benchmarks/footprint.py [--photos FOLDER] [--count 5000]

Needs the network (it installs the package into a fresh environment, as README's first command does) and the
package `build`. Memory is that of `cascade classify` over a few and over many photos.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "models" / "default" / "golden" / "coffee.png"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(p.stat().st_size for p in files) / 1e6


def peak_mb(command: list[str], **options: object) -> tuple[float, float]:
    """Run a command and return its peak resident memory in MB and its seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    usage_struct: resource.struct_rusage = usage
    return usage_struct.ru_maxrss / scale, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, help="folder of photographs; without it memory is not measured"
    )
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        environment = home / "environment"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = environment / "bin" / "python"
        bare = megabytes(environment)
        subprocess.run([str(python), "-m", "pip", "install", "-q", str(ROOT)], check=True)
        cascade = environment / "bin" / "cascade"
        subprocess.run([str(cascade), "classify", str(SAMPLE)], check=True, stdout=subprocess.DEVNULL)
        rows.append(("from nothing to the first answer", f"{time.perf_counter() - started:.0f} s", "60 s"))
        rows.append(("installed runtime", f"{megabytes(environment) - bare:.0f} MB", "300 MB"))

        times = sorted(peak_mb([str(cascade), "classify", str(SAMPLE)])[1] for _ in range(11))
        rows.append(("`cascade classify one.png`, whole process, median of 11", f"{times[5]:.2f} s", "1.0 s"))

        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", str(home / "dist"), str(ROOT)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rows.append(("wheel", f"{megabytes(next((home / 'dist').glob('*.whl'))):.1f} MB", "45 MB"))
        rows.append(("bundle", f"{megabytes(ROOT / 'models' / 'default'):.1f} MB", "60 MB"))

        if arguments.photos:
            found = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in SUFFIXES)
            for count in (arguments.count // 10, arguments.count):
                folder = home / f"photos{count}"
                folder.mkdir()
                for number, path in enumerate(islice(cycle(found), count)):
                    (folder / f"{number}{path.suffix}").symlink_to(path.resolve())
                listed = home / "list.txt"
                listed.write_text("".join(f"{p}\n" for p in sorted(folder.iterdir())))
                with listed.open() as names:
                    peak, seconds = peak_mb([str(cascade), "classify", "-", "--format", "jsonl"], stdin=names)
                rate = f"{peak:.0f} MB ({count / seconds:.0f} photos/s)"
                rows.append((f"peak memory of `cascade classify`, {count} photos", rate, "500 MB, flat"))
                shutil.rmtree(folder)
    width = max(len(row[0]) for row in rows)
    for what, value, limit in rows:
        print(f"{what:<{width}}  {value:<24} limit {limit}")


if __name__ == "__main__":
    main()
