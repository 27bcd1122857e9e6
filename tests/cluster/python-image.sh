#!/usr/bin/env bash
# Makes a container image with Python and its standard library from this Debian's own files, for training programs that run on
# real nodes. No registry, no container engine.
#
#   tests/cluster/python-image.sh [FILE...]     the files land in the image's /app, which is its working directory
#
# Prints the path of the archive (import it with RealNode::import_image); the image is purser.dev/testbed/python:local.
# Made once for the same Python and the same files, in the cache outside the checkout.
set -euo pipefail

IMAGE=purser.dev/testbed/python:local
python=/usr/bin/python3
busybox=$(command -v busybox) || { echo "testbed: no busybox; install the package busybox-static" >&2; exit 1; }
[[ -x $python ]] || { echo "testbed: no $python; install the package python3" >&2; exit 1; }

images=${PURSER_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/purser}/testbed/images
key=$({ cat "${BASH_SOURCE[0]}" "$@"; printf '%s\n' "$@"; $python -VV; } | sha256sum | cut -c1-16)
archive=$images/python-$key.tar
if [[ ! -f $archive ]]; then
    mkdir -p "$images"
    work=$(mktemp -d "$images/.python.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    mkdir -p "$root"/{app,bin,etc,proc,sys,dev,tmp,usr/bin,usr/lib,usr/local/bin,lib64}
    chmod 1777 "$root/tmp"
    echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

    cp "$busybox" "$root/bin/busybox"
    for tool in $("$busybox" --list); do [[ $tool == busybox ]] || ln -s busybox "$root/bin/$tool"; done

    library=$($python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    cp "$(readlink -f $python)" "$root/usr/bin/python3"
    mkdir -p "$root$library"
    tar -C "$library" -cf - --exclude=test --exclude=tests --exclude=idlelib --exclude=lib2to3 --exclude=tkinter --exclude=turtledemo \
        --exclude=ensurepip --exclude=pydoc_data --exclude='config-*' --exclude='_test*' --exclude='*.opt-?.pyc' . | tar -C "$root$library" -xf -

    # The shared libraries that Python and its extension modules name, under the same paths as here.
    find "$root/usr/bin/python3" "$root$library/lib-dynload" -type f -exec ldd {} + 2>/dev/null |
        grep -oE '/[^ ]+\.so[^ ]*' | grep '^/\(lib\|usr/lib\)' | grep -v "^$root" | sort -u |
        while read -r file; do install -D "$(readlink -f "$file")" "$root$file"; done

    [[ $# -eq 0 ]] || cp "$@" "$root/app/"
    tar --numeric-owner --owner=0 --group=0 --sort=name -C "$root" -cf "$work/layer.tar" .
    digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    architecture=$(dpkg --print-architecture)
    cat >"$work/config.json" <<EOF
{"architecture":"$architecture","os":"linux","config":{"Env":["PATH=/usr/local/bin:/usr/bin:/bin","PYTHONUNBUFFERED=1"],
"WorkingDir":"/app","Cmd":["python3"]},"rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
EOF
    echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$IMAGE\"],\"Layers\":[\"layer.tar\"]}]" >"$work/manifest.json"
    tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
    mv "$work/image.tar" "$archive"
fi
echo "$archive"
