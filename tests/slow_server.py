"""Data of many blocks from a server on loopback that takes its time: a run can be caught in the act."""

import http.server
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import zarr

SMALL = ("--rank", "4", "--sketch-size", "100")  # sketches small enough for many blocks
CHUNK, CHUNKS = (8400, 500), 32  # blocks of four chunks, 64 MiB


def plant_blocks(path):
    """A matrix of 512 MiB, all of whose chunks are one and the same file."""
    generator = np.random.default_rng(0)
    w, h = generator.integers(0, 4, (CHUNK[0], 4)), generator.integers(0, 4, (4, CHUNK[1]))
    array = zarr.create_array(
        str(path), shape=(CHUNK[0] * CHUNKS, CHUNK[1]), chunks=CHUNK, dtype="f4", fill_value=0
    )
    array[: CHUNK[0]] = (w @ h + (generator.random(CHUNK) < 0.01)).astype("f4")
    first = Path(path, "c", "0", "0")
    for i in range(1, CHUNKS):
        place = Path(path, "c", str(i), "0")
        place.parent.mkdir()
        place.hardlink_to(first)
    return path


class SlowServer(http.server.ThreadingHTTPServer):
    """Serves a folder; each chunk takes `delay` seconds, and is counted."""

    daemon_threads = True

    def __init__(self, folder):
        self.delay, self.asked = 0.0, Counter()
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *words):
                super().__init__(*words, directory=str(folder))

            def do_GET(self):
                if "/c/" in self.path:
                    server.asked[self.path] += 1
                    time.sleep(server.delay)
                super().do_GET()

            def log_message(self, *_):
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """Workers that are killed hang up; that is no news."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def bits(out):
    """The factors of a run, as bytes."""
    group = zarr.open_group(out, mode="r")
    return np.asarray(group["W"]).tobytes() + np.asarray(group["H"]).tobytes()


def words_of(*words):
    return [sys.executable, "-m", "dcf", *map(str, words)]


def dcf_process(*words, cwd, expect=0):
    """Run ``dcf words`` as a process; return what it printed and, where it fails, complained of."""
    done = subprocess.run(words_of(*words), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == expect, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if expect == 0 else done.stdout + done.stderr
