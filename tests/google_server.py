"""A server of Google Cloud Storage on this machine, for tests: gcp-storage-emulator, corrected.

The emulator gives a listing in one piece, and an empty range of an empty object as success. Google's server
gives pages of at most `maxResults` names, from `startOffset` on, and answers such a range with status 416. It
also refuses requests; here the buckets of `REFUSING` do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import HTTPServer
from types import SimpleNamespace
from typing import Any

#: Of every process that reads from the server, besides its address. gcsfs would ask over gRPC whether a
#: bucket is a zonal one, which the emulator does not speak.
SETTINGS = {"FSSPEC_GS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
os.environ |= SETTINGS

import fsspec.config
import gcp_storage_emulator.server as emulator
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage

__all__ = ["REFUSING", "SETTINGS", "serve"]

#: Buckets that answer every request with this status.
REFUSING = {"unauthorized": HTTPStatus.UNAUTHORIZED, "forbidden": HTTPStatus.FORBIDDEN}

fsspec.config.set_conf_env(fsspec.config.conf)  # fsspec may have been imported before

import gcsfs  # noqa: F401 - those who have none skip


@contextmanager
def serve() -> Iterator[str]:
    """Run a server that holds its objects in memory; yields what STORAGE_EMULATOR_HOST must be."""
    storage = Storage(use_memory_fs=True)
    server = _Server(("127.0.0.1", 0), partial(emulator.RequestHandler, storage))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(HTTPServer):
    request_queue_size = 128  # eight readers in each of two workers knock at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: gcsfs asks two questions at once and hangs up when one is answered."""


def _list_in_pages(request: Any, response: Any, storage: Storage) -> None:
    if _refused(request, response):
        return
    told = SimpleNamespace(status=HTTPStatus.OK, json=lambda found: vars(told).update(found=found))
    objects.ls(request, told, storage)
    response.status = told.status
    if told.status != HTTPStatus.OK:
        return
    asked = {name: values[0] for name, values in request.query.items()}
    first = max(asked.get("startOffset", ""), asked.get("pageToken", ""))
    items = [one for one in told.found["items"] if one["name"] >= first]
    most = min(int(asked.get("maxResults", 1000)), 1000)
    page = {"kind": told.found["kind"], "prefixes": told.found["prefixes"], "items": items[:most]}
    if len(items) > most:
        page["nextPageToken"] = items[most]["name"]
    response.json(page)


def _download(request: Any, response: Any, storage: Storage) -> None:
    if _refused(request, response):
        return
    objects.download(request, response, storage)
    if response.status == HTTPStatus.PARTIAL_CONTENT and response["Content-Range"].endswith("/0"):
        response.status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        response.write_file(b"Request range not satisfiable", content_type="text/html")


def _refused(request: Any, response: Any) -> bool:
    status = REFUSING.get(request.params["bucket_name"])
    if status is not None:
        response.status = status
        response.json({"error": {"code": status.value, "message": "no access"}})
    return status is not None


for _, methods in emulator.HANDLERS:
    for method, handler in methods.items():
        methods[method] = {objects.ls: _list_in_pages, objects.download: _download}.get(handler, handler)
