"""What every worker process of dcf is told, wherever it runs."""

from typing import Any

# glibc gives freed memory back, and faults it in anew, at every large chunk unless told otherwise.
_MALLOC = str(256 * 2**20)
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": _MALLOC,
    "MALLOC_MMAP_THRESHOLD_": _MALLOC,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
}
# The plan keeps memory; pausing and spilling below it would only get in the way. Where the plan is wrong,
# the nanny ends the worker before the system has to choose a victim.
_OF_WORKERS: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    "distributed.worker.preload": ["dcf.leave"],
}
CONFIG: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    **_OF_WORKERS,
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.admin.tick.limit": "1 hour",
}
# Jobs of a queue end for reasons that have nothing to do with the task that they had in hand.
OF_QUEUES: dict[str, Any] = {
    "distributed.admin.tick.limit": "1 hour",
    "distributed.deploy.lost-worker-timeout": "1 minute",
    "distributed.scheduler.allowed-failures": 10,
}


def shell_exports() -> list[str]:
    """Return lines of shell that tell a worker of a batch job the same."""
    told = {f"DASK_{key.upper().replace('.', '__')}": str(value) for key, value in _OF_WORKERS.items()}
    return [f'export {name}="{value}"' for name, value in {**WORKER_ENVIRONMENT, **told}.items()]
