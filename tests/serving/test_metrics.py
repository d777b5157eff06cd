"""The figures for Prometheus."""

from __future__ import annotations

import io

from conftest import COLOURS, INDOOR_COLOUR, UNKNOWN_COLOUR
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families


def png(rgb):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), rgb).save(data, "PNG")
    return data.getvalue()


def figures(client):
    text = client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_happened_is_counted(start_server):
    with start_server().client() as client:
        headers = {"Content-Type": "image/png"}
        for rgb in (COLOURS["menu"][1], INDOOR_COLOUR, UNKNOWN_COLOUR):
            assert client.post("/v1/classify", content=png(rgb), headers=headers).status_code == 200
        client.post("/v1/classify", content=b"bad", headers=headers)
        client.get("/no/such/page")
        found = figures(client)
    assert found["cascade_photos_total", "ok"] == 3
    assert found["cascade_photos_total", "not_an_image"] == 1
    assert found["cascade_answers_total", "menu"] == 1
    assert found["cascade_answers_total", "unknown"] == 1
    assert found["cascade_reasons_total", "doubtful"] == 1
    assert found["cascade_deferred_total",] >= 1
    assert found["cascade_expert_asked_total", "rooms"] == found["cascade_deferred_total",]
    assert found["cascade_requests_total", "/v1/classify", "200"] == 3
    assert found["cascade_requests_total", "/v1/classify", "422"] == 1
    assert found["cascade_requests_total", "404", "other"] == 1
    assert found["cascade_stage_seconds_count", "general"] == 3
    assert found["cascade_ready",] == 1
    assert found["cascade_queue_photos",] == 0
    assert found["cascade_queue_limit",] == 256
    assert found["cascade_held_body_bytes",] == 0
    assert found["process_resident_memory_bytes",] > 1e7


def test_names_that_clients_make_up_make_no_new_series(client):
    for number in range(50):
        client.get(f"/made/up/{number}")
        client.get(f"/v2/models/cascade/versions/{number}")
    paths = {line.split('path="')[1].split('"')[0] for line in client.get("/metrics").text.splitlines()
             if line.startswith("cascade_requests_total")}  # fmt: skip
    assert not any("made" in path for path in paths)
    assert "/v2/models/cascade/versions/{version}" in paths
