"""One look at each worker of the smallest cluster that a file describes, whether a run would work there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from typing import TYPE_CHECKING, Any

from dcf.cluster.connect import attached, connect, placement
from dcf.cluster.workers import ClientWorkers
from dcf.errors import RunError
from dcf.sizes import gigabytes, mib
from dcf.storage.trial import read_corner, write_beside

if TYPE_CHECKING:
    from distributed import Client

    from dcf.cluster.configuration import ClusterConfig

_PACKAGES = ("dcf", "zarr", "dask", "distributed", "numpy", "numba")
_LEAST_SCRATCH = 10**8  # bytes: logs and what Dask keeps beside
_POLL_SECONDS = 0.5


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that tasks need, in this process."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def look(source: str, out: str, dask_worker: Any) -> dict[str, Any]:
    """Return what a run would find on a worker: versions, memory, scratch, what it can read and write."""
    limit = getattr(dask_worker.memory_manager, "memory_limit", None)
    scratch = dask_worker.local_directory
    try:
        with tempfile.NamedTemporaryFile(dir=scratch):
            pass
        free, trouble = shutil.disk_usage(scratch).free, ""
    except OSError as error:
        free, trouble = 0, str(error)
    return {
        "machine": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count(),
        "threads": dask_worker.state.nthreads,
        "versions": versions(),
        "memory": limit,
        "scratch": {"folder": scratch, "free": free, "trouble": trouble},
        "source": read_corner(source) if source else None,
        "out": write_beside(out) if out else None,
    }


def check_cluster(
    config: ClusterConfig, memory: int, source: str, out: str, patience: float
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Start the smallest cluster of a configuration; return what each worker found, and what is wrong.

    memory : bytes that a worker is to have; source, out : what it is to read and write, empty for nothing;
    patience : seconds to wait for the first worker. Raises `RunError` where none comes.
    """
    smallest = config.smallest()
    with attached(smallest):
        count, _, _ = placement(smallest, smallest.workers, False)
        with connect(count, False, memory, config=smallest) as workers:
            if not isinstance(workers, ClientWorkers):
                raise RunError(
                    "dask.config names a scheduler of this process; there is no cluster to look at."
                )
            _wait(workers, patience)
            found = _ask(workers.client, source, out)
    wrong = [
        f"{address}: {sentence}" for address, seen in found.items() for sentence in _troubles(seen, memory)
    ]
    return found, wrong


def _wait(workers: ClientWorkers, patience: float) -> None:
    start = time.monotonic()
    while not workers.client.scheduler_info(n_workers=-1)["workers"]:
        waits = workers.may_come()
        if time.monotonic() - start > patience:
            what = "its job waits in the queue still" if waits else "no job is there"
            raise RunError(f"No worker came in {patience:.0f} s ({what}); --wait gives it longer.")
        time.sleep(_POLL_SECONDS)


def _ask(client: Client, source: str, out: str) -> dict[str, dict[str, Any]]:
    try:
        return dict(client.run(look, source, out))
    except ImportError as error:
        raise RunError(
            f"The workers lack a package of dcf's ({error}); install dcf in their Python."
        ) from error


def _troubles(seen: dict[str, Any], memory: int) -> list[str]:
    here, said = versions(), []
    for name, version in seen["versions"].items():
        if version != here[name] and (
            name != "python" or version.rpartition(".")[0] != here[name].rpartition(".")[0]
        ):
            said.append(f"{name} is {version} there and {here[name]} here; install the same in both.")
    if seen["memory"] and seen["memory"] < memory * seen["threads"]:
        said.append(
            f"it may take {mib(seen['memory'])} for {seen['threads']} threads of {mib(memory)} each;"
            " give it more, or lower --memory."
        )
    scratch = seen["scratch"]
    if scratch["trouble"] or scratch["free"] < _LEAST_SCRATCH:
        why = scratch["trouble"] or f"{gigabytes(scratch['free'])} free"
        said.append(f"its scratch folder {scratch['folder']} cannot be used ({why}); name another one.")
    if seen["source"]:
        said.append(
            f"it cannot read SOURCE ({seen['source']}); is the path or URL one that all machines see?"
        )
    if seen["out"]:
        said.append(
            f"it cannot write OUT ({seen['out']}); is the path or URL one that all machines may write?"
        )
    return said
