"""Whether photos get the same rows wherever they are kept, and whether a run survives being killed there.

    python benchmarks/photo_sources.py PHOTOS [--photos 2000] [--kills 3] [--bundle DIR]

The photos of a folder are put into an S3 server on this machine, a tar archive, a compressed one and a
Parquet file, together with a broken photo. Each is classified once undisturbed and compared with the rows of
the folder, then once more in a run that is ended with SIGKILL again and again and continued with --resume.
Needs: pip install 'cascade-vision[s3,parquet]' 'moto[server]'
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

BUCKET = "photos"


def collect(photos: Path, folder: Path, count: int) -> None:
    """Copy photos of a folder, evenly from all of it, and add one that is broken."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for number, path in enumerate(files[:: max(1, len(files) // count)][:count]):
        place = folder / f"{number // 500:03d}" / f"{number:05d}{path.suffix.lower()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    (folder / "broken.jpg").write_bytes(b"no photo")


def serve() -> Any:
    """Start an S3 server, and point the environment of this process and its children to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return server


def pack(folder: Path, work: Path) -> dict[str, str]:
    """Keep the photos in every way there is; returns kind -> what is given to `cascade classify`."""
    import boto3
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for path, name in zip(files, names, strict=True):
        client.put_object(Bucket=BUCKET, Key=f"all/{name}", Body=path.read_bytes())
    for archive, mode in (("all.tar", "w"), ("all.tar.gz", "w:gz")):
        with tarfile.open(work / archive, mode) as tar:
            for path, name in zip(files, names, strict=True):
                tar.add(path, arcname=name)
    with (work / "all.tar").open("rb") as file:
        client.upload_fileobj(file, BUCKET, "all.tar")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pq.ParquetWriter(work / "all.parquet", pa.schema([("image", kind)])) as writer:
        for start in range(0, len(files), 200):
            part = slice(start, start + 200)
            images = [
                {"bytes": path.read_bytes(), "path": name}
                for path, name in zip(files[part], names[part], strict=True)
            ]
            writer.write_table(pa.table({"image": pa.array(images, kind)}))
    return {
        "folder": str(folder),
        "s3": f"s3://{BUCKET}/all",
        "tar": str(work / "all.tar"),
        "tar.gz": str(work / "all.tar.gz"),
        "tar in s3": f"s3://{BUCKET}/all.tar",
        "parquet": str(work / "all.parquet"),
    }


def start(source: str, output: Path, bundle: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cascade", "classify", source, "-o", str(output), "--resume", "-q"]
    return subprocess.Popen([*command, *(["--bundle", str(bundle)] if bundle else [])])


def rows(output: Path, source: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the rest of every row, without what depends on the clock."""
    found = []
    for line in output.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.append((row["path"].removeprefix(source).lstrip("/"), row | {"path": None, "ms": None}))
    return sorted(found, key=lambda one: one[0])


def kill_and_resume(source: str, output: Path, bundle: Path | None, kills: int, calm: int) -> int:
    """Kill a run when it has written some of its rows, again and again, and let the last one finish."""
    died, moments = 0, random.Random(7)
    for number in range(1, kills + 1):
        process = start(source, output, bundle)
        enough = calm * (number - moments.random() / 2) / (kills + 1)
        while process.poll() is None:
            if output.exists() and output.stat().st_size >= enough:
                process.kill()
                died += 1
                break
            time.sleep(0.02)
        process.wait()
    start(source, output, bundle).wait()
    return died


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--photos", dest="count", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    server = serve()
    with tempfile.TemporaryDirectory() as home:
        work = Path(home)
        collect(given.photos, work / "all", given.count)
        expected: list[tuple[str, dict[str, Any]]] = []
        wrong = 0
        print(
            f"{'source':<12}{'rows':>8}{'different':>11}{'kills':>7}{'lost':>6}{'doubled':>9}{'different':>11}"
        )
        for kind, source in pack(work / "all", work).items():
            calm, killed = work / "calm.jsonl", work / "killed.jsonl"
            start(source, calm, given.bundle).wait()
            found = rows(calm, source)
            expected = expected or found
            different = sum(a != b for a, b in zip(expected, found, strict=False))
            died = kill_and_resume(source, killed, given.bundle, given.kills, calm.stat().st_size)
            after = rows(killed, source)
            names = {name for name, _ in after}
            lost, doubled = len({name for name, _ in expected} - names), len(after) - len(names)
            changed = sum(a != b for a, b in zip(expected, after, strict=False))
            print(
                f"{kind:<12}{len(found):>8,}{different:>11}{died:>7}{lost:>6}{doubled:>9}{changed:>11}",
                flush=True,
            )
            wrong += different + lost + doubled + changed + abs(len(found) - len(expected))
            for path in work.glob("*.jsonl*"):
                path.unlink()
    server.stop()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
