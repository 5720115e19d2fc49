#!/usr/bin/env bash
# Checks this folder on a machine without Docker: Debian, root; .ci/install brings the programs.
#   check.sh lint               hadolint, and Docker Compose's own look at compose.yaml
#   check.sh build              the image, on a base made here; some two minutes the first time
#   check.sh run DATA WORDS …   one container of it, DATA as /data, no network
#   check.sh compose DATA       compose.yaml as it is, its job on DATA/source.zarr; then whether health is told
# Images, packages and settings are kept in $DCF_CONTAINERS (/var/tmp/dcf-containers), nothing elsewhere.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
keep=${DCF_CONTAINERS:-/var/tmp/dcf-containers}
# The base of the Dockerfile is these two things and pip, from the same Debian; its own registry is not asked.
debian=trixie base=docker.io/library/python:stand-in
image=docker.io/library/$(sed -n 's/^  image: //p' "$here/compose.yaml")
compose=(docker-compose --file "$here/compose.yaml")

# Of podman, none of what the machine may have otherwise; runc and cgroupfs do without systemd.
settings() {
  mkdir -p "$keep"
  export TMPDIR=$keep CONTAINERS_STORAGE_CONF=$keep/storage.conf CONTAINERS_CONF=$keep/containers.conf
  cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$keep/images"
runroot = "$keep/run"
END
  cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "$keep/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$keep/run/engine"
END
  exec 9>"$keep/lock"
  flock 9
}

lint() {
  hadolint "$here/Dockerfile"
  "${compose[@]}" config --quiet
}

build() {
  podman image exists "$base" ||
    mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
      --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
      --customize-hook='rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
      --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
      "$debian" - http://deb.debian.org/debian |
    podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$base"
  podman build --quiet --pull-never --isolation chroot --network host --format docker --layers=false \
    --build-arg "PYTHON=$base" --file "$here/Dockerfile" --tag "$image" "$here/.."
  podman image prune --force >/dev/null
}

run() {
  local data=$1
  shift
  podman run --rm --pull=never --no-healthcheck --network none --read-only --cap-drop ALL \
    --security-opt no-new-privileges --tmpfs /tmp:size=64m --volume "$data:/data" "$image" "$@"
}

# Called in namespaces of its own: no network but what it makes, and what it starts ends with it.
in_namespaces() {
  export DCF_DATA=$1 DCF_RANK=4 DOCKER_HOST=unix://$keep/podman.sock
  ip link set lo up
  podman system service --time 0 "$DOCKER_HOST" 2>"$keep/service.log" &
  until [ -S "$keep/podman.sock" ]; do sleep 0.1; done
  trap '"${compose[@]}" down --volumes --timeout 2 2>"$keep/down.log"' EXIT
  # Docker asks for the health by itself, podman only where systemd runs.
  while sleep 1; do
    podman ps --quiet --filter health=starting | xargs -r -n 1 podman healthcheck run >/dev/null || true
  done 2>/dev/null &
  "${compose[@]}" run --rm --no-TTY job
  "${compose[@]}" ps --format '{{.Service}} {{.Health}}'
  podman healthcheck run dcf-worker-1
  "${compose[@]}" stop --timeout 2 scheduler
  ! podman healthcheck run dcf-worker-1
}

case "${1-}" in
  lint) lint ;;
  build) settings && build ;;
  run) settings && run "${@:2}" ;;
  compose)
    settings
    rm -f "$keep/podman.sock"
    # Not an orphan when this script is killed.
    exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" in-namespaces "$2"
    ;;
  in-namespaces) settings && in_namespaces "$2" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
