#!/usr/bin/env bash
# From a matrix to its factors through a batch queue: run.sh FOLDER [CLUSTER_FILE]
# FOLDER has to be one that all machines see. Takes a minute once the queue lets the jobs in.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
file=$(realpath "${2:-$here/slurm.yaml}")
mkdir -p "$1"
cd "$1"

python - <<'PYTHON'
from dcf.datasets import planted_nmf

planted_nmf("data.zarr", (100_000, 200), rank=5, chunks=(5_000, 200))
PYTHON

# Would a run work there? One worker job starts, looks around and ends.
dcf cluster check "$file" --source data.zarr --out factors.zarr

# The driver becomes a job itself; this shell, and the machine it runs on, may go.
dcf submit nmf data.zarr factors.zarr --rank 5 --cluster "$file"

# From any later shell:
until dcf status factors.zarr | tee status.txt | grep -q "^state  *done"; do
  if grep -qE "^state  *(failed|lost|cancelled)" status.txt; then cat status.txt; exit 1; fi
  sleep 2
done
dcf logs factors.zarr
dcf inspect factors.zarr
