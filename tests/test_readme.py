"""The README's commands, as they are written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from commandline import dcf

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_quickstart_runs_as_written(tmp_path, monkeypatch, conforms):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert all(len(block.splitlines()) <= 20 for block in blocks)
    code = "\n".join(blocks)
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(20000, 5) (5, 300)" in done.stdout
    assert "The error is exact" in done.stdout
    assert "(3,) [(5000, 3), (40, 3), (16, 3)]" in done.stdout
    conforms(tmp_path / "factors.zarr", tmp_path / "counts.zarr")
    shell = re.search(r"The same from the shell:\n\n```\n(.*?)```", README, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    for line in shell.splitlines():
        name, *words = shlex.split(line, comments=True)
        assert name == "dcf"
        dcf(*words)
    conforms(tmp_path / "factors-cli.zarr", tmp_path / "counts.zarr")
