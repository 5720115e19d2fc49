"""The command line: ``dcf VERB …``."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shlex
import signal
import sys
from typing import Any, NoReturn

import click
from rich.console import Console

from dcf.api import absolute, plan_run, run_source, run_stage
from dcf.cli.away import cancel, logs, status
from dcf.cli.cluster import cluster
from dcf.cli.options import (
    cluster_of,
    cluster_options,
    json_option,
    memory_option,
    overwrite_option,
    settings_of,
    settings_options,
    stage_memory_option,
    together,
    workers_option,
)
from dcf.cli.progress import reporter_for
from dcf.cli.text import component_lines, plan_lines, submitted_lines, summary_lines, unfinished_lines
from dcf.errors import DcfError, Stopped, UsageError
from dcf.settings import METHODS_OF
from dcf.storage.run import RunGroup
from dcf.storage.source import describe, open_source
from dcf.submission import go_on, host_here, submit_run
from dcf.urls import conceal


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken the way Ctrl-C is."""


class _Verbs(click.Group):
    """The verbs; `demo` is imported when it is asked for, since it brings half of SciPy along."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return sorted([*super().list_commands(ctx), "demo"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb of this name."""
        if cmd_name == "demo":
            command: click.Command = importlib.import_module("dcf.cli.demo").demo
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dcf")
def app() -> None:
    """Factorize matrices and tensors larger than memory, out of chunked Zarr arrays.

    Exit codes: 0 done, 1 failed, 2 usage, 3 bad data, 4 does not fit the memory budget, 130 and 143
    interrupted (the same command resumes).
    """


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(conceal(line))


def _show(run: RunGroup, as_json: bool) -> None:
    record = run.record
    if as_json:
        click.echo(json.dumps(record, indent=2))
    elif record["stage"] == "done":
        _say(summary_lines(record, run.url))
    else:
        _say(unfinished_lines(run))


def _console() -> Console:
    return Console(stderr=True)


def _words() -> list[str]:
    """Return the command line as it is recorded: typed again, it resumes."""
    return [word for word in sys.argv[1:] if word != "--overwrite"]


def _run(decomposition: str, source: str, out: str, options: dict[str, Any], last: str) -> None:
    cluster = cluster_of(options)
    try:
        run = run_source(
            source,
            out,
            settings_of(decomposition, options),
            memory=options["memory"],
            workers=options["workers"],
            cluster=cluster,
            overwrite=options["overwrite"],
            last=last,
            command=shlex.join(["dcf", *_words()]),
            reporter=reporter_for(_console()),
            host=host_here(),
        )
    except Stopped as stop:
        job = go_on(out, cluster, str(stop)) if cluster is not None else ""
        raise Stopped(f"{stop} It goes on as job {job}." if job else str(stop)) from stop
    _show(run, options["as_json"])


def _submit(decomposition: str, source: str, out: str, options: dict[str, Any]) -> None:
    cluster = cluster_of(options)
    if cluster is None:
        raise UsageError("dcf submit leaves the driver to a cluster: give --cluster FILE or --scheduler.")
    words = _words()
    words.remove("submit")
    job = submit_run(
        source,
        out,
        settings_of(decomposition, options),
        words=words,
        memory=options["memory"],
        workers=options["workers"],
        cluster=cluster,
        overwrite=options["overwrite"],
    )
    if options["as_json"]:
        click.echo(json.dumps(job, indent=2))
    else:
        _say(submitted_lines(job, out))


def _verb(decomposition: str, text: str) -> None:
    """Add the verb of a decomposition to the command line, and to ``dcf submit``."""
    decorate = together(
        settings_options(decomposition),
        memory_option,
        workers_option,
        cluster_options,
        overwrite_option,
        json_option,
    )

    def run(source: str, out: str, **options: Any) -> None:
        _run(decomposition, source, out, options, "done")

    def leave(source: str, out: str, **options: Any) -> None:
        _submit(decomposition, source, out, options)

    resumes = "The same command resumes an interrupted run at the last finished block."
    for group, function, more in ((app, run, resumes), (submit, leave, "By a driver that is left alone.")):
        verb = group.command(decomposition, help=f"{text}\n\n{more}")
        verb(click.argument("source")(click.argument("out")(decorate(function))))


@app.group(short_help="Leave a run to a batch queue or a running Dask cluster.")
def submit() -> None:
    """Leave a run to a batch queue (--cluster) or a running Dask cluster (--scheduler), and come back later.

    The driver itself becomes a job, which another one follows when its time is up, or a task of the cluster.
    Then: dcf status OUT, dcf logs OUT, dcf cancel OUT, from any shell.
    """


_verb("nmf", "Factorize SOURCE ≈ W H with W, H ≥ 0 into the run group OUT.")
_verb("semi-nmf", "Factorize SOURCE ≈ W H with one factor ≥ 0, that of the axis not compressed.")
_verb("spca", "Factorize SOURCE ≈ W H with a sparse factor, of any sign, along the compressed axis.")
_verb("svd", "Find the leading singular triplets of SOURCE; with --center, its PCA.")
_verb("cp", "Decompose a tensor (CP): SOURCE ≈ Σ λ a ∘ b ∘ c ∘ …, three axes or more.")

_as_option = click.option(
    "--as",
    "decomposition",
    type=click.Choice(tuple(METHODS_OF)),
    default="nmf",
    show_default=True,
    help="The decomposition that the run is for.",
)


@app.command()
@click.argument("source")
@_as_option
@settings_options(*METHODS_OF)
@memory_option
@workers_option
@cluster_options
@json_option
def plan(source: str, decomposition: str, **options: Any) -> None:
    """Say what a run would do: passes, bytes, tasks, memory. Reads no chunk."""
    settings = settings_of(decomposition, options)
    made = plan_run(source, settings, options["memory"], options["workers"], cluster_of(options))
    if options["as_json"]:
        click.echo(json.dumps(made.record(), indent=2))
    else:
        array = open_source(source, tensor=decomposition == "cp")
        _say(plan_lines(made, describe(array, source)))


@app.command()
@click.argument("source")
@click.argument("out")
@_as_option
@settings_options(*METHODS_OF)
@memory_option
@workers_option
@cluster_options
@overwrite_option
@json_option
def sketch(source: str, out: str, decomposition: str, **options: Any) -> None:
    """Stage 1 of a run: one pass over SOURCE takes the sketches."""
    _run(decomposition, source, out, options, "sketch")


def _stage(last: str, text: str) -> None:
    """Add the verb of a later stage to the command line."""

    @click.argument("out")
    @stage_memory_option
    @workers_option
    @cluster_options
    @json_option
    def carry(out: str, **options: Any) -> None:
        run = run_stage(
            out,
            last,
            memory=options["memory"],
            workers=options["workers"],
            cluster=cluster_of(options),
            reporter=reporter_for(_console()),
            host=host_here(),
        )
        _show(run, options["as_json"])

    app.command(last, help=text)(carry)


_stage("factorize", "Stage 2: factorize the sketch in OUT. Never opens SOURCE.")
_stage("recover", "Stage 3: recover the long factor from the sketches alone. Never opens SOURCE.")
_stage("refine", "Stage 4: the exact passes over SOURCE that the run asked for, then the factors.")


@app.command()
@click.argument("out")
@json_option
def inspect(out: str, as_json: bool) -> None:
    """Say what the run group OUT holds: result, error, components, or how far it is."""
    run = RunGroup.open(absolute(out, "OUT"), mode="r")
    _show(run, as_json)
    if not as_json and run.record["stage"] == "done":
        click.echo()
        _say(component_lines(run.record))


for command in (status, logs, cancel, cluster):
    app.add_command(command)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _complain(sentence: str) -> None:
    """Say what is wrong, on one line whatever characters a path may hold."""
    if "--overwrite" in sys.argv:  # with it, the run would begin anew
        sentence = sentence.replace("the same command", "the same command without --overwrite")
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)
    click.echo(f"dcf: {plain}", err=True)


def main() -> None:
    """Run the command line and exit with the code of the contract."""
    signal.signal(signal.SIGTERM, _terminate)
    # What they say of a cluster that stops or is lost helps nobody.
    for noisy in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        app.main(standalone_mode=False)
    except click.ClickException as error:
        vars(error)["message"] = conceal(error.message)
        error.show()
        sys.exit(error.exit_code)
    except DcfError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        _complain("interrupted; finished blocks are kept, the same command resumes.")
        sys.exit(143 if isinstance(error.__cause__ or error, Terminated) else 130)
    except Exception as error:
        if os.environ.get("DCF_TRACEBACK"):
            raise
        _complain(
            f"{type(error).__name__}: {conceal(str(error))}. Finished blocks are kept; the same command"
            " resumes. DCF_TRACEBACK=1 shows where it happened."
        )
        sys.exit(1)


def run() -> NoReturn:
    """Be the process ``dcf``: `main`, then leave at once.

    Everything is closed by then; taking numba and a hundred modules apart would cost the user half a
    second more.
    """
    try:
        main()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
