"""Health check of a container: exit 0 where its part of the Dask cluster does its work, 1 where it does not.

A scheduler has to answer, a worker has to be known to its scheduler, both through the certificates that
Dask's configuration names. Any other command has nothing to be asked: it ends when it is done.
"""

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

import dask
from distributed import rpc
from distributed.security import Security
from distributed.utils import get_ip

_SECONDS = 5


def _role() -> str:
    """Return what `dask` was started as in this container, or nothing."""
    words = Path("/proc/1/cmdline").read_text().split("\0")
    names = [Path(word).name for word in words]
    return words[names.index("dask") + 1] if "dask" in names else ""


async def _workers(address: str) -> list[str]:
    """Return the hosts of the workers that the scheduler knows."""
    credentials = Security().get_connection_args("client")
    async with rpc(address, timeout=_SECONDS, connection_args=credentials) as scheduler:
        return [urlsplit(worker).hostname or "" for worker in await scheduler.ncores()]


def main() -> int:
    """Return the exit code, and print what is wrong."""
    role = _role()
    if role not in ("scheduler", "worker"):
        return 0
    address = dask.config.get("scheduler-address", None) or "tcp://127.0.0.1:8786"
    try:
        known = asyncio.run(asyncio.wait_for(_workers(address), _SECONDS))
    except (OSError, TimeoutError, RuntimeError) as error:
        print(f"{address} does not answer: {error!r}")
        return 1
    if role == "worker" and get_ip(urlsplit(address).hostname or "") not in known:
        print(f"{address} does not know this worker.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
