"""A bundle with onnxruntime, numpy and Pillow only, and nothing of cascade.

python classify.py BUNDLE PHOTO...       one line of JSON per photo
python classify.py BUNDLE --replay       replays the golden files; exit code 1 if anything differs
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

BICUBIC = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Bundle:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.manifest = json.loads((self.folder / "bundle.json").read_text(encoding="utf-8"))
        if self.manifest["format_version"] != 1:
            raise ValueError(f"format version {self.manifest['format_version']} is not known here")
        stages = self.manifest["stages"]
        self.image_stages = {"general": stages["general"]} | {e["name"]: e for e in stages["experts"]}
        self.sessions = {}

    def graph(self, stage, feeds):
        file = stage["file"]
        if file not in self.sessions:
            path = str(self.folder / file)
            self.sessions[file] = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        session = self.sessions[file]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds)))

    def read(self, path):
        """A file -> upright RGB, reduced."""
        with Image.open(path) as image:
            image.load()
            orientation = image.getexif().get(0x0112, 1)
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
            elif image.has_transparency_data:
                image = image.convert("RGBA")
            elif image.mode == "P":
                image = image.convert("RGB")
            specs = [stage["input"] for stage in self.image_stages.values()]
            gap = max(spec["reducing_gap"] for spec in specs)
            limits = [gap * max(_wanted(spec, side) for spec in specs) for side in ("width", "height")]
            size = image.size[::-1] if orientation >= 5 else image.size
            factor = 1
            while factor < 8 and all(n / (2 * factor) >= limit for n, limit in zip(size, limits)):
                factor *= 2
            image = image.reduce(factor) if factor > 1 else image
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            exif = Image.Exif()
            exif[0x0112] = orientation
            image = image.convert("RGB")
            image.info["exif"] = exif.tobytes()
            return ImageOps.exif_transpose(image), size, factor

    def classify(self, image, ask="router"):
        pixels = {name: prepare(image, stage["input"]) for name, stage in self.image_stages.items()}
        return self.run(pixels, ask)

    def run(self, pixels, ask="router"):
        """Prepared pixels, stage -> uint8 (height, width, 3), -> the answer and everything behind it."""
        stages, point = self.manifest["stages"], self.manifest["operating_points"]["default"]
        general = self.graph(stages["general"], {"image": pixels["general"][None]})
        known = {"general_logits": general["logits"]}
        score = None
        if stages.get("scope"):
            feeds = known | {"embedding": general["embedding"]}
            score = float(self.graph(stages["scope"], feeds)["score"][0, 0])
        gain = self.graph(stages["router"], known)["gain"][0] if stages.get("router") else []
        asked = []
        for number, expert in enumerate(stages["experts"]):
            worth = float(gain[number]) > point["cost_weight"] * expert["cost"]
            asked.append(ask == "always" or (ask == "router" and worth))
            logits = np.zeros((1, len(expert["labels"])), np.float32)
            if asked[-1]:
                taken = expert["takes"]
                feed = general["features"] if taken == "features" else pixels[expert["name"]][None]
                logits = self.graph(expert, {taken: feed})["logits"]
            known[f"{expert['name']}_logits"] = logits
        if asked:
            known["asked"] = np.array([asked], np.float32)
        probabilities = self.graph(stages["arbiter"], known)["probabilities"][0].astype(float)
        names = [e["name"] for e, yes in zip(stages["experts"], asked) if yes]
        answer = decide(self.manifest, point, probabilities, score)
        return answer | {"asked": names, "probabilities": probabilities, "score": score}


def _wanted(spec, side):
    return round(spec[side] / (spec["crop_fraction"] if spec["crop"] == "center" else 1))


def prepare(image, spec):
    """Upright RGB, reduced -> uint8 (height, width, 3); one call for each side, the width first."""
    width, height = spec["width"], spec["height"]
    if spec["crop"] == "center":
        wanted = [int(n / spec["crop_fraction"]) for n in (width, height)]
        if width == height:
            scaled = [int(wanted[0] * n / min(image.size)) for n in image.size]
        else:
            ratio = min(n / w for n, w in zip(image.size, wanted))
            scaled = [round(n / ratio) for n in image.size]
    else:
        scaled = [width, height]
    kernel = BICUBIC[spec["interpolation"]]
    image = image.resize((scaled[0], image.height), kernel).resize(tuple(scaled), kernel)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def decide(bundle, point, probabilities, score):
    """POLICY.md."""
    best = int(np.argmax(probabilities))
    top = float(probabilities[best])
    unknown = {"label": "unknown", "parent": None, "confidence": top}
    if point["scope_threshold"] is not None and not score <= point["scope_threshold"]:
        return unknown | {"reason": "out_of_scope"}
    if top >= point["leaf_threshold"]:
        return bundle["labels"][best] | {"confidence": top, "reason": "leaf"}
    sums = {}
    for label, p in zip(bundle["labels"], probabilities):
        sums[label["parent"]] = sums.get(label["parent"], 0.0) + float(p)
    broad = max(sums, key=sums.get)
    if sums[broad] >= point["parent_threshold"]:
        return {"label": broad, "parent": broad, "confidence": sums[broad], "reason": "parent"}
    return unknown | {"reason": "doubtful"}


def replay(bundle):
    """What differs from the golden files, in words; empty is well."""
    home = bundle.folder / "golden"
    golden = json.loads((home / "golden.json").read_text(encoding="utf-8"))
    allowed = golden["tolerance"]
    for entry in golden["photos"]:
        ready = {s: np.asarray(Image.open(home / file)) for s, file in entry["prepared"].items()}
        for ask, wanted in entry["decisions"].items():
            if ask == "router" and wanted["margin"] <= allowed["probabilities"]:
                continue
            found = bundle.run(ready, ask)
            away = np.abs(found["probabilities"] - entry[f"probabilities_{ask}"]).max()
            same = all(found[key] == wanted[key] for key in ("label", "reason", "asked"))
            if away > allowed["probabilities"] or not (same or wanted["margin"] <= away):
                yield f"{entry['photo']}, {ask}: {found['label']}, {away:.4f} away from {wanted['label']}"
        image, size, factor = bundle.read(home / entry["photo"])
        if (list(size), factor, list(image.size)) != (
            entry["size"],
            entry["reduction"],
            entry["decoded_size"],
        ):
            yield f"{entry['photo']}: is read as {size}, reduced by {factor} to {image.size}"
            continue
        for name, stage in bundle.image_stages.items():
            away = np.abs(prepare(image, stage["input"]).astype(int) - ready[name])
            limit = allowed["pixels"] if entry["photo"].endswith(".png") else 255
            if away.mean() > allowed["file_pixels_mean"] or away.max() > limit:
                yield f"{entry['photo']}, {name}: pixels differ by {away.mean():.2f}, at most {away.max()}"
        away = np.abs(bundle.classify(image, "always")["probabilities"] - entry["probabilities_always"]).max()
        if away > allowed["file_probabilities"]:
            yield f"{entry['photo']}, from its file: a probability differs by {away:.3f}"


def main(folder, *photos):
    bundle = Bundle(folder)
    if photos == ("--replay",):
        problems = list(replay(bundle))
        print(json.dumps({"problems": problems}))
        return 1 if problems else 0
    failed = 0
    for path in photos:
        try:
            answer = bundle.classify(bundle.read(path)[0])
            answer = {k: answer[k] for k in ("label", "parent", "confidence", "reason", "asked")}
        except OSError as error:  # what Pillow throws for whatever is no photo
            answer, failed = {"error": str(error)}, 1
        print(json.dumps({"path": path} | answer))
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
