"""Processes against threads: the seconds of both passes under each layout of two workers.

    python benchmarks/layouts.py

1.6 GB float32 in chunks of 16 MB; every layout three times in turn, the best of each printed as
MB/s, so that drift of the machine hits all alike.
"""

import tempfile
from pathlib import Path

import dask
import zarr
from distributed import Client, LocalCluster
from zarr.codecs import BloscCodec

import dcf
from dcf.cluster.environment import CONFIG
from dcf.datasets import planted_nmf

LAYOUTS = {"2 processes x 1 thread": (2, 1), "1 process x 2 threads": (1, 2), "1 process x 1 thread": (1, 1)}
SIZE = 200_000 * 2000 * 4


def rates(source: Path, workers: int, threads: int) -> tuple[float, float]:
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        dashboard_address=None,
        worker_dashboard_address=None,
        memory_limit=0,
    )
    with cluster, Client(cluster), tempfile.TemporaryDirectory() as folder:
        result = dcf.nmf(source, rank=10, out=Path(folder) / "o.zarr", memory="1GiB")
    seconds = result.attributes["seconds"]
    return SIZE / 1e6 / seconds["sketch"], SIZE / 1e6 / seconds["refine 1"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.zarr", Path(folder) / "blosc.zarr"
        planted_nmf(plain, (200_000, 2000), 10)
        array = zarr.open_array(plain)
        target = zarr.create_array(
            packed, shape=array.shape, chunks=array.chunks, dtype="f4", compressors=BloscCodec(cname="lz4")
        )
        for i in range(0, array.shape[0], array.chunks[0]):
            target[i : i + array.chunks[0]] = array[i : i + array.chunks[0]]
        print("codec   layout                    sketch MB/s   refine MB/s")
        for codec, source in (("none", plain), ("blosc", packed)):
            best = dict.fromkeys(LAYOUTS, (0.0, 0.0))
            for _ in range(3):
                for name, shape in LAYOUTS.items():
                    with dask.config.set(CONFIG):
                        got = rates(source, *shape)
                    best[name] = (max(best[name][0], got[0]), max(best[name][1], got[1]))
            for name, (sketch, refine) in best.items():
                print(f"{codec:<6}  {name:<24}  {sketch:>11.0f}   {refine:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
