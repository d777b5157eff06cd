"""Plants errors among labelled photos and prints how many of them `cascade audit` finds, and how often it is
wrong.

    python benchmarks/audit_planted.py PHOTOS [--foreign FOLDER ...] [--work DIR]

5 % of the labels are replaced by another one, 200 copies are put into another split, 50 files are damaged,
and 50 photos of FOLDER, which show none of the labels, are given one. PHOTOS itself is not changed: the
working folder holds links. What was not planted counts as wrongly found, so precision is a lower limit: the
photos have errors of their own.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import resource
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from cascade.audit.audit import Audit, audit
from cascade.audit.examine import Examiner
from cascade.audit.listing import Listed, list_photos
from cascade.audit.store import Store
from cascade.bundle.manifest import Bundle
from cascade.evaluation.metrics import wilson_interval
from cascade.imaging.decoding import load_image
from cascade.inference.cpu import usable_cores

WRONG_LABELS = 0.05
COPIES = 200
DAMAGED = 50
FOREIGN = 50
SPLITS = ("train", "calibration", "test")


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def cut(image: Image.Image, share: float, chance: random.Random) -> Image.Image:
    width, height = (max(round(side * share**0.5), 1) for side in image.size)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def watermarked(image: Image.Image, chance: random.Random) -> Image.Image:
    copy, (width, height) = image.copy(), image.size
    draw, top = ImageDraw.Draw(copy, "RGBA"), chance.uniform(0.05, 0.8)
    draw.rectangle((0, height * top, width * 0.6, height * (top + 0.12)), fill=(255, 255, 255, 120))
    draw.text((width * 0.05, height * (top + 0.02)), "www.example.com", fill=(0, 0, 0, 200))
    draw.line((0, 0, width, height), fill=(255, 255, 255, 90), width=max(2, width // 40))
    return copy


#: Kind of copy -> how it is made.
COPIERS: dict[str, Callable[[Image.Image, random.Random], bytes]] = {
    "cut to 80 %": lambda image, chance: as_jpeg(cut(image, 0.8, chance), 85),
    "cut to 60 %": lambda image, chance: as_jpeg(cut(image, 0.6, chance), 85),
    "cut to 40 %": lambda image, chance: as_jpeg(cut(image, 0.4, chance), 85),
    "compressed": lambda image, chance: as_jpeg(image, 30),
    "resized": lambda image, chance: as_jpeg(image.resize([max(side // 2, 1) for side in image.size]), 85),
    "mirrored": lambda image, chance: as_jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85),
    "watermark": lambda image, chance: as_jpeg(watermarked(image, chance), 85),
}

#: Kind of damage -> the bytes of a file -> what is left of them.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "no image": lambda data: b"<html><body>404 Not Found</body></html>",
    "ends after 30 %": lambda data: data[: len(data) * 3 // 10],
    "ends after 70 %": lambda data: data[: len(data) * 7 // 10],
    "no header": lambda data: bytes(200) + data[200:],
}


@dataclass
class Planted:
    """What was planted: path of the file -> what is wrong with it."""

    labels: dict[str, str] = field(default_factory=dict)  # -> right label
    copies: dict[str, tuple[str, str]] = field(default_factory=dict)  # -> kind, path of the original
    damaged: dict[str, str] = field(default_factory=dict)  # -> kind
    foreign: set[str] = field(default_factory=set)


class Folder:
    """The working folder: links to photos, written copies, and a manifest."""

    def __init__(self, home: Path) -> None:
        self.home, self.rows = home, []
        self.count = 0

    def put(self, split: str, label: str, source: str, content: bytes | Path, suffix: str) -> str:
        """Write a file or a link and return its path."""
        self.count += 1
        path = self.home / split / label / f"{self.count:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content.resolve())
        else:
            path.write_bytes(content)
        self.rows.append((path.relative_to(self.home).as_posix(), source))
        return str(path)

    def write_manifest(self) -> None:
        with (self.home / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("file", "source"), *self.rows])


def plant(photos: Sequence[Listed], foreign: Sequence[Path], home: Path, chance: random.Random) -> Planted:
    """Fill the working folder."""
    planted, folder = Planted(), Folder(home)
    labels = sorted({photo.label for photo in photos})
    order = list(range(len(photos)))
    chance.shuffle(order)
    wrong = set(order[: round(WRONG_LABELS * len(order))])
    rest = [place for place in order if place not in wrong]
    damaged, copied = rest[:DAMAGED], set(rest[DAMAGED : DAMAGED + COPIES])
    kinds = {place: list(DAMAGES)[number % len(DAMAGES)] for number, place in enumerate(damaged)}
    copiers = ["same bytes", *COPIERS]
    for place, photo in enumerate(photos):
        content, suffix = Path(photo.path), Path(photo.path).suffix
        split = photo.split or "train"
        if place in kinds:
            data = DAMAGES[kinds[place]](content.read_bytes())
            planted.damaged[folder.put(split, photo.label, photo.source, data, suffix)] = kinds[place]
        elif place in wrong:
            label = chance.choice([label for label in labels if label != photo.label])
            planted.labels[folder.put(split, label, photo.source, content, suffix)] = photo.label
        else:
            path = folder.put(split, photo.label, photo.source, content, suffix)
            if place in copied:
                kind = copiers[len(planted.copies) % len(copiers)]
                other = chance.choice([name for name in SPLITS if name != split])
                if kind == "same bytes":
                    data = content.read_bytes()
                else:
                    data, suffix = COPIERS[kind](load_image(content), chance), ".jpg"
                made = folder.put(other, photo.label, photo.source, data, suffix)
                planted.copies[made] = kind, path
    for content in chance.sample(list(foreign), min(FOREIGN, len(foreign))):
        label, split = chance.choice(labels), chance.choice(SPLITS)
        planted.foreign.add(folder.put(split, label, "foreign", content, content.suffix))
    folder.write_manifest()
    return planted


def share(successes: int, n: int) -> str:
    """Return a share with its 95 % interval and n."""
    if n == 0:
        return "none"
    low, high = wilson_interval(successes, n)
    return f"{100 * successes / n:5.1f} % ({100 * low:.0f}–{100 * high:.0f}, n = {n})"


def report(found: Audit, planted: Planted) -> None:
    """Print precision and recall of each finding."""
    print(f"{'':38} {'recall':28} precision (at least)")
    corrupt = {finding.path for finding in found.of_kind("corrupt")}
    line("corrupt", corrupt, set(planted.damaged))
    by_kind(planted.damaged, corrupt)
    report_copies(found, planted)
    suspects = {finding.path: finding for finding in found.of_kind("mislabelled")}
    line("mislabelled", set(suspects), set(planted.labels))
    for split in SPLITS:
        ours = {path for path in planted.labels if f"/{split}/" in path}
        line(f"  in {split}", {path for path in suspects if f"/{split}/" in path}, ours)
    right = [suspects[path].suggested == label for path, label in planted.labels.items() if path in suspects]
    print(f"  {'the right label is suggested':36} {share(sum(right), len(right))}")
    sure = {path for path, finding in suspects.items() if finding.score >= 0.75}
    line("  of them with a score of 0.75 or more", sure, set(planted.labels))
    strange = {finding.path for finding in found.of_kind("outlier")}
    if planted.foreign:
        line("outlier (foreign photos)", strange, planted.foreign)
        either = strange | set(suspects)
        line("  outlier or mislabelled", either, planted.foreign)
        line("  either, foreign photos and wrong labels", either, planted.foreign | set(planted.labels))


def report_copies(found: Audit, planted: Planted) -> None:
    for kind in ("exact_duplicate", "near_duplicate"):
        pairs = {frozenset((finding.path, finding.other)) for finding in found.of_kind(kind)}
        exact = kind == "exact_duplicate"
        ours = {
            path: (name, original)
            for path, (name, original) in planted.copies.items()
            if (name == "same bytes") == exact
        }
        wanted = {frozenset((path, original)) for path, (_, original) in ours.items()}
        line(kind, pairs, wanted)
        names = {path: name for path, (name, _) in ours.items()}
        by_kind(names, {path for path in ours if frozenset((path, ours[path][1])) in pairs})
        across = [f for f in found.of_kind(kind) if f.split != f.other_split]
        labels = [f for f in found.of_kind(kind) if f.label != f.other_label]
        print(f"  {len(across)} across splits, {len(labels)} across labels")


def line(name: str, found: set, wanted: set) -> None:
    both = len(found & wanted)
    print(f"{name:38} {share(both, len(wanted)):28} {share(both, len(found))}")


def by_kind(kinds: dict[str, str], found: set[str]) -> None:
    counts: dict[str, list[bool]] = defaultdict(list)
    for path, kind in kinds.items():
        counts[kind].append(path in found)
    for kind, hits in counts.items():
        print(f"  {kind:36} {share(sum(hits), len(hits))}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--foreign", type=Path, nargs="*", default=[], help="folders of other photos")
    parser.add_argument("--count", type=int, default=14_000, help="photos that are taken, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep the planted folder and what was found here")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    photos = list_photos([arguments.photos])
    photos = sorted(chance.sample(photos, min(arguments.count, len(photos))), key=lambda photo: photo.path)
    foreign = [Path(photo.path) for folder in arguments.foreign for photo in list_photos([folder])]
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        home = work / "planted"
        if home.exists():
            parser.error(f"{home} is there already; delete it")
        planted = plant(photos, foreign, home, chance)
        bundle, started = Bundle.load(None), time.perf_counter()
        with Store(work / "seen.sqlite", bundle.general.sha256) as store:
            found = audit(list_photos([home]), Examiner(bundle), store, workers=usable_cores())
        seconds = time.perf_counter() - started
        report(found, planted)
        print(f"all findings: {dict(Counter(finding.kind for finding in found.findings))}")
        for association in found.associations:
            print(association)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(found.photos)} files, {seconds:.0f} s on {usable_cores()} cores, {memory:.0f} MB")


if __name__ == "__main__":
    main()
