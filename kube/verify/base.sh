#!/usr/bin/env bash
# base.sh PYTHON DIRECTORY: creates a substitute for the image python:3.11-slim-bookworm where only package registries
# can be reached: Debian's minimal system, and the CPython of PYTHON, under /usr/local as in the official image.
set -euo pipefail
prefix=$("$1" -c 'import sys; print(sys.base_prefix)')
version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
root=$2
rm -rf "$root" && mkdir -p "$root"

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
libraries=libbz2-1.0,libexpat1,libffi8,libgdbm6,liblzma5,libncursesw6,libnsl2,libreadline8,libsqlite3-0,libssl3
debootstrap --variant=minbase --include="ca-certificates,netbase,tzdata,libtirpc3,libuuid1,zlib1g,$libraries" \
    bookworm "$root" "$mirror"

mkdir -p "$root/usr/local/bin" "$root/usr/local/lib"
find "$prefix/lib" -maxdepth 1 -name 'libpython3*' -exec cp -a {} "$root/usr/local/lib/" \;
tar -C "$prefix/lib" --exclude=site-packages --exclude=test --exclude=tests --exclude='config-*' -cf - "python$version" \
    | tar -C "$root/usr/local/lib" -xf -
mkdir -p "$root/usr/local/lib/python$version/site-packages"
cp -a "$prefix/bin/python$version" "$root/usr/local/bin/"
ln -s "python$version" "$root/usr/local/bin/python3"
ln -s python3 "$root/usr/local/bin/python"
chroot "$root" ldconfig
chroot "$root" /usr/local/bin/python3 -m ensurepip --default-pip >/dev/null
# Like the official image: no symbols, no byte code.
find "$root/usr/local" -name '*.so*' -type f -exec strip --strip-unneeded {} +
find "$root/usr/local" -name __pycache__ -type d -prune -exec rm -rf {} +

cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
: > "$root/etc/apt/sources.list"
: > "$root/etc/resolv.conf"
printf 'path-exclude /usr/share/%s/*\n' doc man info locale > "$root/etc/dpkg/dpkg.cfg.d/docker"
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/doc/* "$root"/usr/share/info/*

tar -C "$root" --numeric-owner -cf "$root.tar" .
podman import -q -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV LANG=C.UTF-8' \
    "$root.tar" "python:$version-slim-bookworm"
rm -rf "$root.tar" "$root"
