#!/usr/bin/env bash
# A run on a Dask cluster with TLS, all on this machine: run.sh FOLDER
# On a real one the three programs that are started here run on machines of their own.
set -euo pipefail
mkdir -p "$1"
cd "$1"

python - <<'PYTHON'
from dcf.datasets import planted_nmf

planted_nmf("data.zarr", (100_000, 200), rank=5, chunks=(5_000, 200))
PYTHON

[ -d certs ] || dcf cluster certs certs
tls=(--tls-ca-file certs/ca.pem --tls-cert certs/cert.pem --tls-key certs/key.pem)
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
address=tls://127.0.0.1:$port

# Dask's own settings: nothing unencrypted; no pausing and spilling below the limit, for the plan keeps it.
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__WORKER__MEMORY__{TARGET,SPILL,PAUSE}=False
export MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=268435456 OMP_NUM_THREADS=1

started=()
trap 'kill "${started[@]}" 2>/dev/null; wait' EXIT
dask scheduler --host "$address" --dashboard-address 127.0.0.1:0 "${tls[@]}" 2>scheduler.log & started+=($!)
for i in 1 2; do
  dask worker "$address" --host 127.0.0.1 --nthreads 1 --memory-limit 1GiB --local-directory . \
    --dashboard-address 127.0.0.1:0 "${tls[@]}" 2>"worker-$i.log" & started+=($!)
done

cat >dask.yaml <<YAML
kind: dask
scheduler: $address
tls: certs
memory: 800MiB
YAML
until dcf cluster check dask.yaml --source data.zarr --out factors.zarr 2>check.log; do sleep 1; done

# The driver becomes a task of the cluster; this shell may go.
dcf submit nmf data.zarr factors.zarr --rank 5 --cluster dask.yaml
until dcf status factors.zarr | tee status.txt | grep -q "^state  *done"; do
  if grep -qE "^state  *(failed|lost|cancelled)" status.txt; then cat status.txt; exit 1; fi
  sleep 2
done
dcf logs factors.zarr
dcf inspect factors.zarr
