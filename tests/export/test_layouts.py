"""`cascade export`: what it writes is loaded by the tools that it is for, and says no where it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COLOURS

from cascade import Cascade
from cascade.onnx_runtime import ort

pytest.importorskip("onnx", reason="needs onnx: pip install 'cascade-vision[export]'")

Run = Callable[..., Any]
PHOTO = np.full((60, 80, 3), COLOURS["forest"][1], np.uint8)


@pytest.fixture
def exported(run_cli: Run, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    ran = run_cli("export", "--to", request.param, tmp_path / "out")
    assert ran.code == 0, ran.err
    return tmp_path / "out"


@pytest.mark.parametrize("exported", ["huggingface"], indirect=True)
def test_hugging_face(exported: Path, tiny_bundle: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    session = ort.InferenceSession(str(exported / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    answer = session.run(["answer"], {"image": PHOTO})[0][0]
    assert config["id2label"][str(answer)] == Cascade(tiny_bundle).predict(PHOTO).label
    assert config["label2id"]["forest"] == answer
    card = (exported / "README.md").read_text()
    _, metadata, _ = card.split("---\n", 2)
    assert "pipeline_tag: image-classification" in metadata.splitlines()
    # What the image processor is told gives what the prepared form takes.
    told = json.loads((exported / "preprocessor_config.json").read_text())
    prepared = ort.InferenceSession(
        str(exported / "onnx" / "model_prepared.onnx"), providers=["CPUExecutionProvider"]
    )
    assert prepared.get_inputs()[0].shape[1:3] == [told["size"]["height"], told["size"]["width"]]


@pytest.mark.parametrize("exported", ["triton"], indirect=True)
def test_triton_configuration_names_what_the_models_have(exported: Path) -> None:
    for name in ("cascade", "cascade_prepared"):
        text = (exported / name / "config.pbtxt").read_text()
        session = ort.InferenceSession(
            str(exported / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        required, optional = session.get_inputs(), session.get_overridable_initializers()
        for item in (*required, *optional, *session.get_outputs()):
            assert f'name: "{item.name}"' in text
        assert text.count("optional: true") == len(optional)
        assert text.count("input [") == len(required) + len(optional)
    assert (exported / "cascade" / "answers.txt").read_text().splitlines()[-1] == "unknown"


@pytest.mark.parametrize("exported", ["mlflow"], indirect=True)
def test_mlflow_loads_and_runs_it(exported: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """The real package in a process of its own, of `$CASCADE_MLFLOW_PYTHON` or of this environment."""
    python = os.environ.get("CASCADE_MLFLOW_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import mlflow"], capture_output=True, check=False)
    if found.returncode and "CASCADE_MLFLOW_PYTHON" not in os.environ:
        pytest.skip("needs mlflow: pip install mlflow, or set CASCADE_MLFLOW_PYTHON")
    program = """
import json, sys, numpy as np, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
photo = np.array(json.loads(sys.argv[2]), np.uint8)
answer = model.predict({"image": photo})
try:
    model.predict({"image": photo.astype(np.float32)})
    wrong = "taken"
except Exception as error:
    wrong = str(error)
print(json.dumps({"answer": answer, "inputs": str(model.metadata.signature.inputs), "wrong": wrong}))
"""
    done = subprocess.run(
        [python, "-c", program, str(exported), json.dumps(PHOTO[:20, :30].tolist())],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    expected = Cascade(tiny_bundle, variant="exact").predict(PHOTO[:20, :30])
    assert (said["answer"]["label"], said["answer"]["reason"]) == (expected.label, expected.reason)
    assert said["answer"]["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
    assert "uint8" in said["inputs"]
    assert "uint8" in said["wrong"]  # the signature refuses other types, and says which it wants


def test_one_file_by_command(run_cli: Run, tmp_path: Path) -> None:
    ran = run_cli("export", "--single", tmp_path / "cascade.onnx")
    assert ran.code == 0
    assert "written" in ran.out
    assert ort.InferenceSession(str(tmp_path / "cascade.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["--to", "triton"], "belong together"),
        (["--prepared", "--sign", "KEY"], "--single"),
        (["--single", "x.onnx", "--variant", "int3"], "no variant 'int3'"),
    ],
)
def test_misuse_is_told(run_cli: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "KEY").write_text("")
    ran = run_cli("export", *(str(tmp_path / a) if a in ("KEY", "x.onnx") else a for a in arguments))
    assert ran.code == 2
    assert message in ran.err


def test_a_folder_with_something_in_it_is_left_alone(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = run_cli("export", "--to", "triton", tmp_path)
    assert ran.code == 2
    assert "empty folder" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
