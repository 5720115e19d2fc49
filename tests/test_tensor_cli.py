"""The command line on tensors, and what each verb says of its own decomposition."""

import json
import shutil

import numpy as np
import pytest
import zarr
from commandline import dcf
from conftest import plant, plant_tensor, store

from dcf.settings import METHODS_OF
from dcf.storage.run import RunGroup

SHAPE, CHUNKS = (120, 12, 9), (50, 5, 4)
WORDS_OF_MATRICES = (" W ", " H ", "matrix", "rows kept", "NNDSVD")


@pytest.fixture
def tensor(tmp_path):
    """A planted 120 x 12 x 9 tensor on disk; returns its path."""
    zarr.create_array(str(tmp_path / "t.zarr"), data=plant_tensor(SHAPE)[0], chunks=CHUNKS)
    return tmp_path / "t.zarr"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.zarr"


def factors(out):
    return {name: array[:] for name, array in zarr.open_group(out, mode="r").arrays()}


def test_cp_prints_a_summary_and_conforms(tensor, out, conforms):
    printed, progress = dcf("cp", tensor, out, "--rank", 3, "--workers", 2)
    for word in (
        "120 x 12 x 9 ≈ a sum of 3 tensors of rank one",
        "the other factors come from all 120 slices along axis 0, and an exact pass then finds factor_0",
        "(exact)",
        "passes       2",
        "trusted",
        "weights and factor_0 … factor_2",
    ):
        assert word in printed
    assert not any(word in printed for word in WORDS_OF_MATRICES)
    for stage in ("sketch (pass 1)", "factorize", "refine (pass 2)", "scale and store"):
        assert stage in progress
    conforms(out, tensor)
    assert dcf("inspect", out)[0].startswith(printed.splitlines()[0])
    for words in (("inspect", out), ("cp", tensor, out, "--rank", 3)):
        record = json.loads(dcf(*words, "--json")[0])
        assert record["stage"] == "done"
        assert record["source"]["shape"] == list(SHAPE)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--axis", 1, "--signed"],
        ["--refine", 2],
        ["--refine", 0],
        ["--method", "factorize-recover", "--sketch-size", 60, "--max-iter", 50],
    ],
)
def test_the_staged_verbs_do_what_cp_does(tensor, out, tmp_path, conforms, options):
    dcf("cp", tensor, tmp_path / "whole.zarr", "--rank", 3, *options)
    assert "next: dcf factorize" in dcf("sketch", tensor, out, "--as", "cp", "--rank", 3, *options)[0]
    away = tensor.rename(tensor.with_name("away.zarr"))
    assert "next: dcf recover" in dcf("factorize", out)[0]
    printed = dcf("recover", out)[0]
    away.rename(tensor)
    if "--refine" in options and 0 in options:
        assert "estimated, 95 % within" in printed
    else:
        assert "next: dcf refine" in printed
        assert "(exact)" in dcf("refine", out)[0]
    conforms(out, tensor)
    whole = factors(tmp_path / "whole.zarr")
    for name, values in factors(out).items():
        np.testing.assert_array_equal(values, whole[name])


def test_plan_of_a_tensor_reads_no_chunk(tensor):
    shutil.rmtree(tensor / "c")
    for options in ([], ["--axis", 2], ["--signed"], ["--refine", 0], ["--method", "full"]):
        printed, _ = dcf("plan", tensor, "--as", "cp", "--rank", 3, *options)
        assert (
            f"source       120 x 12 x 9 float32, {SHAPE[0] * SHAPE[1] * SHAPE[2] * 4 / 1e3:.3g} kB" in printed
        )
        assert not any(word in printed for word in WORDS_OF_MATRICES)
    plan = json.loads(dcf("plan", tensor, "--as", "cp", "--rank", 3, "--axis", 1, "--json")[0])
    assert (plan["axis"], plan["rows"], plan["others"]) == (1, 12, [120, 9])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "is nan"), (-np.inf, "is -inf"), (-2, "is -2, below zero")]
)
def test_the_offending_entry_is_named_by_all_its_coordinates(tensor, out, axis, value, says):
    zarr.open_array(tensor, mode="r+")[77, 10, 3] = value
    _, error = dcf("cp", tensor, out, "--rank", 3, "--axis", axis, expect=3)
    assert f"[77, 10, 3] {says}" in error
    assert RunGroup.open(str(out)).record["stage"] == "created"
    if value == -2:
        dcf("cp", tensor, out.with_name("signed.zarr"), "--rank", 3, "--axis", axis, "--signed")
        dcf("cp", tensor, out.with_name("allowed.zarr"), "--rank", 3, "--negatives", "allow")


BAD = {
    "axis out of range": (["--axis", 3], 2, "--axis is 3; SOURCE has the axes 0 to 2"),
    "negative axis": (["--axis=-1"], 2, "--axis is '-1'; it must be longest, or numbers"),
    "axis a word": (["--axis", "time"], 2, "--axis is 'time'"),
    "axis not a number": (["--axis", "²"], 2, "--axis is '²'"),
    "rank too large": (["--rank", 109], 2, "108 components, one a fibre of the longest axis, give back any"),
    "rank zero": (["--rank", 0], 2, "whole number from 1 on"),
    "small sketch": (["--method", "factorize-recover", "--sketch-size", 2], 2, "below the rank 3"),
    "unknown method": (["--method", "svd"], 2, "'svd' is not one of"),
    "centred": (["--center", "rows"], 2, "No such option"),
    "tiny budget": (["--memory", "100MiB"], 4, "--memory allows 100MiB"),
    "small budget": (
        ["--memory", "290MiB"],
        4,
        "MiB, --memory allows 290MiB: raise --memory to 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(tensor, out, case):
    options, code, says = BAD[case]
    rank = [] if "--rank" in options else ["--rank", 3]
    assert says in dcf("cp", tensor, out, *rank, *options, expect=code)[1]
    assert not out.exists()


@pytest.mark.parametrize("verb", METHODS_OF)
def test_the_right_verb_is_named(tensor, tmp_path, out, verb):
    store(tmp_path / "m.zarr", plant(40, 10)[0])
    wrong = tmp_path / "m.zarr" if verb == "cp" else tensor
    for words in ((verb, wrong, out), ("plan", wrong, "--as", verb), ("sketch", wrong, out, "--as", verb)):
        _, error = dcf(*words, "--rank", 2, expect=2)
        assert ("dcf nmf, semi-nmf, spca or svd" if verb == "cp" else "for a tensor: dcf cp") in error
    right = tensor if verb == "cp" else tmp_path / "m.zarr"
    _, error = dcf("sketch", right, out, "--as", verb, "--rank", 2, "--method", "full", expect=2)
    assert f"--method full has no stages; use dcf {verb}." in error
    assert not out.exists()


@pytest.mark.parametrize("verb", METHODS_OF)
def test_an_option_of_another_decomposition_is_refused(tensor, tmp_path, out, verb):
    store(tmp_path / "m.zarr", plant(40, 10)[0])
    source = tensor if verb == "cp" else tmp_path / "m.zarr"
    words = ("sketch", source, out, "--as", verb, "--rank", 2)
    if verb != "svd":
        assert "--center belongs to svd" in dcf(*words, "--center", "columns", expect=2)[1]
    if verb != "cp":
        assert "--signed belongs to cp" in dcf(*words, "--signed", expect=2)[1]
    assert not out.exists()


@pytest.mark.parametrize("verb", METHODS_OF)
def test_help_speaks_of_what_the_verb_has(verb):
    text = " ".join(dcf(verb, "--help")[0].split())
    assert "NNDSVD" not in text
    assert ("--signed" in text) == (verb == "cp")
    assert ("--center" in text) == (verb == "svd")
    assert ("--restarts" in text) == (verb != "svd")
    assert ("--nnz-per-column" in text) == ("factorize-recover" in METHODS_OF[verb])
    assert ("0,2" in text) == (verb == "cp")
    assert f"[{'|'.join(METHODS_OF[verb])}]" in text


@pytest.mark.parametrize("verb", ["nmf", "semi-nmf", "spca", "svd"])
def test_a_wide_matrix_is_spoken_of_in_its_own_columns(tmp_path, out, conforms, verb):
    source = tmp_path / "m.zarr"
    store(source, np.ascontiguousarray(plant()[0].T), chunks=(40, 500))
    printed, _ = dcf(verb, source, out, "--rank", 4)
    assert "60 x 1200 ≈ W (60 x 4) H (4 x 1200)" in printed
    assert ("all columns" if verb == "svd" else "W comes from" if verb == "spca" else "columns") in printed
    assert "then finds W" not in printed
    conforms(out, source)
