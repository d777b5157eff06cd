"""Photos per second of cascade, of the loop that anyone would write, and of what the hardware allows.

    python benchmarks/throughput.py [--count 500] [--rounds 3] [--mixes MIX...] [--json FILE]

Measured in one run, interleaved, on the same photos, warm file cache; medians over the rounds:

    a  hand-written loop: Pillow open, convert, bicubic resize, array, `session.run` of the general model
       alone with default session options, one photo at a time. (The graph takes uint8 and normalises
       inside, so the loop is spared the conversion to float.)
    b  the same in torch eager: timm's transform and tf_efficientnet_lite0 with as many classes (extra
       `train`; left out, with a line, where torch is missing)
    c  `Cascade.predict_many`, experts included
    p  the whole process `cascade classify FOLDER --format jsonl`, start-up included
    d  the floor: the fastest decoding at reduced scale (simplejpeg where it is installed, else Pillow) and
       bare `session.run` of just the graphs that these photos need, spread evenly over the cores: no
       resize, no router, no arbiter, no answers

Photos are made by `photo_mixes.py`, in --scratch, where they are found again by the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from photo_mixes import MIXES, default_photos, make_mix, sources
from PIL import Image

from cascade import Bundle, Cascade
from cascade.bundle.stage import FEATURES
from cascade.imaging.decoding import reduction_factor
from cascade.inference.cpu import usable_cores
from cascade.onnx_runtime import ort

ROOT = Path(__file__).resolve().parent.parent
#: What issue and README promise: mix -> (c/a, c/b); and c/d for every mix.
TARGETS = {"camera": (10.0, 12.0), "camera_soft": (10.0, 12.0), "web": (2.5, 3.5), "thumbnail": (1.5, 3.0)}
TARGET_FLOOR = 0.8

Contestant = Callable[[Sequence[Path]], None]


def hand_written(bundle: Bundle) -> Contestant:
    session = ort.InferenceSession(
        str(bundle.folder / bundle.general.file), providers=["CPUExecutionProvider"]
    )
    spec = bundle.general.input
    assert spec is not None

    def run(paths: Sequence[Path]) -> None:
        for path in paths:
            image = (
                Image.open(path).convert("RGB").resize((spec.width, spec.height), Image.Resampling.BICUBIC)
            )
            session.run(["logits"], {"image": np.asarray(image)[None]})

    return run


def torch_eager(bundle: Bundle) -> Contestant | None:
    try:
        import timm
        import torch
    except ImportError:
        return None
    model = timm.create_model("tf_efficientnet_lite0", num_classes=len(bundle.tree.labels)).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def run(paths: Sequence[Path]) -> None:
        with torch.inference_mode():
            for path in paths:
                model(transform(Image.open(path).convert("RGB"))[None]).softmax(1)

    return run


def predict_many(cascade: Cascade) -> Contestant:
    def run(paths: Sequence[Path]) -> None:
        bad = [p for p in cascade.predict_many(paths) if not p.ok]
        assert not bad, bad[0]

    return run


def whole_process(cascade: Cascade) -> Contestant:
    bundle = cascade.bundle
    command = [sys.executable, "-m", "cascade", "classify", "--bundle", str(bundle.folder)]
    command += ["--variant", cascade.variant]

    def run(paths: Sequence[Path]) -> None:
        command_line = [*command, str(paths[0].parent), "--format", "jsonl", "--quiet"]
        with tempfile.TemporaryFile() as rows:
            subprocess.run(command_line, check=True, stdout=rows, cwd=ROOT)
            rows.seek(0)
            assert len(rows.readlines()) == len(paths)

    return run


def floor(cascade: Cascade, paths: Sequence[Path]) -> Contestant:
    """Ask cascade once which graphs the photos need; what is timed is only decoding and those graphs."""
    bundle, decode = cascade.bundle, fastest_decoder()
    asked = {Path(p.path or ""): [e.name for e in p.experts] for p in cascade.predict_many(paths)}
    stages = {stage.name: stage for stage in (bundle.general, *bundle.experts)}
    # Sessions of the floor are those of the contestant: the floor differs in what surrounds them.
    sessions = {name: cascade.pipeline.session(stage) for name, stage in stages.items()}
    pixels = {
        name: {"image": np.zeros((2, s.input.height, s.input.width, 3), np.uint8)}
        for name, s in stages.items()
        if s.input
    }
    for name, stage in stages.items():
        if stage.takes == FEATURES:
            pixels[name] = {FEATURES: sessions["general"].run(pixels["general"])[FEATURES]}

    def share(mine: Sequence[Path]) -> None:
        for path in mine:
            decode(path.read_bytes(), bundle.decode_target, bundle.reducing_gap)
        wanted = [name for path in mine for name in ("general", *asked[path])]
        for name in stages:
            runs, rest = divmod(wanted.count(name), 2)
            for _ in range(runs):
                sessions[name].run(pixels[name])
            if rest:
                sessions[name].run({key: value[:1] for key, value in pixels[name].items()})

    def run(paths: Sequence[Path]) -> None:
        cores = usable_cores()
        # Dealt out by the number of graphs that a photo needs, so that every core has as much to do.
        order = sorted(paths, key=lambda path: (len(asked[path]), path))
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(share, (order[core::cores] for core in range(cores))))

    return run


def fastest_decoder() -> Callable[[bytes, tuple[int, int], float], None]:
    try:
        import simplejpeg
    except ImportError:
        return _pillow
    return lambda data, target, gap: _simplejpeg(simplejpeg, data, target, gap)


def _simplejpeg(library: Any, data: bytes, target: tuple[int, int], gap: float) -> None:
    height, width, _, _ = library.decode_jpeg_header(data)
    factor = reduction_factor((width, height), target, gap)
    library.decode_jpeg(
        data,
        "RGB",
        fastdct=True,
        fastupsample=True,
        min_height=height // factor,
        min_width=width // factor,
        min_factor=1,
    )


def _pillow(data: bytes, target: tuple[int, int], gap: float) -> None:
    import io

    with Image.open(io.BytesIO(data)) as image:
        factor = reduction_factor(image.size, target, gap)
        image.draft(None, (image.width // factor, image.height // factor))
        image.load()


def measure_mix(mix: str, paths: Sequence[Path], cascade: Cascade, rounds: int) -> dict[str, Any]:
    """Return photos per second of every contestant, and how they compare."""
    contestants = {
        # What anyone would run is the exact graph, whichever variant cascade takes.
        "a": hand_written(Bundle.load(cascade.bundle.folder)),
        "b": torch_eager(cascade.bundle),
        "c": predict_many(cascade),
        "p": whole_process(cascade),
        "d": floor(cascade, paths),
    }
    present = {name: run for name, run in contestants.items() if run is not None}
    for (
        name,
        run,
    ) in present.items():  # everything is loaded and every file is in memory before anything counts
        if name != "p":
            run(paths[:16])
    seconds: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(rounds):
        for name, run in present.items():
            started = time.perf_counter()
            run(paths)
            seconds[name].append(time.perf_counter() - started)
    # Ratios within a round, then their median: what else the machine did hit both sides alike.
    speed = {name: len(paths) / statistics.median(values) for name, values in seconds.items()}

    def ratio(one: str, other: str) -> float | None:
        if one not in seconds or other not in seconds:
            return None
        return statistics.median(b / a for a, b in zip(seconds[one], seconds[other], strict=True))

    return {
        "photos": len(paths),
        "kilobytes_per_photo": round(statistics.mean(p.stat().st_size for p in paths) / 1e3),
        "photos_per_second": {name: round(value, 1) for name, value in speed.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "c/a": ratio("c", "a"),
        "c/b": ratio("c", "b"),
        "c/d": ratio("c", "d"),
        "p/a": ratio("p", "a"),
        "experts_per_photo": _experts_per_photo(cascade, paths),
        "target": dict(zip(("c/a", "c/b"), TARGETS[mix], strict=True)) | {"c/d": TARGET_FLOOR},
    }


def _experts_per_photo(cascade: Cascade, paths: Sequence[Path]) -> float:
    return statistics.mean(len(p.experts) for p in cascade.predict_many(paths))


def model_cost(cascade: Cascade, photographs: Sequence[Path]) -> dict[str, float]:
    """Return runs of the general model's worth per photo: of the cascade, and of asking everybody."""
    costs = {expert.name: expert.cost for expert in cascade.bundle.experts}
    spent = [1.0 + sum(costs[e.name] for e in p.experts) for p in cascade.predict_many(photographs)]
    always = 1.0 + sum(costs.values())
    mean = statistics.mean(spent)
    return {
        "cascade": round(mean, 3),
        "always": round(always, 3),
        "ratio": round(mean / always, 3),
        "target": 0.5,
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{'':12} {'photos per second':^45}  ratios (target)",
        f"{'mix':12} "
        + "".join(f"{name:>9}" for name in ("a", "b", "c", "p", "d"))
        + f"  {'c/a':>15} {'c/b':>15} {'c/d':>13} {'p/a':>6}",
    ]
    for mix, found in results["mixes"].items():
        cells = "".join(
            f"{found['photos_per_second'].get(name, '-'):>9}" for name in ("a", "b", "c", "p", "d")
        )
        wanted = found["target"]
        ratios = [
            f"{'-' if found[key] is None else format(found[key], '.2f')} ({wanted[key]:g})"
            for key in ("c/a", "c/b", "c/d")
        ]
        lines.append(
            f"{mix:12} {cells}  {ratios[0]:>15} {ratios[1]:>15} {ratios[2]:>13} {found['p/a']:>6.2f}"
        )
    lines.append(f"cascade and floor run the variant {results['variant']}")
    cost = results["model_cost"]
    lines.append(
        f"mean model cost {cost['cascade']} of {cost['always']} if all experts were always asked: "
        f"{cost['ratio']:.0%} (at most {cost['target']:.0%})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=default_photos(), help="the labelled photographs")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "cascade-mixes")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--variant", default="auto", help="which graphs cascade and the floor run")
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cascade = Cascade(arguments.bundle, variant=arguments.variant)
    photographs = sources(arguments.photos)
    if torch_eager(cascade.bundle) is None:
        print("b is left out: torch or timm is missing; pip install 'cascade-vision[train]'", file=sys.stderr)
    results: dict[str, Any] = {
        "machine": {
            "cores": usable_cores(),
            "processor": platform.processor(),
            "onnxruntime": ort.__version__,
        },
        "bundle": f"{cascade.bundle.name} {cascade.bundle.version}",
        "variant": cascade.variant,
        "model_cost": model_cost(cascade, photographs[: max(arguments.count, 100)]),
        "mixes": {},
    }
    for mix in arguments.mixes:
        paths = make_mix(mix, arguments.count, photographs, arguments.scratch / f"{mix}-{arguments.count}")
        results["mixes"][mix] = measure_mix(mix, paths, cascade, arguments.rounds)
        print(f"{mix}: measured, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
