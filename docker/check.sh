#!/usr/bin/env bash
# Checks this folder on a machine without Docker: Debian, root, and what .ci/install brings.
#   check.sh lint               hadolint, and Docker Compose's own look at compose.yaml
#   check.sh build              the image, on a base made here; a minute or two
#   check.sh run DATA WORDS …   one container of it, DATA as /data, without a network
#   check.sh compose DATA       compose.yaml as it is: its job on DATA/source.zarr, then whether health is told
# Images and settings are kept in $DCF_CONTAINERS (/var/tmp/dcf-containers).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
keep=${DCF_CONTAINERS:-/var/tmp/dcf-containers}
compose=(docker-compose --file "$here/compose.yaml")
image=docker.io/library/$(sed -n 's/^  image: //p' "$here/compose.yaml")
base=docker.io/library/python:stand-in

settings() {
  export TMPDIR=$keep CONTAINERS_STORAGE_CONF=$keep/storage.conf CONTAINERS_CONF=$keep/containers.conf
  cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$keep/images"
runroot = "$keep/run"
END
  # No systemd is asked for anything.
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
}

lint() {
  hadolint "$here/Dockerfile"
  "${compose[@]}" config --quiet
}

# Of the official image it has what the Dockerfile uses: the same Debian, its Python of the same minor version, pip.
make_base() {
  mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    --customize-hook='rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    trixie - http://deb.debian.org/debian |
    podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$base"
}

build() {
  podman image exists "$base" || make_base
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

clear_away() {
  podman rm --all --force --time 2
  podman volume prune --force
  podman network prune --force
} >/dev/null 2>&1

up() {
  clear_away # of a check that was killed
  trap clear_away EXIT
  export DCF_DATA=$1 DCF_RANK=4 DOCKER_HOST=unix://$keep/podman.sock
  rm -f "$keep/podman.sock"
  ip link set lo up
  podman system service --time 0 "$DOCKER_HOST" 2>"$keep/service.log" &
  for _ in $(seq 100); do [ -S "$keep/podman.sock" ] || sleep 0.1; done
  # Docker asks for health by itself, podman does so only by systemd.
  while sleep 1; do
    podman ps --quiet --filter health=starting | xargs -r -n 1 podman healthcheck run >/dev/null || true
  done 2>/dev/null &
  "${compose[@]}" --progress quiet run --rm --no-TTY job
  podman healthcheck run dcf-scheduler-1
  podman healthcheck run dcf-worker-2
  "${compose[@]}" --progress quiet stop --timeout 2 scheduler
  if podman healthcheck run dcf-worker-2; then
    echo "A worker without its scheduler is said to be healthy." >&2
    exit 1
  fi
}

# All of it in namespaces of its own: it ends when this process does, and reaches no network it does not make.
if [ "${1-}" != inside ]; then
  case "${1-}" in
    lint) lint && exit ;;
    build) network=() ;;
    run | compose) network=(--net) ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 2 ;;
  esac
  mkdir -p "$keep"
  exec 9>"$keep/lock"
  flock 9 # one at a time, to the last process that inherits it
  exec unshare "${network[@]}" --mount --pid --fork --kill-child --mount-proc "$0" inside "$@"
fi
# What podman and runc note of what runs goes as well, however this ends. (Building may find names by /run.)
mkdir -p "$keep/run"
mount -t tmpfs tmpfs "$keep/run"
mount -t tmpfs tmpfs /dev/shm
[ "$2" = build ] || mount -t tmpfs tmpfs /run
settings
case "$2" in
  build) build ;;
  run) run "${@:3}" ;;
  compose) up "$3" ;;
esac
