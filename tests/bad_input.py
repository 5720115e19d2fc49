"""What `test_bad_input` runs: bad options, bad places, bad runs; each with its exit code and sentence.

A row is (words, exit code, a part of the sentence[, spoil[, mend]]). SOURCE, TENSOR and OUT among the
words stand for a planted matrix, a planted tensor and a place where nothing is. `spoil` makes the row
bad; where there is a `mend`, the same words succeed after it, elsewhere OUT is to stay as it was.
"""

import os
import shutil
import socket

import zarr

from dcf.storage.durable import held

N, C = "nmf SOURCE OUT --rank 3 ", "cp TENSOR OUT --rank 2 "
SKETCH = "sketch SOURCE OUT --rank 3"


def ran(*commands):
    """Run these commands first."""
    return lambda at: at.ran(commands)


def then(*acts):
    def spoil(at):
        for act in acts:
            act(at)

    return spoil


OPTIONS = {
    "no verb of this name": ("factorise SOURCE OUT", 2, "No such command 'factorise'"),
    "unknown option": (N + "--colour red", 2, "No such option"),
    "no SOURCE": ("nmf", 2, "Missing argument 'SOURCE'"),
    "no OUT": ("nmf SOURCE --rank 3", 2, "Missing argument 'OUT'"),
    "a word too many": (N + "more", 2, "unexpected extra argument (more)"),
    "no rank": ("nmf SOURCE OUT", 2, "Missing option '--rank'"),
    "rank a word": ("nmf SOURCE OUT --rank many", 2, "'many' is not a valid integer"),
    "rank a fraction": ("svd SOURCE OUT --rank 2.5", 2, "'2.5' is not a valid integer"),
    "rank zero": ("spca SOURCE OUT --rank 0", 2, "--rank is 0; it must be a whole number from 1 on"),
    "rank negative": ("semi-nmf SOURCE OUT --rank -3", 2, "--rank is -3; it must be"),
    "rank huge": (f"nmf SOURCE OUT --rank {2**70}", 2, "larger than min(n, m) = 20 of a 300 x 20"),
    "rank too large": ("nmf SOURCE OUT --rank 21", 2, "--rank is 21, larger than min(n, m) = 20"),
    "rank too large for a plan": ("plan SOURCE --rank 21", 2, "larger than min(n, m) = 20"),
    "rank too large for a tensor": ("cp TENSOR OUT --rank 49", 2, "48 components, one a fibre"),
    "refine negative": (N + "--refine -1", 2, "--refine is -1; it must be a whole number from 0 on"),
    "refine huge": (N + f"--refine {2**70}", 2, "--refine is 1180591620717411303424; it must"),
    "method unknown": (N + "--method guess", 2, "'guess' is not one of 'auto'"),
    "method of another verb": ("svd SOURCE OUT --rank 3 --method rows", 2, "'rows' is not one of"),
    "method of another decomposition": (
        "plan SOURCE --as svd --rank 3 --method rows",
        2,
        "--method is 'rows'; it must be one of auto, range, full",
    ),
    "no such decomposition": ("plan SOURCE --as pca --rank 3", 2, "'pca' is not one of 'nmf'"),
    "rows without a pass": (N + "--method rows --refine 0", 2, "finds W in a refine pass; use --refine 1"),
    "full has no stages": (SKETCH + " --method full", 2, "--method full has no stages; use dcf nmf"),
    "resketch in stages": (SKETCH + " --resketch", 2, "--resketch may have to read SOURCE again"),
    "axis a letter": (N + "--axis a", 2, "'a' is not one of 'longest', '0', '1'"),
    "axis beyond the last": (N + "--axis 2", 2, "'2' is not one of"),
    "axes of a tensor twice": (C + "--axis 0,0", 2, "--axis is 0,0; name each axis once"),
    "all axes of a tensor": (C + "--axis 0,1,2", 2, "leave at least one out"),
    "axis of a tensor beyond the last": (C + "--axis 5", 2, "--axis is 5; SOURCE has the axes 0 to 2"),
    "axis of a tensor huge": (C + f"--axis {2**70}", 2, "it must be longest, or numbers such as"),
    "axis of a tensor empty": (["cp", "TENSOR", "OUT", "--rank", "2", "--axis", ""], 2, "--axis is ''; it"),
    "axis of a tensor a letter": (C + "--axis a", 2, "--axis is 'a'; it must be longest, or numbers"),
    "axis of a matrix of 5000 digits": (["plan", "SOURCE", "--rank", "3", "--axis", "1" * 5000], 2, "--axis"),
    "axis of a tensor of 5000 digits": (
        C + "--axis " + "1" * 5000,
        2,
        "it must be longest, or numbers such as",
    ),
    "sketch below the rank": (N + "--sketch-size 2", 2, "--sketch-size is 2, below the rank 3; take at"),
    "sketch of nothing": (N + "--sketch-size 0", 2, "--sketch-size is 0; it must be"),
    "sketch huge": (
        N + f"--method factorize-recover --sketch-size {2**70}",
        4,
        "or lower --sketch-size (now 11805",
    ),
    "more ones than rows": (
        N + "--method factorize-recover --sketch-size 9 --nnz-per-column 10",
        2,
        "--nnz-per-column is 10, above the sketch size 9",
    ),
    "restarts negative": (N + "--restarts -1", 2, "--restarts is -1; it must be"),
    "restarts huge": (N + f"--restarts {2**70}", 2, "--restarts is 11805"),
    "tolerance nan": (N + "--tol nan", 2, "--tol is nan; it must lie in [0, 1)"),
    "tolerance infinite": (N + "--tol inf", 2, "--tol is inf"),
    "tolerance negative": (N + "--tol -1e-4", 2, "--tol is -0.0001"),
    "tolerance of one": (N + "--tol 1", 2, "--tol is 1.0; it must lie in [0, 1)"),
    "no sweeps": (N + "--max-iter 0", 2, "--max-iter is 0; it must be"),
    "sweeps huge": (N + f"--max-iter {2**70}", 2, "--max-iter is 11805"),
    "seed negative": (N + "--seed -1", 2, "--seed is -1; it must be"),
    "seed of 2**63": (N + f"--seed {2**63}", 2, "it must lie below 2**63"),
    "seed of 2**64": (C + f"--seed {2**64}", 2, "it must lie below 2**63"),
    "memory a word": (N + "--memory lots", 2, "--memory is 'lots'; give a size such as 512MiB"),
    "memory negative": (N + "--memory -1GiB", 2, "--memory is '-1GiB'"),
    "memory of nothing": (N + "--memory 0", 2, "--memory is '0'; it must be"),
    "memory empty": (["plan", "SOURCE", "--rank", "3", "--memory", ""], 2, "--memory is ''; give a size"),
    "memory beyond all": (N + "--memory 1e99GiB", 2, "--memory is '1e99GiB'"),
    "memory infinite": (N + "--memory infGiB", 2, "--memory is 'infGiB'; give a size"),
    "memory not a number": (N + "--memory nanGiB", 2, "--memory is 'nanGiB'; give a size"),
    "memory of 1e999": (N + "--memory 1e999GiB", 2, "--memory is '1e999GiB'"),
    "memory of 10 KiB": (N + "--memory 10KiB", 4, "--memory allows 10240 bytes"),
    "no workers": (N + "--workers 0", 2, "--workers is 0; it must be"),
    "workers negative": ("plan SOURCE --rank 3 --workers -1", 2, "--workers is -1; it must be"),
    "a million workers": (N + "--workers 1000000", 2, "--workers is 1000000"),
    "workers huge": (N + f"--workers {2**70}", 2, "--workers is 11805"),
    "centre of nmf": (N + "--center columns", 2, "No such option"),
    "centre of cp, planned": ("plan TENSOR --as cp --rank 2 --center rows", 2, "--center belongs to svd"),
    "signed nmf": (SKETCH + " --signed", 2, "--signed belongs to cp"),
    "bad word for negatives": (N + "--negatives maybe", 2, "'maybe' is not one of 'error', 'allow'"),
    "bad word for chunks": (N + "--missing-chunks hide", 2, "'hide' is not one of 'report', 'error'"),
    "an error with --json": (N + "--memory lots --json", 2, "give a size such as"),
    "an option twice, the last counts": (N + "--rank 2 --rank 0", 2, "--rank is 0"),
    "demo of no size": ("demo --size lots", 2, "--size is 'lots'; give a size"),
    "demo too small": ("demo --size 1MB", 2, "--size is 1MB; the demo needs at least"),
    "demo without workers": ("demo --workers 0 --size 40MB --directory OUT", 2, "--workers is 0"),
    "demo with a bad seed": ("demo --seed -1 --size 40MB --directory OUT", 2, "--seed is -1"),
    "demo too large": ("demo --size 1e9GB --directory OUT", 1, "free; choose another --directory or"),
    "demo in a file": ("demo --size 40MB --directory SOURCE/zarr.json", 1, "cannot be written"),
}

MEMORY = {
    "too little for a worker": (N + "--memory 200MiB", 4, "a worker process alone takes"),
    "too little for the driver": (N + "--memory 300MiB", 4, "The driver of method auto needs"),
    "too little for full": (N + "--method full --memory 310MiB", 4, "The driver of method full needs"),
    "full, beside what the driver takes": (N + "--method full --memory 330MiB", 4, "or use --method auto"),
    "too little for a plan": ("plan SOURCE --rank 3 --memory 1MiB", 4, "--memory allows 1MiB"),
    "too little for a tensor": (C + "--memory 290MiB", 4, "--memory allows 290MiB: raise --memory to"),
    "too little for a stage": (
        "refine OUT --memory 9MiB",
        4,
        "allows 9MiB",
        ran(SKETCH, "factorize OUT", "recover OUT"),
    ),
    "too little for a large sketch": (
        N + f"--method factorize-recover --sketch-size {10**9}",
        4,
        "lower --sketch-size (now 1000000000; ",
    ),
}


def made(act):
    """Make a strange thing at `at.out`."""
    return lambda at: act(at.out)


def fifo_inside(at):
    at.out.mkdir()
    os.mkfifo(at.out / "zarr.json")


def bind(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def notes(path):
    path.mkdir()
    (path / "thesis.txt").write_text("keep")


def loop(path):
    path.symlink_to(path)


def dangling(path):
    path.symlink_to(path.with_name("nowhere"))


FROM, TO = "nmf {} OUT/../new.zarr --rank 3", "nmf SOURCE {} --rank 3"


def words(text, place):
    return [place if word == "{}" else word for word in text.split()]


SOURCES = {
    "empty": (words(FROM, ""), 2, "SOURCE is '', which names no place"),
    "NUL": (words(FROM, "a\0b"), 2, "SOURCE is 'a\\x00b', which"),
    "newline": (words(FROM, "a\nb"), 2, "does not exist"),
    "not UTF-8": (words(FROM, os.fsdecode(b"a\xffb")), 2, "does not exist"),
    "very long": (words(FROM, "x" * 5000), 2, "does not exist"),
    "nothing": (words(FROM, "nowhere.zarr"), 2, "does not exist; give the path or URL"),
    "/dev/null": (words(FROM, "/dev/null"), 2, "is no folder"),
    "/dev/zero": (words(FROM, "/dev/zero"), 2, "is no folder"),
    "a text file": (words(FROM, "OUT"), 2, "is no folder", made(lambda p: p.write_text("a, b"))),
    "a folder of other things": (words(FROM, "OUT"), 2, "is not a Zarr array", made(notes)),
    "an empty folder": (words(FROM, "OUT"), 2, "is not a Zarr array", made(os.mkdir)),
    "a pipe": (words(FROM, "OUT"), 2, "is no folder", made(os.mkfifo)),
    "a socket": (words(FROM, "OUT"), 2, "is no folder", made(bind)),
    "a pipe for metadata": (words(FROM, "OUT"), 3, "is no file", fifo_inside),
    "a link to itself": (words(FROM, "OUT"), 2, "does not exist", made(loop)),
    "a broken link": (words(FROM, "OUT"), 2, "does not exist", made(dangling)),
    "a run": (words(FROM, "OUT"), 2, "is a Zarr group", ran(N)),
    "unreachable": (words(FROM, "http://127.0.0.1:1/x.zarr"), 2, "cannot be opened"),
    "of no protocol": (words(FROM, "foo://x"), 2, "Protocol not known"),
    "a bad URL": (words(FROM, "http://[::1"), 2, "cannot be opened"),
    "planned, nothing": ("plan nowhere.zarr --rank 3", 2, "does not exist"),
    "planned, a pipe": ("plan OUT --rank 3", 2, "is no folder", made(os.mkfifo)),
}


def link_within(at):
    at.out.mkdir()
    (at.out / "W").symlink_to(at.tmp)


OUTS = {
    "empty": (words(TO, ""), 2, "OUT is '', which names no place"),
    "NUL": (words(TO, "a\0b"), 2, "OUT is 'a\\x00b', which"),
    "very long": (words(TO, "x" * 5000), 1, "File name too long"),
    "/dev/null": (words(TO, "/dev/null"), 2, "is no run of dcf"),
    "SOURCE": (words(TO, "SOURCE"), 2, "lie inside one another"),
    "in SOURCE": (words(TO, "SOURCE/out.zarr"), 2, "lie inside one another"),
    "around SOURCE": (words(TO, "SOURCE/.."), 2, "lie inside one another"),
    "a link to SOURCE": (N, 2, "lie inside one another", lambda at: at.out.symlink_to(at.source)),
    "a file": (N, 2, "is no run of dcf; choose another", made(lambda p: p.write_text("keep"))),
    "a file, to be overwritten": (
        N + "--overwrite",
        2,
        "is no run of dcf",
        made(lambda p: p.write_text("x")),
    ),
    "a folder of other things": (N + "--overwrite", 2, "is no run of dcf", made(notes)),
    "an array": (N, 2, "is no run of dcf", lambda at: shutil.copytree(at.source, at.out)),
    "a group": (N, 2, "is no run of dcf", made(lambda p: zarr.open_group(p, mode="w"))),
    "a pipe": (N, 2, "is no run of dcf", made(os.mkfifo)),
    "a socket": (N, 2, "is no run of dcf", made(bind)),
    "a pipe for metadata": (N, 1, "its zarr.json is no file", fifo_inside),
    "a link to itself": (N, 2, "is no run of dcf", made(loop)),
    "a broken link": (N, 2, "is no run of dcf", made(dangling)),
    "in a file": (words(TO, "SOURCE/../t.zarr/zarr.json/o.zarr"), 1, "cannot be"),
    "not writable": (words(TO, "/proc/o.zarr"), 1, "cannot be"),
    "unreachable": (words(TO, "http://127.0.0.1:1/x.zarr"), 2, "cannot be"),
    "of no protocol": (words(TO, "foo://x"), 2, "cannot be"),
    "a bad URL": (words(TO, "http://[::1"), 2, "cannot be"),
    "held by another run": (
        N,
        1,
        "is locked by another run",
        lambda at: at.stack.enter_context(held(str(at.out))),
        lambda at: at.stack.close(),
    ),
    "held, and a stage asked for": (
        "factorize OUT",
        1,
        "is locked by another run",
        then(ran(SKETCH), lambda at: at.stack.enter_context(held(str(at.out)))),
        lambda at: at.stack.close(),
    ),
    "inspected, nothing": ("inspect nowhere.zarr", 2, "holds no run of dcf"),
    "inspected, SOURCE": ("inspect SOURCE", 2, "holds no run of dcf"),
    "inspected, a pipe": ("inspect OUT", 2, "no run of dcf", made(os.mkfifo)),
    "inspected, a pipe for metadata": ("inspect OUT", 1, "its zarr.json is no file", fifo_inside),
    "inspected, NUL": (["inspect", "a\0b"], 2, "OUT is 'a\\x00b', which"),
    "inspected, empty": (["inspect", ""], 2, "OUT is '', which names no place"),
    "inspected, of no protocol": ("inspect foo://x", 2, "cannot be opened"),
    "staged, nothing": ("factorize nowhere.zarr", 2, "holds no run of dcf"),
    "staged, very long": ("recover " + "x" * 5000, 1, "File name too long"),
}
