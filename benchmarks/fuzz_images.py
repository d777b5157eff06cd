"""Damage real image files in many ways and read them: each must give an image or an `ImageError`.

    python benchmarks/fuzz_images.py [--cases 6000] [--seed 1] [--keep DIR]

A case is one of sixteen files (a photograph in every format and several of their kinds), mutated by a
seeded generator: bytes flipped or overwritten, the end cut off, parts copied, removed or spliced in from
another file, numbers in the header set to extremes. Cases run in a process of their own, so that a crash
or a hang of a decoder is counted and the run goes on.

Exit code 1 if there was a crash, a case over the time limit, another exception than `ImageError`, or memory
that grows.
"""

from __future__ import annotations

import argparse
import io
import json
import queue
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageCms

PHOTO = Path(__file__).resolve().parents[1] / "tests" / "data" / "coffee.jpg"
LIMIT_S = 5.0
#: Growth from the second fifth of the cases to the last. What decoders keep for reuse is there by then.
GROWTH_LIMIT_MB = 50
#: Photos above this are refused by their header; it bounds what one case may take in memory and time.
MAX_PIXELS = 50_000_000

#: Numbers at their limits, and markers of JPEG and PNG.
INTERESTING = (
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x01",
    b"\xff\xff", b"\x00\x00", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xe1", b"IDAT", b"iCCP",
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Return name -> file. Small, so that a mutation is likely to hit something that matters."""
    with Image.open(PHOTO) as original:
        photo = original.convert("RGB").resize((240, 160), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    clear = photo.convert("RGBA")
    clear.putalpha(photo.convert("L"))
    wide = photo.convert("L").convert("I").point(lambda v: v * 257).convert("I;16")
    kinds: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("jpeg", photo, "JPEG", {"quality": 85, "exif": exif, "icc_profile": profile}),
        ("jpeg progressive", photo, "JPEG", {"quality": 85, "progressive": True}),
        ("jpeg cmyk", photo.convert("CMYK"), "JPEG", {}),
        ("jpeg grey", photo.convert("L"), "JPEG", {}),
        ("png", photo, "PNG", {"exif": exif, "icc_profile": profile}),
        ("png palette", photo.quantize(64), "PNG", {"transparency": bytes(range(64))}),
        ("png alpha", clear, "PNG", {}),
        ("png 16 bit", wide, "PNG", {}),
        ("webp", photo, "WEBP", {"exif": exif}),
        ("webp lossless", clear, "WEBP", {"lossless": True}),
        ("tiff", photo, "TIFF", {"exif": exif}),
        ("tiff lzw", photo, "TIFF", {"compression": "tiff_lzw"}),
        ("gif", photo, "GIF", {"save_all": True, "append_images": [photo.rotate(90)]}),
        ("bmp", photo, "BMP", {}),
    ]
    Image.init()
    if "AVIF" in Image.SAVE:
        kinds.append(("avif", photo, "AVIF", {"quality": 60, "exif": exif}))
    files = {}
    for name, image, format, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        files[name] = buffer.getvalue()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(photo).save(buffer, quality=60)
        files["heic"] = buffer.getvalue()
    return files


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a damaged copy: half of them a little, half in one to four ways, often near the beginning."""
    out = bytearray(data)

    def place() -> int:
        span = len(out) if rng.random() < 0.5 else min(len(out), 600)
        return rng.randrange(max(span, 1))

    little = rng.random() < 0.5
    for _ in range(1 if little else rng.choice((1, 1, 2, 4))):
        kind = rng.choice((0, 1, 2)) if little else rng.randrange(7)
        if kind == 0:  # flip bits
            for _ in range(rng.choice((1, 3) if little else (1, 20, 200))):
                at = place()
                out[at : at + 1] = bytes([(out[at] if at < len(out) else 0) ^ (1 << rng.randrange(8))])
        elif kind == 1:  # cut off
            del out[place() :]
        elif kind == 2:  # overwrite with a number at its limits, or with a marker
            value = rng.choice(INTERESTING)
            at = place()
            out[at : at + len(value)] = value
        elif kind == 3:  # noise
            at = place()
            out[at : at + rng.randrange(1, 65)] = rng.randbytes(rng.randrange(1, 65))
        elif kind == 4:  # remove
            at = place()
            del out[at : at + rng.randrange(1, 200)]
        elif kind == 5:  # repeat
            at = place()
            out[at:at] = out[at : at + rng.randrange(1, 500)] * rng.choice((1, 2, 50))
        else:  # splice
            other = rng.choice(others)
            at, start = place(), rng.randrange(len(other))
            out[at:] = other[start : start + rng.randrange(1, len(other))]
    return bytes(out)


def case(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Return (which file, its damaged content) of one case; the same for the same number and seed."""
    rng = random.Random(f"{seed}/{number}")
    name = list(files)[number % len(files)]
    return name, mutate(files[name], list(files.values()), rng)


def work(first: int, end: int, seed: int) -> None:
    """Run cases and print one line of JSON for each: number, outcome, seconds, memory."""
    from cascade.errors import ImageError
    from cascade.imaging.decoding import load_image
    from cascade.imaging.preprocessing import InputSpec, prepare

    warnings.simplefilter("ignore")  # Pillow remarks on damaged metadata; that is no outcome
    spec = InputSpec(224, 224)
    files = seeds()
    for number in range(first, end):
        _, data = case(number, seed, files)
        odd: list[str] = []
        print(json.dumps({"starts": number}), flush=True)
        started = time.perf_counter()
        # Every other case is read in full, so that both ways of decoding are tried.
        target = spec.decode_target if number % 2 else (0, 0)
        try:
            image = load_image(data, target=target, max_pixels=MAX_PIXELS, on_warning=odd.append)
            assert image.mode == "RGB"
            assert prepare(image, spec).shape == (224, 224, 3)
            outcome = f"image, {odd[0].partition(':')[0]}" if odd else "image"
        except ImageError as error:
            outcome = f"error {error.code}"
        except BaseException as error:
            outcome = f"EXCEPTION {type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        line = {"done": number, "outcome": outcome, "seconds": seconds, "rss_mb": resident_mb()}
        print(json.dumps(line), flush=True)


def resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:  # not Linux: the peak, which is an upper limit
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run(cases: int, seed: int) -> list[dict[str, Any]]:
    """Return one record per case; workers that crash or hang are replaced."""
    records: list[dict[str, Any]] = []
    while len(records) < cases:
        command = [sys.executable, __file__, "--work", str(len(records)), str(cases), "--seed", str(seed)]
        # Decoders write remarks to standard error; a pipe that nobody empties would stop the worker.
        with tempfile.TemporaryFile("w+", errors="replace") as remarks:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=remarks, text=True)
            lines: queue.Queue[str] = queue.Queue()
            reader = threading.Thread(target=_read_lines, args=(worker.stdout, lines))
            reader.start()
            problem = _collect(lines, records, cases)
            worker.kill()
            code = worker.wait()
            reader.join()
            remarks.seek(0)
            last = remarks.read()[-500:]
        if problem == "START":
            raise SystemExit(f"the worker does not start (exit code {code}):\n{last}")
        if problem:
            what = problem if problem == "HANG" else f"CRASH {code} {last}"
            records.append({"done": len(records), "outcome": what, "seconds": LIMIT_S * 2, "rss_mb": 0.0})
    return records


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("{}")  # the end


def _collect(lines: queue.Queue[str], records: list[dict[str, Any]], cases: int) -> str | None:
    """Add records until all cases are there (None) or the worker fails at the next one."""
    started = False
    while len(records) < cases:
        try:
            # Starting up may take long on a busy machine; a case may not.
            line = json.loads(lines.get(timeout=LIMIT_S * 2 if started else 120))
        except queue.Empty:
            return "HANG"
        if "done" in line:
            records.append(line)
        elif "starts" in line:
            started = True
        else:
            return "CRASH" if started else "START"
    return None


def report(records: list[dict[str, Any]], seed: int) -> bool:
    """Print a table of outcomes; return whether all is well."""
    files = list(seeds())
    outcomes = sorted({r["outcome"].split(":")[0][:40] for r in records})
    table: dict[str, Counter[str]] = {name: Counter() for name in files}
    for record in records:
        table[files[record["done"] % len(files)]][record["outcome"].split(":")[0][:40]] += 1
    short = [o.removeprefix("error ") for o in outcomes]
    widths = [max(len(s), 5) for s in short]
    print(f"{'file':18}" + "".join(f"{s:>{w + 2}}" for s, w in zip(short, widths, strict=True)))
    for name, counts in table.items():
        print(f"{name:18}" + "".join(f"{counts[o]:>{w + 2}}" for o, w in zip(outcomes, widths, strict=True)))
    slow = [r for r in records if r["seconds"] > LIMIT_S]
    bad = [r for r in records if r["outcome"].startswith(("CRASH", "HANG", "EXCEPTION"))]
    memory = [r["rss_mb"] for r in records if r["rss_mb"]]
    fifth = max(len(memory) // 5, 1)
    # The least of a stretch, since one large photo in between is no growth.
    early, late = min(memory[fifth : 2 * fifth] or memory), min(memory[-fifth:])
    seconds = sorted(r["seconds"] for r in records)
    print(
        f"\n{len(records)} cases, seed {seed}: {len(bad)} crashes, hangs or foreign exceptions, "
        f"{len(slow)} over {LIMIT_S:.0f} s; slowest {seconds[-1]:.2f} s, "
        f"median {seconds[len(seconds) // 2] * 1e3:.1f} ms; "
        f"memory {early:.0f} MB early, {late:.0f} MB late, {max(memory):.0f} MB at most"
    )
    for record in (*bad, *slow):
        print(f"  case {record['done']}: {record['outcome']} ({record['seconds']:.1f} s)")
    return not bad and not slow and late - early <= GROWTH_LIMIT_MB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the file of every failing case here")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], options.seed)
        return
    records = run(options.cases, options.seed)
    fine = report(records, options.seed)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        files = seeds()
        for record in records:
            if record["outcome"].startswith(("CRASH", "HANG", "EXCEPTION")) or record["seconds"] > LIMIT_S:
                content = case(record["done"], options.seed, files)[1]
                (options.keep / f"case{record['done']}").write_bytes(content)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
