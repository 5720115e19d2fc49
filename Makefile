# make demo and make test work on a fresh machine with Python >= 3.11 and nothing else.
PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt
# Runs flush every block to the disk, for which the tests need not wait where memory has room for their data.
IN_MEMORY := $(shell df --output=avail /dev/shm 2>/dev/null | awk '$$1 + 0 > 8000000 { print "TMPDIR=/dev/shm" }')

.PHONY: demo test check chaos bench paper clean

demo: $(VENV)/.core
	$(BIN)/dcf demo

test: $(VENV)/.test
	$(IN_MEMORY) $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

chaos: $(VENV)/.test
	DCF_CHAOS_KILLS=240 $(BIN)/python -m pytest -q -s tests/chaos

bench: $(VENV)/.test
	for job in against_sklearn real_data methods one_pass trust calibration sparse_recovery sparse_pca tensors \
	  baseline_memory memory layouts s3 large_plan throughput; \
	do echo "$$job"; $(BIN)/python benchmarks/$$job.py || exit 1; done

# The experiments of the paper, an hour: tables and plots into benchmarks/paper/results.
paper: $(VENV)/.test
	$(INSTALL) --no-deps -r benchmarks/paper/packages.txt
	for job in synthetic nnz expression eeg table1; \
	do echo "$$job"; $(BIN)/python benchmarks/paper/$$job.py || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml tests/constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml tests/constraints.txt
	$(INSTALL) -e '.[test]'
	touch $@ $(VENV)/.core

clean:
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache build *.egg-info
