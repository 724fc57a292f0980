#!/bin/bash
# mkbase.sh X.Y  : make a local stand-in for docker.io/library/python:X.Y-slim-bookworm
# Debian from the package mirror (debootstrap minbase) + this machine's own CPython X.Y copied to /usr/local
set -euo pipefail
XY=${1:-3.11}; W=${2:-${TMPDIR:-$(mktemp -d)}/base-$XY}; TAG=docker.io/library/python:$XY-slim-bookworm
PY=$(ls -d ${PYENV_ROOT:-$HOME/.pyenv}/versions/$XY.* | sort -V | tail -1); V=$(basename "$PY")
rm -rf "$W"; mkdir -p "$W"
MIRROR=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -1)   # this machine's own
debootstrap --variant=minbase \
  --include=ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,libssl3,libsqlite3-0,liblzma5,libreadline8,libncursesw6,libuuid1,libexpat1,libgdbm6,libnsl2,libtirpc3,zlib1g \
  bookworm "$W" "$MIRROR"
# CPython as the official image has it: under /usr/local, tests and site-packages left out
mkdir -p "$W/usr/local/bin" "$W/usr/local/lib"
cp -a "$PY"/lib/libpython3* "$W/usr/local/lib/"
tar -C "$PY/lib" --exclude='python*/site-packages' --exclude='test' --exclude='tests' --exclude='__pycache__' --exclude='config-*' -cf - python$XY | tar -C "$W/usr/local/lib" -xf -
mkdir -p "$W/usr/local/lib/python$XY/site-packages"
cp -a "$PY/bin/python$XY" "$W/usr/local/bin/"
ln -s python$XY "$W/usr/local/bin/python3"; ln -s python3 "$W/usr/local/bin/python"
# The official image's build strips symbols and keeps no byte code.
find "$W/usr/local" -name '*.so*' -type f -exec strip --strip-unneeded {} +
chroot "$W" ldconfig
chroot "$W" /usr/local/bin/python3 -m ensurepip --default-pip >/dev/null
[ -e "$W/usr/local/bin/pip" ] || ln -s pip3 "$W/usr/local/bin/pip"
find "$W/usr/local" -name '__pycache__' -type d -prune -exec rm -rf {} +
# what the official slim image has not: apt lists, docs, man pages
cat > "$W/etc/dpkg/dpkg.cfg.d/docker" <<'X'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
X
printf 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n' > "$W/etc/apt/apt.conf.d/docker-clean"
printf 'Acquire::Languages "none";\nAPT::Install-Suggests "0";\n' > "$W/etc/apt/apt.conf.d/docker"
cp /etc/apt/sources.list.d/debian.sources "$W/etc/apt/sources.list.d/"; : > "$W/etc/apt/sources.list"
rm -rf "$W"/var/cache/apt/archives/*.deb "$W"/var/lib/apt/lists/* "$W"/usr/share/man/* "$W"/usr/share/locale/* "$W"/var/cache/debconf/*-old
find "$W/usr/share/doc" -mindepth 1 -not -type d -not -name copyright -delete
: > "$W/etc/resolv.conf"; echo localhost > "$W/etc/hostname"
c=$(mktemp --suffix=.tar); tar -C "$W" --numeric-owner -cf "$c" .
podman import -q -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV LANG=C.UTF-8' -c "ENV PYTHON_VERSION=$V" -c 'CMD ["python3"]' "$c" "$TAG"
rm -f "$c"; podman image ls "$TAG"
