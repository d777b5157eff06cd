"""Plants copies of photos and prints, for each threshold, how many `cascade audit` finds and how often it is
wrong; and what the embeddings alone would find.

    python benchmarks/audit_copies.py PHOTOS... [--show FILE]

Every sixth photo gets a copy of each kind. For each, the audit's own steps decide: the eight nearest
embeddings, the coarse comparison, the score. Pairs that were not planted count as wrong, so precision is a
lower limit: photos have copies of their own. --show writes a picture of such pairs.
"""

from __future__ import annotations

import argparse
import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from audit_planted import COPIERS, share
from PIL import Image, ImageDraw

from cascade.audit import duplicates
from cascade.audit.examine import Examiner, Facts
from cascade.audit.listing import Listed, list_photos
from cascade.audit.neighbours import LOOKED_AT, nearest
from cascade.bundle.manifest import Bundle
from cascade.imaging.decoding import load_image
from cascade.imaging.thumbnail import thumbnail
from cascade.inference.cpu import usable_cores

EVERY = 6
CHOSEN = duplicates.COPY_THRESHOLD
LOWEST = 0.70
THRESHOLDS = (0.70, 0.74, 0.78, 0.80, 0.82, 0.84, 0.86, 0.90)
COSINES = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)


def examined(photos: list[Listed], examiner: Examiner, scratch: Path) -> list[tuple[str, int, object]]:
    """Return (kind, place of the original, what was seen) of photos, kind "", and of copies."""

    def look(place: int) -> list[tuple[str, int, object]]:
        found = [("", place, examiner.examine(photos[place].path))]
        if found[0][2].facts.readable and place % EVERY == 0:
            chance, image = random.Random(place), load_image(photos[place].path)
            for kind, copier in COPIERS.items():
                path = scratch / f"{place}.jpg"
                path.write_bytes(copier(image, chance))
                found.append((kind, place, examiner.examine(str(path))))
            path.unlink()
        return found

    with ThreadPoolExecutor(usable_cores()) as pool:
        return [one for found in pool.map(look, range(len(photos))) for one in found if one[2].facts.readable]


def embeddings_alone(embeddings: np.ndarray, kinds: list[str], origins: np.ndarray) -> None:
    """Print how many copies and how many other photos lie above a cosine."""
    originals = np.array([not kind for kind in kinds])
    _, cosines = nearest(embeddings[originals], 1)
    closest = cosines[:, 0]
    place_of = {origin: row for row, origin in enumerate(origins) if originals[row]}
    own = np.array([embeddings[row] @ embeddings[place_of[origins[row]]] for row in range(len(kinds))])
    print(f"{'embeddings alone: share above a cosine of':44}", *(f"{cosine:6.2f}" for cosine in COSINES))
    print(f"{'photos, to the nearest other photo':44}", *(f"{(closest > c).mean():6.1%}" for c in COSINES))
    for kind in COPIERS:
        mine = own[[row for row, name in enumerate(kinds) if name == kind]]
        print(f"{'copies, to their originals: ' + kind:44}", *(f"{(mine > c).mean():6.1%}" for c in COSINES))


def picture(pairs: list[tuple[float, str, str]], path: Path) -> None:
    """Write pairs of photos side by side."""
    sheet = Image.new("RGB", (6 * 250, 150 * -(-len(pairs) // 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (score, *sides) in enumerate(pairs):
        left, top = number % 6 * 250, number // 6 * 150
        draw.text((left, top), f"{score:.3f}", fill="black")
        for side, name in enumerate(sides):
            sheet.paste(thumbnail(name, 120), (left + 122 * side, top + 14))
    data = io.BytesIO()
    sheet.save(data, "PNG")
    path.write_bytes(data.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=3000, help="photos that are taken, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the wrong pairs")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos)
    photos = random.Random(arguments.seed).sample(photos, min(arguments.count, len(photos)))
    with TemporaryDirectory() as scratch:
        seen = examined(photos, Examiner(Bundle.load(None)), Path(scratch))
    kinds, origins = [kind for kind, _, _ in seen], np.array([place for _, place, _ in seen])
    embeddings = np.stack([one.embedding for _, _, one in seen])
    embeddings_alone(embeddings, kinds, origins)
    # Copies of one photo must not crowd its original out, so each kind is looked for by itself; the
    # originals are compared with each other once.
    hits: dict[str, list[float]] = {}
    others: dict[frozenset[str], float] = {}
    duplicates.COPY_THRESHOLD = LOWEST
    for kind in ("", *COPIERS):
        rows = [row for row, name in enumerate(kinds) if name in ("", kind)]
        listed = [Listed(f"{kinds[row]}|{photos[origins[row]].path}", "", "", "") for row in rows]
        facts: list[Facts] = [seen[row][2].facts for row in rows]
        small = [seen[row][2].small for row in rows]
        places, cosines = nearest(embeddings[rows], LOOKED_AT)
        cosines[[bool(kind) and not kinds[row] for row in rows]] = -1.0
        scores: dict[int, float] = {}
        for pair in duplicates.copies(
            listed, facts, places, cosines, small.__getitem__, workers=usable_cores()
        ):
            first, second = rows[pair.first], rows[pair.second]
            if origins[first] == origins[second]:
                scores[int(origins[first])] = pair.score
            else:
                name = frozenset(photos[origins[row]].path for row in (first, second))
                others[name] = max(pair.score, others.get(name, 0.0))
        if kind:
            hits[kind] = [scores.get(int(origins[row]), 0.0) for row in rows if kinds[row] == kind]
    print(f"\n{len(photos)} photos, {len(hits[kind])} copies of each kind; found with a score of at least")
    print(f"{'':20}", *(f"{threshold:6.2f}" for threshold in THRESHOLDS))
    for kind, values in hits.items():
        print(f"{kind:20}", *(f"{(np.array(values) >= threshold).mean():6.1%}" for threshold in THRESHOLDS))
    wrong = np.array(list(others.values()))
    print(f"{'pairs not planted':20}", *(f"{(wrong >= threshold).sum():6}" for threshold in THRESHOLDS))
    found = sum(int((np.array(values) >= CHOSEN).sum()) for values in hits.values())
    planted = sum(len(values) for values in hits.values())
    print(f"at {CHOSEN}: recall {share(found, planted)}")
    print(f"at {CHOSEN}: precision {share(found, found + int((wrong >= CHOSEN).sum()))}")
    if arguments.show:
        top = sorted(((score, *sorted(pair)) for pair, score in others.items()), reverse=True)
        picture([one for one in top if len(one) == 3][:48], arguments.show)


if __name__ == "__main__":
    main()
