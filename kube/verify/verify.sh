#!/usr/bin/env bash
# verify.sh [prepare]: builds the image and that of examples/shop, checks the manifests against their schemas, and runs
# kube/04-backend.yaml as containers with its limits and probes. `prepare` only builds. It needs no Docker: podman,
# installed if it can be. If it cannot be installed, the script says so and exits with 0.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=kube/verify
work=$PWD/.local/verify
python=$PWD/.venv/bin/python
packages="podman runc debootstrap netavark aardvark-dns catatonit conmon iptables binutils ca-certificates"
certificates=/etc/ssl/certs/ca-certificates.crt # of this machine, so that pip works behind a proxy with its own CA

skip() {
    echo "verify-kube was SKIPPED: $*"
    exit 0
}

install_podman() {
    for command in podman runc debootstrap strip; do
        command -v "$command" >/dev/null || {
            command -v apt-get >/dev/null || skip "there is no $command, and no apt-get to install it"
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >"$work/apt.log" 2>&1 ||
                skip "podman cannot be installed: $(tail -n 1 "$work/apt.log")"
            return
        }
    done
}

[ "$(id -u)" = 0 ] || skip "it needs root, for the networks and control groups of its containers"
mkdir -p "$work"
install_podman
[ -d "$work/venv" ] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check -r $here/requirements.txt

export CONTAINERS_CONF=$work/containers.conf
# podman requests more files and processes than a container allows; runc works with control groups v1 and v2.
cat > "$CONTAINERS_CONF" <<'X'
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
X
printf '[global]\ncert = %s\ntimeout = 180\n' "$certificates" > "$work/pip.conf"

"$work/venv/bin/hadolint" Dockerfile examples/shop/Dockerfile
base=$(sed -n 's/^FROM \(.*\) AS build$/\1/p' Dockerfile)
podman image exists "$base" || bash $here/base.sh "$python" "$work/base" > "$work/base.log" 2>&1 || {
    tail -n 3 "$work/base.log"
    skip "there is no image $base, and no stand-in could be made for it"
}
podman build -q --pull=never -v "$certificates:$certificates:ro" -v "$work/pip.conf:/etc/pip.conf:ro" \
    -t "localhost/message-backend:$(cat tasks/VERSION)" . >/dev/null
podman build -q --pull=never -t localhost/shop:verify -f examples/shop/Dockerfile examples >/dev/null
[ "${1:-}" != prepare ] || exit 0

"$work/venv/bin/python" $here/schemas.py
exec "$python" -m pytest -s --timeout 900 $here
