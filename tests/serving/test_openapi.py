"""The service keeps to its own description, whatever is sent."""

from __future__ import annotations

import io

import jsonschema
import pytest
from conftest import COLOURS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

schemathesis = pytest.importorskip("schemathesis")


def png(rgb):
    data = io.BytesIO()
    Image.new("RGB", (24, 18), rgb).save(data, "PNG")
    return data.getvalue()


PHOTOS = [png(rgb) for _, rgb in COLOURS.values()]


def test_the_examples_are_what_the_schema_allows(client):
    description = client.get("/openapi.json").json()
    responses = description["paths"]["/v1/classify"]["post"]["responses"]
    content = responses["200"]["content"]["application/json"]
    for example in content["examples"].values():
        schema = content["schema"] | {"components": description["components"]}
        jsonschema.Draft202012Validator(schema).validate(example["value"])
    photo = client.post("/v1/classify?explain=1", content=PHOTOS[0], headers={"Content-Type": "image/png"})
    jsonschema.Draft202012Validator(schema).validate(photo.json())


def test_every_route_is_described(client):
    described = set(client.get("/openapi.json").json()["paths"])
    assert {"/v1/classify", "/metrics", "/v2/models/cascade/infer", "/v2/health/ready"} <= described


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_nothing(server):
    from schemathesis.checks import CHECKS

    photos = st.sampled_from(PHOTOS)
    for media in ("image/jpeg", "application/octet-stream"):
        schemathesis.openapi.media_type(media, photos)
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    # What a schema cannot say: numbers of values fit to shapes, a bundle promises only some shares.
    left_out = {"positive_data_acceptance"}
    checks = [check for check in CHECKS.get_all() if check.__name__ not in left_out]
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=40, database=None, derandomize=True)
        @given(case=operation.as_strategy())
        def run(case):
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=checks)

        run()
    assert tried > 200
