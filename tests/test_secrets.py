"""What is secret in a URL is nowhere to be found afterwards."""

import base64
import http.server
import logging
import threading

import numpy as np
import pytest
import zarr
from commandline import dcf
from conftest import plant, store

from dcf.errors import RunError
from dcf.urls import conceal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIA:abc/def+x@bucket/a.zarr", "s3://***@bucket/a.zarr"),
        (
            "https://me:pass@host/a?X-Amz-Signature=12af&y=2#z",
            "https://***@host/a?X-Amz-Signature=***&y=***#z",
        ),
        ("no such file: 'https://h/a?sig=q'; try", "no such file: 'https://h/a?sig=***'; try"),
        ("url=URL(http://u:p@h/x?k=v)", "url=URL(http://***@h/x?k=***)"),
        ("file:///a/b@c.zarr and a@b.c", "file:///a/b@c.zarr and a@b.c"),
        ("http://127.0.0.1:80/a@2/b", "http://127.0.0.1:80/a@2/b"),
        ("https://host/plain/a.zarr", "https://host/plain/a.zarr"),
    ],
)
def test_what_is_shown_of_a_url(text, shown):
    assert conceal(text) == shown
    assert str(RunError(text)) == shown


@pytest.fixture
def guarded(tmp_path):
    """A server that gives files to who knows the password; yields its URL and the folder."""
    wanted = "Basic " + base64.b64encode(b"me:hunter2").decode()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(tmp_path))

        def do_GET(self):
            if self.headers.get("Authorization") != wanted:
                return self.send_error(401)
            return super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:hunter2@127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    server.server_close()


def test_a_password_is_used_and_kept_nowhere(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    url, folder = guarded
    store(folder / "s.zarr", plant(300, 20)[0], chunks=(100, 20))
    out = folder / "o.zarr"
    printed = dcf("nmf", f"{url}/s.zarr", out, "--rank", 3, "--json")
    printed += dcf("inspect", out)
    with_sketch = folder / "staged.zarr"
    printed += dcf("sketch", f"{url}/s.zarr", with_sketch, "--rank", 3)
    for verb in ("factorize", "recover"):
        printed += dcf(verb, with_sketch)
    printed += dcf("inspect", with_sketch)
    refused = dcf("refine", with_sketch, expect=2)
    assert "held a secret, which no run keeps" in refused[1]
    printed += dcf("nmf", f"{url}/s.zarr", with_sketch, "--rank", 3)
    (folder / "s.zarr" / "c" / "1" / "0").write_bytes(b"")
    printed += dcf("nmf", f"{url}/s.zarr", folder / "bad.zarr", "--rank", 3, expect=3)
    printed += dcf("nmf", f"{url}/none.zarr", folder / "none", "--rank", 3, expect=2)
    assert np.isfinite(zarr.open_group(out)["W"][:]).all()
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("dcf")]
    for text in (*printed, *refused, *logged):
        assert "hunter2" not in text
    for file in folder.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()
