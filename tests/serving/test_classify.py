"""POST /v1/classify on a running service."""

from __future__ import annotations

import io
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from conftest import COLOURS
from PIL import Image

from cascade import Cascade

PNG = {"Content-Type": "image/png"}


def png(colour="bedroom", size=(64, 48)) -> bytes:
    rgb = COLOURS[colour][1] if isinstance(colour, str) else colour
    data = io.BytesIO()
    Image.new("RGB", size, rgb).save(data, "PNG")
    return data.getvalue()


def without_times(row):
    return {key: value for key, value in row.items() if key != "ms"}


@pytest.mark.parametrize("label", COLOURS)
def test_one_photo_is_one_row(client, label):
    answer = client.post("/v1/classify", content=png(label), headers=PNG)
    assert answer.status_code == 200
    row = answer.json()
    assert (row["label"], row["parent"], row["status"]) == (label, COLOURS[label][0], "ok")
    assert row["bundle"].startswith("tiny 1.2.3 sha256:")
    assert not {"general", "experts", "ms"} & set(row)


def test_the_row_is_that_of_the_library(client, tiny_bundle):
    cascade = Cascade(tiny_bundle, top_k=2)
    answer = client.post(
        "/v1/classify", params={"top_k": 2, "explain": "true"}, content=png((225, 92, 40)), headers=PNG
    )
    said = cascade.predict(png((225, 92, 40))).to_dict()
    row = answer.json()
    assert {key: row[key] for key in without_times(said)} == without_times(said)
    assert row["ms"]["total"] > 0


def test_several_photos_keep_their_order_and_a_bad_one_is_a_row(client):
    files = [
        ("photo", ("one.png", png("kitchen"))),
        ("photo", ("bad.png", b"no photo")),
        ("photo", ("two.png", png("forest"))),
    ]
    answer = client.post("/v1/classify", files=files)
    assert answer.status_code == 200
    rows = answer.json()
    assert [(row["path"], row["label"]) for row in rows] == [
        ("one.png", "kitchen"),
        ("bad.png", None),
        ("two.png", "forest"),
    ]
    assert rows[1]["error"]["code"] == "not_an_image"


def test_batched_answers_are_those_of_single_photos(client, tiny_bundle):
    random = np.random.default_rng(8)
    photos = [png(tuple(random.integers(0, 256, 3).tolist())) for _ in range(64)]
    with ThreadPoolExecutor(16) as pool:
        many = list(
            pool.map(
                lambda p: client.post("/v1/classify?explain=true", content=p, headers=PNG).json(), photos
            )
        )
    cascade = Cascade(tiny_bundle)
    for photo, row in zip(photos, many, strict=True):
        said = without_times(cascade.predict(photo).to_dict())
        for key in ("confidence", "scope_score"):
            assert row.pop(key) == pytest.approx(said.pop(key), abs=2e-6)
        for listed, wanted in zip(row.pop("top"), said.pop("top"), strict=True):
            assert listed["probability"] == pytest.approx(wanted["probability"], abs=2e-6)
        assert {key: row[key] for key in ("label", "parent", "reason", "status")} == {
            key: said[key] for key in ("label", "parent", "reason", "status")
        }


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty"), (b"text", "not_an_image"), (png()[:60], "truncated")]
)
def test_one_bad_photo_is_422_with_the_code_of_its_row(client, content, code):
    answer = client.post("/v1/classify", content=content, headers=PNG)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (422, 422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["row"]["error"]["code"] == code


@pytest.mark.parametrize(
    ("query", "say"),
    [
        ("top_k=0", "top_k is '0'; it must be a whole number"),
        ("top_k=٣", "top_k is"),
        ("budget=2", "budget is '2'"),
        ("max_error=nan", "max_error is 'nan'"),
        ("explain=perhaps", "explain is"),
        ("top_k=1&top_k=2", "given twice"),
        ("topk=3", "there is no option 'topk'; there are top_k,"),
        ("url=http://example.com/a.jpg", "there is no option 'url'"),
        ("max_error=0.1", "promises nothing about errors"),
    ],
)
def test_options_that_make_no_sense_are_refused(client, query, say):
    answer = client.post(f"/v1/classify?{query}", content=png(), headers=PNG)
    assert answer.status_code == 400
    assert say in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {},
        {"Content-Type": "application/json"},
        PNG | {"Content-Encoding": "gzip"},
    ],
)
def test_other_media_types_are_415(client, headers):
    assert client.post("/v1/classify", content=png(), headers=headers).status_code == 415


def test_multipart_that_holds_no_photo_is_400(client):
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    for body, code in ((b"--x--\r\n", "no_photos"), (b"garbage", "multipart")):
        answer = client.post("/v1/classify", content=body, headers=boundary)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    answer = client.post("/v1/classify", content=b"", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 400
    answer = client.post("/v1/classify", files={"photo": ("a.png", png())}, data={"top_k": "1"})
    assert (answer.status_code, answer.json()["code"]) == (400, "multipart")


def test_limits_of_body_photos_and_pixels(start_server):
    running = start_server("--max-body-mb", "0.1", "--max-photos", "2", "--max-pixels", "5000")
    with running.client() as client:
        big = b"x" * 100_001
        answer = client.post("/v1/classify", content=big, headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        chunked = client.post("/v1/classify", content=(big[:1000] for _ in range(200)), headers=PNG)
        assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")
        three = client.post("/v1/classify", files=[("p", ("a", png()))] * 3)
        assert (three.status_code, three.json()["code"]) == (413, "too_many_photos")
        wide = client.post("/v1/classify", content=png(size=(100, 51)), headers=PNG)
        assert (wide.status_code, wide.json()["code"]) == (422, "too_many_pixels")
        assert client.post("/v1/classify", content=png(), headers=PNG).status_code == 200


def test_a_body_that_never_ends_and_one_that_never_comes(start_server):
    running = start_server("--body-seconds", "1", "--max-body-mb", "1")
    host, port = running.url.removeprefix("http://").split(":")
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(head + b"Content-Length: 1000\r\n\r\nabc")
        assert slow.recv(200).startswith(b"HTTP/1.1 408")
    with socket.create_connection((host, int(port)), timeout=20) as endless:
        endless.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        said = b""
        try:
            for _ in range(400):
                endless.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            said = endless.recv(200)
        except OSError:  # it has hung up already, which is as good
            said = said or b"HTTP/1.1 413"
        assert said.startswith(b"HTTP/1.1 413")
    with running.client() as client:
        assert client.post("/v1/classify", content=png(), headers=PNG).status_code == 200
        assert "cascade_held_body_bytes 0.0" in client.get("/metrics").text


def test_not_ready_until_loaded(start_server):
    running = start_server(ready=False)
    statuses = set()
    with running.client() as client:
        end = time.monotonic() + 60
        while (status := client.get("/v2/health/ready").status_code) != 200 and time.monotonic() < end:
            statuses.add(status)
            refused = client.post("/v1/classify", content=png(), headers=PNG)
            assert refused.status_code in (200, 503)
            if refused.status_code == 503:
                assert refused.headers["retry-after"] == "1"
            assert client.get("/v2/health/live").status_code == 200
        assert statuses <= {503}
        assert client.post("/v1/classify", content=png(), headers=PNG).status_code == 200


def test_a_damaged_bundle_ends_the_service_with_a_message(start_server, tiny_bundle, tmp_path):
    import shutil

    bundle = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (bundle / "rooms.onnx").write_bytes(b"no graph")
    running = start_server("--bundle", str(bundle), ready=False)
    assert running.process.wait(60) == 2
    log = running.log.read_text()
    assert "cascade: error:" in log
    assert "rooms" in log
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_named(start_server, server):
    port = server.url.rpartition(":")[2]
    with pytest.raises(AssertionError, match="choose others with --host and --port"):
        start_server("--port", port)


def test_requests_on_one_connection_after_a_refusal(client):
    assert client.post("/v1/classify?nonsense=1", content=png(), headers=PNG).status_code == 400
    assert client.post("/v1/classify", content=png("menu"), headers=PNG).json()["label"] == "menu"
    assert isinstance(client, httpx.Client)
