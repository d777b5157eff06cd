"""Who may talk to the service, and what it tells browsers."""

from __future__ import annotations

import pytest

from cascade.errors import UsageError
from cascade.serving.guard import host_allowed
from cascade.serving.settings import ServeSettings, is_loopback

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8000", True),
        ("10.1.2.3", True),
        ("[::1]:8000", True),
        ("photos.example:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", True),  # an address, however badly written
    ],
)
def test_names_that_others_may_own_are_refused(host, allowed):
    assert host_allowed(host, ("photos.example",)) is allowed
    assert host_allowed(host, ("*",))


def test_rebinding_and_foreign_pages(client):
    assert client.get("/v2", headers={"Host": "evil.example"}).status_code == 421
    foreign = client.post("/v1/classify", content=b"x", headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_origin")
    null = client.post("/v1/classify", content=b"x", headers={"Origin": "null"})
    assert null.status_code == 403
    assert client.get("/v2", headers={"Origin": "https://evil.example"}).status_code == 200


def test_every_answer_has_the_headers_that_browsers_need(client):
    for path in ("/", "/v2", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_a_token(start_server, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    running = start_server("--token-file", str(file))
    with running.client() as client:
        for path in ("/metrics", "/v2", "/openapi.json", "/v1/nothing"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics", headers={"Authorization": "Bearer wrong-token"}).status_code == 401
        assert client.get("/metrics", headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
        assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/").status_code == 200
        # a browser trades the token for a cookie, so that images can be loaded as well
        assert client.post("/v1/session", content=b"wrong").status_code == 401
        given = client.post("/v1/session", content=TOKEN.encode())
        assert given.status_code == 200
        assert "HttpOnly" in given.headers["set-cookie"]
        assert "SameSite=strict" in given.headers["set-cookie"]
        assert client.get("/metrics").status_code == 200


def test_the_token_may_come_from_the_environment(start_server):
    running = start_server(CASCADE_TOKEN=TOKEN)
    with running.client() as client:
        assert client.get("/v2").status_code == 401


@pytest.mark.parametrize(
    ("wrong", "say"),
    [
        ({"token": "short"}, "at least 16"),
        ({"port": 70000}, "port is 70000"),
        ({"max_photos": 10, "max_waiting": 5}, "max_waiting is 5"),
        ({"max_body_bytes": 10, "max_held_bytes": 5}, "can never be held"),
        ({"body_seconds": 0}, "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, say):
    with pytest.raises(UsageError, match=say):
        ServeSettings(**wrong)


def test_what_only_this_machine_reaches():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org")] == [False] * 4
