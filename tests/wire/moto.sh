#!/bin/sh
# Installs moto (https://github.com/getmoto/moto, Apache-2.0), the referee for wire format, into the cache folder, and
# prints the path of its server. Exit code 3: there is no python3, or it cannot make virtual environments.
set -eu
version=5.2.5
folder="${PURSER_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/purser}/moto"
server="$folder/bin/moto_server"
if [ ! -x "$server" ] || ! "$folder/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('moto') != '$version')" 2>/dev/null; then
    command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 3; }
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    python3 -m venv "$folder" >&2 || { rm -rf "$folder"; echo "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 3; }
    "$folder/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version" >&2 || { rm -rf "$folder"; exit 1; }
fi
echo "$server"
