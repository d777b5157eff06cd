"""The Open Inference Protocol: by hand, with the stock client, and with requests that are wrong."""

from __future__ import annotations

import base64
import io
import json
import struct

import numpy as np
import pytest
from conftest import COLOURS
from PIL import Image

from cascade.serving.inference_protocol import OUTPUTS, ProtocolError, parse_infer

LIMITS = {"max_photos": 4, "max_pixels": 10_000}


def png(label="bedroom"):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), COLOURS[label][1]).save(data, "PNG")
    return data.getvalue()


def request(**changes):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png()).decode()]}
    return {"inputs": [tensor | changes]}


def parse(body, rest=b"", length=None, **limits):
    text = json.dumps(body).encode() if not isinstance(body, bytes) else body
    return parse_infer(text + rest, len(text) if rest and length is None else length, **(LIMITS | limits))


def test_health_and_metadata(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "cascade"
    for path in ("/v2/models/cascade", "/v2/models/cascade/versions/1.2.3"):
        model = client.get(path).json()
        assert (model["name"], model["versions"]) == ("cascade", ["1.2.3"])
        assert {one["datatype"] for one in model["inputs"]} == {"BYTES", "UINT8"}
        assert client.get(path + "/ready").json() == {"name": "cascade", "ready": True}
    assert client.get("/v2/models/cascade/versions/9").status_code == 404
    assert "error" in client.get("/v2/models/other").json()


def test_json_in_and_out(client):
    body = request(shape=[2], data=[base64.b64encode(png(name)).decode() for name in ("menu", "beach")])
    answer = client.post("/v2/models/cascade/infer", json=body | {"id": "photo 7"})
    assert answer.status_code == 200
    said = answer.json()
    assert (said["id"], said["model_name"], said["model_version"]) == ("photo 7", "cascade", "1.2.3")
    outputs = {output["name"]: output for output in said["outputs"]}
    assert list(outputs) == list(OUTPUTS)
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["menu", "beach"]}
    assert all(0.5 < value <= 1 for value in outputs["confidence"]["data"])
    assert json.loads(outputs["answer"]["data"][1])["parent"] == "outdoor"


def test_pixels_as_json_numbers(client):
    array = np.full((2, 8, 6, 3), COLOURS["forest"][1], dtype=np.uint8)
    for data in (array.tolist(), array.ravel().tolist()):
        body = request(datatype="UINT8", shape=[2, 8, 6, 3], data=data)
        body["outputs"] = [{"name": "label"}]
        said = client.post("/v2/models/cascade/versions/1.2.3/infer", json=body).json()
        assert said["outputs"][0]["data"] == ["forest", "forest"]


def test_a_photo_that_cannot_be_read_is_named_in_its_place(client):
    body = request(shape=[2], data=[base64.b64encode(b"nonsense").decode(), base64.b64encode(png()).decode()])
    outputs = client.post("/v2/models/cascade/infer", json=body).json()["outputs"]
    said = {output["name"]: output["data"] for output in outputs}
    assert said["status"] == ["not_an_image", "ok"]
    assert said["label"] == ["", "bedroom"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("binary_input", [True])
@pytest.mark.parametrize("binary_output", [None, True, False])
def test_the_stock_client(server, binary_input, binary_output):
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cascade")
    assert client.is_model_ready("cascade", "1.2.3")
    assert client.get_model_metadata("cascade")["platform"] == "onnxruntime_onnx"
    photos = np.array([png(name) for name in COLOURS], dtype=np.object_)
    encoded = http.InferInput("image", [len(COLOURS)], "BYTES")
    encoded.set_data_from_numpy(photos, binary_data=binary_input)
    pixels = http.InferInput("image", [1, 20, 10, 3], "UINT8")
    pixels.set_data_from_numpy(
        np.full((1, 20, 10, 3), COLOURS["beach"][1], np.uint8), binary_data=binary_input
    )
    wanted = None
    if binary_output is not None:
        wanted = [
            http.InferRequestedOutput(name, binary_data=binary_output) for name in ("label", "confidence")
        ]
    said = client.infer("cascade", [encoded], outputs=wanted, request_id="abc")
    assert said.get_response()["id"] == "abc"
    found = [x.decode() if isinstance(x, bytes) else x for x in said.as_numpy("label").tolist()]
    assert found == list(COLOURS)
    assert said.as_numpy("confidence").dtype == np.float32
    said = client.infer("cascade", [pixels], outputs=wanted, model_version="1.2.3")
    assert said.as_numpy("label").tolist() in ([b"beach"], ["beach"])
    with pytest.raises(Exception, match="there is no version '7'"):
        client.infer("cascade", [pixels], model_version="7")
    client.close()


@pytest.mark.parametrize(
    ("body", "say"),
    [
        (b"{", "no JSON"),
        (b"[]", "JSON object"),
        (b"[" * 100_000, "no JSON"),
        ({}, "inputs must be"),
        ({"inputs": []}, "inputs must be"),
        (request(name="x"), "there is no input 'x'"),
        (request(shape="1"), "shape must be"),
        (request(shape=[0]), "shape must be"),
        (request(shape=[True]), "shape must be"),
        (request(shape=[5]), "4 photos, not 5"),
        (request(shape=[2]), "shape says 2 photos, the data holds 1"),
        (request(shape=[1, 2]), "must have the shape"),
        (request(datatype="FP32"), "datatype 'FP32'"),
        (request(data="abc"), "no data"),
        (request(data=[5]), "must be strings"),
        (request(data=["?"]), "must be base64"),
        (request(parameters=3), "parameters"),
        (request(parameters={"binary_data_size": 7}), "0 bytes follow"),
        (request(datatype="UINT8", shape=[1, 2, 2, 3], data=[300] * 12), "0 to 255"),
        (request(datatype="UINT8", shape=[1, 2, 2, 3], data=[1] * 11), "needs 12 values"),
        (request(datatype="UINT8", shape=[1, 2, 2, 4], data=[1]), "must have the shape"),
        (request(datatype="UINT8", shape=[1, 101, 100, 3], data=[1]), "more than the limit"),
        (request() | {"id": 5}, "id must be"),
        (request() | {"outputs": [{"name": "x"}]}, "there is no output 'x'"),
        (request() | {"outputs": ["x"]}, "list of objects"),
    ],
)
def test_requests_that_are_wrong_are_explained(body, say):
    with pytest.raises(ProtocolError, match=say):
        parse(body)


def test_binary_data_that_is_wrong_is_explained():
    def binary(rest, size=None, shape=(1,)):
        changes = {"data": None, "parameters": {"binary_data_size": len(rest) if size is None else size}}
        return parse(request(shape=list(shape), **changes), rest)

    assert binary(struct.pack("<I", 3) + b"abc").photos == (b"abc",)
    for rest, say in (
        (b"\x01", "ends inside a length"),
        (struct.pack("<I", 9) + b"abc", "ends inside an element"),
        (struct.pack("<I", 0) * 2, "shape says 1"),
    ):
        with pytest.raises(ProtocolError, match=say):
            binary(rest)
    with pytest.raises(ProtocolError, match="binary_data_size is 2"):
        binary(b"abcd", size=2)
    with pytest.raises(ProtocolError, match="has no binary_data_size"):
        parse(request(), b"rest")
    with pytest.raises(ProtocolError, match="Inference-Header-Content-Length is 900"):
        parse(request(), length=900)


def test_errors_of_the_protocol_are_in_its_form(client):
    for answer in (
        client.post("/v2/models/cascade/infer", content=b"{", headers={"Content-Type": "application/json"}),
        client.post("/v2/models/cascade/infer", content=b"x", headers={"Content-Type": "text/plain"}),
        client.post(
            "/v2/models/cascade/infer", content=b"{}", headers={"Inference-Header-Content-Length": "-1"}
        ),
        client.get("/v2/models/cascade/infer"),
        client.get("/v2/nothing"),
    ):
        assert 400 <= answer.status_code < 500
        assert list(answer.json()) == ["error"]
        assert answer.headers["content-type"] == "application/json"
