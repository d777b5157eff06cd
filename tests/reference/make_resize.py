"""Write resize.npz: what `Image.resize` of Pillow 11 or 12 makes of one photo, in one call.

    python tests/reference/make_resize.py        # needs 'pillow<13'

tests/imaging/test_preprocessing.py compares `cascade.imaging.preprocessing.prepare` with it, whatever Pillow
is installed: Pillow 13 takes the two passes of a resize in another order (python-pillow#9549).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

HERE = Path(__file__).parent
PHOTO = HERE.parent / "data" / "coffee.jpg"

#: (width, height) that the photo is cut to, from its middle; most of them are tall.
SIZES = [(600, 400), (224, 400), (150, 400), (60, 400), (37, 400), (10, 400), (400, 40), (20, 30)]
#: (width, height) of the result, and the filter.
RESULTS = [
    ((32, 32), "bicubic"),
    ((48, 40), "bicubic"),
    ((40, 48), "bicubic"),
    ((32, 32), "lanczos"),
    ((32, 32), "bilinear"),
]
FILTERS = {name: Image.Resampling[name.upper()] for name in ("bicubic", "lanczos", "bilinear")}


def main() -> None:
    if int(PIL.__version__.split(".")[0]) >= 13:
        raise SystemExit(
            f"this is Pillow {PIL.__version__}; the reference is made by: pip install 'pillow<13'"
        )
    photo = Image.open(PHOTO).convert("RGB")
    cases, arrays = [], {}
    for width, height in SIZES:
        left, top = (photo.width - width) // 2, (photo.height - height) // 2
        part = photo.crop((left, top, left + width, top + height))
        for result, name in RESULTS:
            arrays[str(len(cases))] = np.asarray(part.resize(result, FILTERS[name]))
            cases.append({"size": (width, height), "result": result, "interpolation": name})
    facts = json.dumps({"pillow": PIL.__version__, "cases": cases})
    np.savez_compressed(HERE / "resize.npz", facts=facts, **arrays)


if __name__ == "__main__":
    main()
