"""Writes what lets a bundle stand alone: its documents, its schema, licences, and the hash of every file.

    python -m cascade.training.export.bundle_documents BUNDLE...

writes all of it, and the golden files, anew into bundles that are there; graphs and fitted numbers stay.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

import onnx

from cascade.bundle.files import file_hashes
from cascade.bundle.json_schema import SCHEMA_FILE
from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.schema import FORMAT_VERSION
from cascade.bundle.signing import SIGNATURE
from cascade.bundle.stage import FEATURES
from cascade.training.export.golden import TOLERANCE, write_golden
from cascade.training.export.packaging import write_policy
from cascade.training.export.readable_json import readable_json

__all__ = ["refresh", "seal", "write_documents"]

LICENCES: Final = "licences.spdx.json"
_DTYPES: Final[dict[int, str]] = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}

_VARIANTS: Final = """\
Beside the exact graphs there is {others} (`variants` of a stage). Use the exact graphs unless the golden outputs of
the other variant (`variants` of a photo in `golden.json`) are met on this machine: probabilities within 0.03 and
the same labels. Without VNNI instructions int8 sums can saturate, silently. All stages switch together, never one
alone. Never use int8 on WASM: it is three times slower there and misses the tolerance. Graph optimisation must stay
on for either."""  # noqa: E501


def refresh(folder: Path) -> None:
    """Write golden files, documents, licences and hashes of a bundle anew; a signature is removed.

    Raises:
        BundleError: when the folder is no bundle.
    """
    Bundle.load(folder)
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_golden(folder)
    write_documents(folder)
    seal(folder)


def write_documents(folder: Path) -> None:
    """Write POLICY.md with its cases, EMBEDDING.md and the schema; the golden files are there already."""
    write_policy(folder)
    shutil.copyfile(SCHEMA_FILE, folder / SCHEMA_FILE.name)
    template = Template(Path(__file__).with_name("embedding.md").read_text(encoding="utf-8"))
    (folder / "EMBEDDING.md").write_text(template.substitute(_facts(Bundle.load(folder))), encoding="utf-8")


def seal(folder: Path) -> None:
    """Write the statement of licences and, into bundle.json, the SHA-256 of every file: the last step."""
    bundle = Bundle.load(folder)
    (folder / LICENCES).unlink(missing_ok=True)
    (folder / LICENCES).write_text(readable_json(_licences(bundle)), encoding="utf-8")
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"files": file_hashes(folder)}
    path.write_text(readable_json(manifest), encoding="utf-8")


def _facts(bundle: Bundle) -> dict[str, Any]:
    """Return what EMBEDDING.md says about this bundle in particular."""
    (width, height), gap = bundle.decode_target, bundle.reducing_gap
    golden = json.loads((bundle.folder / "golden" / "golden.json").read_text(encoding="utf-8"))
    averaged = next(e["if_blocks_averaged"] for e in golden["photos"] if e["photo"].startswith("large"))
    sets = bundle.label_sets
    return {
        "bundle": f"{bundle.name} {bundle.version}",
        "target_width": width,
        "target_height": height,
        "gap": f"{gap:g}",
        "limit_width": f"{width * gap:g}",
        "limit_height": f"{height * gap:g}",
        "blocks_pixels": f"{averaged['pixels_mean']:.2f}",
        "blocks_probabilities": f"{averaged['probabilities']:.3f}",
        "inputs": "\n".join(_inputs(bundle)),
        "graphs": "\n".join(_graphs(bundle)),
        "onnxruntime": bundle.minimum_onnxruntime,
        "coverage": "none (this bundle has no label sets)" if sets is None else f"{sets.largest:g}",
        "variants": _variants(bundle),
        "format_version": FORMAT_VERSION,
        **{f"tolerance_{key}": f"{TOLERANCE[key]:g}" for key in ("logits", "probabilities", "pixels")},
        "tolerance_score": f"{TOLERANCE['score_relative']:g}",
        "file_pixels": f"{TOLERANCE['file_pixels_mean']:g}",
        "file_probabilities": f"{TOLERANCE['file_probabilities']:g}",
    }


def _inputs(bundle: Bundle) -> list[str]:
    rows = ["| stage | takes | width x height | crop | interpolation |", "|---|---|---|---|---|"]
    for stage in bundle.image_stages:
        spec = stage.input
        crop = spec.crop if spec.crop == "squash" else f"{spec.crop}, crop_fraction {spec.crop_fraction:g}"
        rows.append(
            f"| {stage.name} | {stage.takes} | {spec.width} x {spec.height} | {crop} | {spec.interpolation} |"
        )
    return rows


def _graphs(bundle: Bundle) -> list[str]:
    rows = ["| file | inputs | outputs |", "|---|---|---|"]
    for stage in bundle.stages:
        graph = onnx.load(bundle.folder / stage.file, load_external_data=False).graph
        sides = ["<br>".join(_tensor(value) for value in values) for values in (graph.input, graph.output)]
        rows.append(f"| `{stage.file}` | {sides[0]} | {sides[1]} |")
    if any(stage.takes == FEATURES for stage in bundle.experts):
        rows += [
            "",
            f"`{FEATURES}` of the general model is fed to the experts that take it; they get no pixels.",
        ]
    return rows


def _tensor(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    shape = ", ".join(str(d.dim_param or d.dim_value) for d in kind.shape.dim)
    return f"`{value.name}` {_DTYPES[kind.elem_type]} ({shape})"


def _variants(bundle: Bundle) -> str:
    if len(bundle.variants) == 1:
        return "This bundle has its exact graphs only."
    others = ", ".join(f"`{name}`" for name in bundle.variants[1:])
    return _VARIANTS.format(others=others)


def _licences(bundle: Bundle) -> dict[str, Any]:
    """Return an SPDX 2.3 document: one package, its files, and what is known of the photos behind it."""
    about = bundle.provenance
    files = file_hashes(bundle.folder)
    name = f"{bundle.name}-{bundle.version}"
    # The same bundle gives the same document, so neither the time nor the namespace is drawn anew.
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    entries = [
        {
            "SPDXID": f"SPDXRef-File-{number}",
            "fileName": f"./{file}",
            "checksums": [{"algorithm": "SHA256", "checksumValue": known}],
            "licenseConcluded": _licence(file),
            "copyrightText": "NOASSERTION",
        }
        for number, (file, known) in enumerate(files.items())
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:cascade-vision:bundle:{name}:{digest[:32]}",
        "creationInfo": {
            "created": str(about.get("created", "2000-01-01T00:00:00Z")),
            "creators": ["Tool: cascade"],
            "comment": "`created` is a placeholder where the bundle does not say when it was made.",
        },
        "packages": [
            {
                "SPDXID": "SPDXRef-Bundle",
                "name": bundle.name,
                "versionInfo": bundle.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": False,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "Apache-2.0",
                "licenseComments": " ".join(str(about.get("licence", "")).split()),
                "copyrightText": "NOASSERTION",
                "comment": f"Training data: {_sources(about.get('data'))}",
            }
        ],
        "files": entries,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-Bundle",
            },
            *(
                {
                    "spdxElementId": "SPDXRef-Bundle",
                    "relationshipType": "CONTAINS",
                    "relatedSpdxElement": entry["SPDXID"],
                }
                for entry in entries
            ),
        ],
    }


def _sources(data: Any) -> str:
    sources = data.get("sources") if isinstance(data, dict) else data
    return json.dumps(sources)


def _licence(file: str) -> str:
    """Return the licence of a file: golden photos come from free samples, the rest is the bundle's."""
    picture = re.fullmatch(r"golden/.*\.(png|jpg)", file)
    return "CC0-1.0" if picture else "Apache-2.0"


def main(arguments: Sequence[str]) -> int:
    """Refresh the bundles that are named; see the module."""
    if not arguments:
        print(__doc__)
        return 2
    for name in arguments:
        refresh(Path(name))
        print(f"{name}: refreshed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
