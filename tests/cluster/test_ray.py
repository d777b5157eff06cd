"""`cascade classify --engine ray` and `cascade.ray` on two Ray nodes, with photos on disk and in S3.

Ray takes some ten seconds to start, so all tests share one cluster.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("ray", reason="needs Ray: pip install 'cascade-vision[ray]'")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'cascade-vision[ray]'")
pytest.importorskip("moto.server", reason="needs an S3 server: pip install 'moto[server]'")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Ray clusters are for Unix"),
    pytest.mark.filterwarnings("ignore"),  # Ray leaves sockets and files to the end of the process
]

from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from cascade.cluster.plan import part_name

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


HAS_GOOGLE_SERVER = all(importlib.util.find_spec(name) for name in ("gcsfs", "gcp_storage_emulator"))


@pytest.fixture(scope="module")
def google_storage():
    """What tells processes where a server of Google Cloud Storage is; nothing if there is none."""
    if not HAS_GOOGLE_SERVER:
        yield {}
        return
    import google_server

    with google_server.serve() as address:
        yield {"STORAGE_EMULATOR_HOST": address, **google_server.SETTINGS}


@pytest.fixture(scope="module")
def environment(google_storage):
    """Of every process of these tests: no statistics are sent, and object stores are on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    kept = os.environ.copy()
    os.environ |= google_storage
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), kept.get("PYTHONPATH", "")])),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= kept
        server.stop()


@pytest.fixture(scope="module")
def cluster(environment):
    """The address of a cluster of two nodes with a core each."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def classify(*arguments, bundle):
    told = [sys.executable, "-m", "cascade", "classify", *map(str, arguments), "--bundle", str(bundle)]
    return subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished(process):
    _, err = process.communicate(timeout=150)
    return process.returncode, err


def rows_in(folder):
    return sorted(pq.read_table(str(folder)).to_pylist(), key=lambda row: row["path"])


def parts_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def workers():
    """Numbers of the processes of this cluster that classify parts now; nobody else's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if "_PartWorker" in path.read_text() and is_below_us(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


def is_below_us(process):
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for worker processes in /proc")
def test_a_worker_and_the_driver_are_killed(cluster, tiny_bundle, tmp_path):
    archive, rows = tmp_path / "archive", tmp_path / "rows"
    archive.mkdir()
    # Noise takes its time to decode, so that there is something to kill.
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=1)
    for n in range(60):
        (archive / f"{n:03}.png").hardlink_to(tmp_path / "noise.png")
    for n in range(7, 60, 10):
        (archive / f"{n:03}.png").unlink()
        (archive / f"{n:03}.png").write_bytes(b"no image")
    told = [archive, "--engine", "ray", "--ray-address", cluster, "--part-size", "5", "--output", rows]
    first = classify(*told, bundle=tiny_bundle)
    wait_for(lambda: len(parts_in(rows)) >= 3, first)
    os.kill(workers()[0], signal.SIGKILL)
    wait_for(lambda: len(parts_in(rows)) >= 6, first)
    first.kill()
    first.communicate()
    wait_for_end = time.monotonic() + 60
    while workers() and time.monotonic() < wait_for_end:  # Ray ends the workers of a driver that is gone
        time.sleep(0.1)
    done = parts_in(rows)
    assert 6 <= len(done) < 12
    code, err = finished(classify(*told, "--resume", bundle=tiny_bundle))
    assert (code, "were done before" in err) == (1, True), err
    assert done.items() <= parts_in(rows).items()
    assert finished(classify(archive, "--output", tmp_path / "one.parquet", bundle=tiny_bundle))[0] == 1
    assert rows_in(rows) == rows_in(tmp_path / "one.parquet")
    assert {row["path"] for row in rows_in(rows) if row["error_code"]} == {
        str(archive / f"{n:03}.png") for n in range(7, 60, 10)
    }


def test_photos_and_rows_in_s3(cluster, tiny_bundle, photo, tmp_path):
    s3 = s3fs.S3FileSystem()
    s3.mkdir("archive")
    for n, colour in enumerate(["beach", "menu", "forest", "kitchen"] * 5):
        s3.pipe_file(f"archive/photos/{n:02}.png", photo("one.png", colour).read_bytes())
    s3.pipe_file("archive/photos/bad.jpg", b"no image")
    s3.pipe_file("archive/photos/readme.txt", b"text")
    told = ["s3://archive/photos", "--engine", "ray", "--ray-address", cluster, "--part-size", "6"]
    code, err = finished(classify(*told, "--output", "s3://archive/rows", bundle=tiny_bundle))
    assert (code, "21 photos in" in err, "passed over: not photos 1" in err) == (1, True, True), err
    tables = [pq.read_table(s3.open(f"archive/rows/{part_name(n)}")) for n in range(4)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["path"] for row in rows] == [f"s3://archive/photos/{n:02}.png" for n in range(20)] + [
        "s3://archive/photos/bad.jpg"
    ]
    assert [row["label"] for row in rows] == [*["beach", "menu", "forest", "kitchen"] * 5, None]
    code, err = finished(classify(*told, "--output", "s3://archive/rows", "--resume", bundle=tiny_bundle))
    assert (code, "0 photos" in err, "21 were done before" in err) == (1, True, True), err
    s3.rm_file("archive/rows/part-000003.parquet")
    s3.rm_file("archive/rows/_cascade/plan/part-000003.parquet")
    code, err = finished(classify(*told, "--output", "s3://archive/rows", "--resume", bundle=tiny_bundle))
    assert (code, "plan/part-000003.parquet: is missing; begin again with --restart" in err) == (2, True), err


@pytest.mark.skipif(
    not HAS_GOOGLE_SERVER, reason="needs: pip install 'cascade-vision[gcs]' gcp-storage-emulator"
)
def test_photos_and_rows_in_google_storage(cluster, tiny_bundle, photo):
    import gcsfs

    files, colours = gcsfs.GCSFileSystem(), ["beach", "menu", "forest", "kitchen"] * 3
    files.mkdir("archive")
    for n, colour in enumerate(colours):
        files.pipe_file(f"archive/photos/{n:02}.png", photo("one.png", colour).read_bytes())
    files.pipe_file("archive/photos/bad.jpg", b"no image")
    told = ["gs://archive/photos", "--engine", "ray", "--ray-address", cluster, "--part-size", "5"]
    told += ["--output", "gs://archive/rows"]
    code, err = finished(classify(*told, bundle=tiny_bundle))
    assert (code, "13 photos in" in err) == (1, True), err
    tables = [pq.read_table(files.open(f"archive/rows/{part_name(n)}")) for n in range(3)]
    rows = [row for table in tables for row in table.to_pylist()]
    wanted = [f"gs://archive/photos/{n:02}.png" for n in range(12)]
    assert [row["path"] for row in rows] == [*wanted, "gs://archive/photos/bad.jpg"]
    assert [row["label"] for row in rows] == [*colours, None]
    files.rm_file("archive/rows/part-000001.parquet")
    code, err = finished(classify(*told, "--resume", bundle=tiny_bundle))
    assert (code, "5 photos in" in err, "8 were done before" in err) == (1, True, True), err
    assert pq.read_table(files.open("archive/rows/part-000001.parquet")).to_pylist() == rows[5:10]


def test_classifier_in_a_pipeline_of_ones_own(cluster, tiny_bundle, photo, tmp_path):
    """As docs/clusters.md shows it: rows of paths, and the tar archives and Parquet files that hold bytes."""
    code = """
import sys
import ray
from cascade.ray import Classifier
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
def labels(photos, batch_format="pyarrow", **options):
    rows = photos.map_batches(
        Classifier, fn_constructor_kwargs={"bundle": sys.argv[2], **options}, batch_format=batch_format,
        num_cpus=1, compute=ray.data.ActorPoolStrategy(size=1),
    )
    print(sorted(row["label"] for row in rows.take_all()))
paths = ray.data.from_items([{"path": path} for path in sys.argv[4:]])
for batch_format in ("pyarrow", "default", "pandas"):
    labels(paths, batch_format)
photos = ray.data.read_webdataset(sys.argv[3] + "/shards", decoder=None)
labels(photos, path_column="__key__", bytes_column="png")
photos = ray.data.read_parquet(sys.argv[3] + "/parquet", columns=["image"])
photos = photos.map_batches(lambda table: table.flatten(), batch_format="pyarrow")
labels(photos, path_column="image.path", bytes_column="image.bytes")
"""
    photos = [photo(f"{colour}.png", colour) for colour in ("menu", "beach", "forest")]
    for folder in ("shards", "parquet"):
        (tmp_path / folder).mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for path in photos:
            tar.add(path, arcname=path.name)
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in photos]
    pq.write_table(pa.table({"image": images}), tmp_path / "parquet" / "0.parquet")
    ran = subprocess.run(
        [sys.executable, "-c", code, cluster, tiny_bundle, tmp_path, *photos],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert ran.stdout.splitlines() == ["['beach', 'forest', 'menu']"] * 5, ran.stderr
