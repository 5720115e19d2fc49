"""A server that fails now and then is asked again; what it does not give is never taken for absent."""

import http.server
import threading
from collections import Counter

import pytest
from conftest import plant, store
from test_runs import bits

import dcf
from dcf.errors import RunError
from dcf.storage import remote


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Fails the first tries of every chunk in the way that `failures` say, one after the other."""

    folder, failures, asked = "", (), Counter()

    def __init__(self, *words):
        super().__init__(*words, directory=self.folder)

    def do_GET(self):
        if "/c/" in self.path:
            turn = self.asked[self.path]
            self.asked[self.path] += 1
            if turn < len(self.failures):
                how = self.failures[turn]
                if how == "reset":
                    return self.connection.close()
                if how == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "100000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                    return self.connection.close()
                return self.send_error(how)
        return super().do_GET()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,) * 5)
    Flaky.folder, Flaky.asked = str(tmp_path), Counter()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/s.zarr"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("failures", [(503, 500), ("reset", "cut", 503)], ids=str)
def test_a_server_that_fails_now_and_then(tmp_path, nmf, flaky, failures):
    store(tmp_path / "s.zarr", plant()[0])
    expected = bits(nmf(tmp_path / "s.zarr"))
    Flaky.failures = failures
    result = dcf.nmf(flaky, rank=4)
    assert bits(result) == expected
    assert result.attributes["missing_chunks"] == 0
    assert set(Flaky.asked.values()) == {2 + len(failures)}  # two passes, and what failed


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_server_that_goes_on_failing(tmp_path, flaky, monkeypatch, processes):
    if processes:  # what caused an error need not pickle, the error has to
        monkeypatch.setattr("dcf.api.SMALL_SOURCE_BYTES", 0)
    store(tmp_path / "s.zarr", plant()[0])
    Flaky.failures = (503,) * 100
    with pytest.raises(dcf.SourceError, match=r"chunk c/\d/\d .* could not be read after 6 tries .*503"):
        dcf.nmf(flaky, rank=4, out=tmp_path / "o.zarr")
    Flaky.failures = ()
    assert dcf.nmf(flaky, rank=4, out=tmp_path / "o.zarr").attributes["passes"] == 2


def test_a_server_that_does_not_have_a_chunk(tmp_path, flaky):
    store(tmp_path / "s.zarr", plant()[0])
    (tmp_path / "s.zarr" / "c" / "1" / "1").unlink()
    Flaky.failures = ()
    result = dcf.nmf(flaky, rank=4)
    assert result.attributes["missing_chunks"] == 1


def test_a_chunk_that_is_larger_than_makes_sense(tmp_path, flaky):
    store(tmp_path / "s.zarr", plant()[0], compressors=None)
    (tmp_path / "s.zarr" / "c" / "1" / "1").write_bytes(bytes(3 << 20))
    Flaky.failures = ()
    with pytest.raises(dcf.SourceError, match=r"chunk c/1/1 .* takes 3145728 bytes, \d+ at most make sense"):
        dcf.nmf(flaky, rank=4)


@pytest.mark.parametrize("status", [401, 403])
def test_a_chunk_that_may_not_be_read(tmp_path, flaky, status):
    store(tmp_path / "s.zarr", plant()[0])
    Flaky.failures = (status,) * 10
    with pytest.raises(RunError, match=rf"chunk c/\d/\d .* could not be read \(.*{status}.* resumes"):
        dcf.nmf(flaky, rank=4)
    assert max(Flaky.asked.values()) == 1
