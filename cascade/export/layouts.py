"""Writes a bundle in the layouts that the Hugging Face Hub, MLflow and the Triton Inference Server load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from cascade.bundle.manifest import Bundle
from cascade.errors import UsageError
from cascade.export.single_file import answers, single_file
from cascade.imaging.preprocessing import INTERPOLATIONS

__all__ = ["LAYOUTS", "write_layout"]

_TRITON_TYPES: Final[dict[int, str]] = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
}


def write_layout(bundle: Bundle, layout: str, folder: Path, *, variant: str) -> None:
    """Write one of `LAYOUTS` into a new or empty folder.

    Raises:
        UsageError: when the folder holds something already.
        BundleError: as `cascade.export.single_file.single_file`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already; give a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](bundle, folder, variant)


def _huggingface(bundle: Bundle, folder: Path, variant: str) -> None:
    """Write config.json, preprocessor_config.json, onnx/ and the model card with its metadata."""
    (folder / "onnx").mkdir()
    onnx.save(single_file(bundle, variant=variant), folder / "onnx" / "model.onnx")
    onnx.save(single_file(bundle, variant=variant, prepared=True), folder / "onnx" / "model_prepared.onnx")
    spec = bundle.general.input
    names = answers(bundle)
    _write_json(
        folder / "config.json",
        {
            "model_type": "cascade",
            "architectures": ["Cascade"],
            "bundle": f"{bundle.name} {bundle.version}",
            "image_size": [spec.height, spec.width],
            "num_labels": len(names),
            "id2label": {str(number): name for number, name in enumerate(names)},
            # A group of one label has that label's own name; the label, which comes first, keeps it.
            "label2id": {name: names.index(name) for name in names},
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": spec.crop == "squash",
            "size": {"height": spec.height, "width": spec.width},
            "resample": int(INTERPOLATIONS[spec.interpolation]),
            "do_rescale": False,
            "do_normalize": False,
            "data_format": "channels_last",
        },
    )
    (folder / "README.md").write_text(_front_matter() + _card(bundle), encoding="utf-8")
    _copy_documents(bundle, folder)


def _front_matter() -> str:
    """Return the metadata of the card, YAML; https://huggingface.co/docs/hub/model-cards."""
    lines = [
        "---",
        "license: other",
        "license_name: see-model-card",
        "library_name: onnx",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("image-classification", "onnx", "calibration", "scene-recognition")),
        "---",
        "",
        "",
    ]
    return "\n".join(lines)


def _card(bundle: Bundle) -> str:
    path = bundle.folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {bundle.name} {bundle.version}\n"
    return text + (
        "\n## Using it\n\n`onnx/model.onnx` takes one upright photo of any size: `image`, uint8 (H, W, 3),"
        " and gives `answer`, an index into `id2label` of `config.json`, with its `confidence`."
        " `onnx/model_prepared.onnx` takes batches as `preprocessor_config.json` describes them, uint8."
        " Neither needs code of this repository.\n"
    )


def _mlflow(bundle: Bundle, folder: Path, variant: str) -> None:
    """Write an MLflow model: the onnx flavour, and a pyfunc with signature that answers in words."""
    model = single_file(bundle, variant=variant)
    onnx.save(model, folder / "model.onnx")
    (folder / "code").mkdir()
    shutil.copyfile(Path(__file__).with_name("mlflow_model.py"), folder / "code" / "cascade_mlflow_model.py")
    requirements = [f"onnxruntime>={bundle.minimum_onnxruntime}", "numpy"]
    (folder / "requirements.txt").write_text("\n".join([*requirements, "mlflow", ""]), encoding="utf-8")
    image = {"dtype": "uint8", "shape": [-1, -1, 3]}
    inputs = [{"name": "image", "type": "tensor", "tensor-spec": image}]
    outputs = [
        {"type": kind, "name": name, "required": True}
        for name, kind in (("label", "string"), ("confidence", "double"), ("reason", "string"))
    ]
    # JSON is YAML, and needs no writer of YAML.
    _write_json(
        folder / "MLmodel",
        {
            "flavors": {
                "python_function": {
                    "loader_module": "cascade_mlflow_model",
                    "code": "code",
                    "data": "model.onnx",
                    "env": {"virtualenv": "python_env.yaml"},
                },
                "onnx": {
                    "data": "model.onnx",
                    "onnx_version": onnx.__version__,
                    "providers": ["CPUExecutionProvider"],
                },
            },
            "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None},
            "metadata": {"bundle": f"{bundle.name} {bundle.version}", "variant": variant},
        },
    )
    _write_json(
        folder / "python_env.yaml",
        {"python": "3.11", "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
    )
    _copy_documents(bundle, folder)


def _triton(bundle: Bundle, folder: Path, variant: str) -> None:
    """Write a model repository: `cascade` takes a photo of any size, `cascade_prepared` batches of pixels.

    An ensemble of Triton cannot branch, so the whole decision is one model.
    """
    for name, prepared in (("cascade", False), ("cascade_prepared", True)):
        home = folder / name
        (home / "1").mkdir(parents=True)
        model = single_file(bundle, variant=variant, prepared=prepared)
        onnx.save(model, home / "1" / "model.onnx")
        (home / "config.pbtxt").write_text(_triton_config(name, model), encoding="utf-8")
        (home / "answers.txt").write_text("\n".join([*answers(bundle), ""]), encoding="utf-8")


def _triton_config(name: str, model: onnx.ModelProto) -> str:
    optional = {tensor.name for tensor in model.graph.initializer}
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for value in model.graph.input:
        lines += _triton_tensor("input", value, "  optional: true\n" if value.name in optional else "")
    for value in model.graph.output:
        label_file = '  label_filename: "answers.txt"\n' if value.name == "answer" else ""
        lines += _triton_tensor("output", value, label_file)
    lines += ["instance_group [ { kind: KIND_CPU } ]", ""]
    return "\n".join(lines)


def _triton_tensor(kind: str, value: onnx.ValueInfoProto, more: str) -> list[str]:
    tensor = value.type.tensor_type
    sizes = ", ".join(str(d.dim_value or -1) if not d.dim_param else "-1" for d in tensor.shape.dim)
    return [
        f'{kind} [ {{\n  name: "{value.name}"\n  data_type: {_TRITON_TYPES[tensor.elem_type]}\n'
        f"  dims: [ {sizes} ]\n{more}}} ]"
    ]


def _copy_documents(bundle: Bundle, folder: Path) -> None:
    for name in ("EMBEDDING.md", "POLICY.md", "licences.spdx.json"):
        if (bundle.folder / name).is_file():
            shutil.copyfile(bundle.folder / name, folder / name)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


#: Name of the layout -> what writes it.
LAYOUTS: Final[dict[str, Callable[[Bundle, Path, str], None]]] = {
    "huggingface": _huggingface,
    "mlflow": _mlflow,
    "triton": _triton,
}
