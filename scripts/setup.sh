#!/bin/sh
# Puts a virtual environment with uv into .venv and installs the Debian packages that are missing.
# Usage: scripts/setup.sh UV_VERSION. Run again at will; what is there already is left alone.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# A virtual environment remembers its absolute path; one that was moved or broken is made anew.
usable_environment() {
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys' 2>/dev/null &&
        [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)')" = "$(pwd -P)/.venv" ]
}

missing_packages() {
    sed -e 's/#.*//' -e '/^[[:space:]]*$/d' debian-packages.txt | while read -r package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "these Debian packages are missing and only root can install them: $missing" \
        "- run \`sudo apt-get install --no-install-recommends $missing\`, then again."
    say "installing $(printf '%s' "$missing" | wc -w) Debian packages: $missing"
    apt-get update -qq || die "apt-get update failed: is the Debian archive reachable from here?"
    # Nothing of these should start a service on this computer.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >setup.log 2>&1 ||
        { tail -n 20 setup.log >&2; die "installing Debian packages failed; the whole log is setup.log"; }
    rm -f setup.log
}

[ -f debian-packages.txt ] || die "run me from the project's folder"
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_packages
else
    say "this is not Debian, so the programs it needs are yours to install; Debian's names for them:"
    sed -e 's/#.*//' -e '/^[[:space:]]*$/d' debian-packages.txt | tr '\n' ' ' >&2
    echo >&2
fi

if ! usable_environment; then
    command -v python3 >/dev/null || die "python3 is missing: apt-get install -y python3 python3-venv"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed"
    python3 -c 'import ensurepip' 2>/dev/null || die "Python's venv is missing: apt-get install -y python3-venv"
    say "making .venv"
    rm -rf .venv
    python3 -m venv .venv
fi
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$1" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$1" ||
        die "pip could not install uv: is PyPI reachable from here?"
fi
