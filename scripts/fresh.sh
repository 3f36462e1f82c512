#!/bin/sh
# Proves the README's two commands on machines with nothing installed: clean mmdebstrap roots of Debian 12 and 13.
# Usage: scripts/fresh.sh [bookworm|trixie|all] [setup|demo|test|all] (needs root). The clone is of the last commit.
set -eu

suites=${1:-all}
what=${2:-all}
here=$(pwd -P)
work="$here/.cache/fresh"
[ "$suites" = all ] && suites="bookworm trixie"
case "$what" in
    setup | demo | test) goals=$what ;;
    all) goals="demo test" ;;
    *) echo "fresh: $what is none of setup, demo, test, all" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "fresh: making a clean root needs root" >&2; exit 2; }

# Extra authorities that this computer trusts (a company's proxy, say) are part of reaching the network from here.
trust() {
    mkdir -p "$1/usr/local/share/ca-certificates"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$1/usr/local/share/ca-certificates/" \;
}

make_root() {
    root="$work/$1"
    rm -rf "$root"
    mkdir -p "$work"
    echo "fresh: making a clean $1 root"
    mmdebstrap --quiet --variant=minbase --include=systemd-sysv "$1" "$root"
    trust "$root"
}

# Everything in namespaces of its own: no daemon that a package starts can listen on this computer, and nothing
# outlives the script. The network is user-mode, outgoing only.
enter() {
    root=$1
    script=$2
    mkdir -p "$root/run/fresh"
    unshare --mount --pid --net --ipc --uts --fork --kill-child sh -eu -c '
        root=$1 here=$2 script=$3
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs -o size=2g tmpfs "$root/tmp"
        mkdir -p "$root/mnt/source"
        mount --bind -o ro "$here" "$root/mnt/source"
        echo "nameserver 10.0.2.3" >"$root/etc/resolv.conf"
        ip link set lo up
        touch "$root/run/fresh/ready"
        while ! ip link show tap0 >/dev/null 2>&1; do sleep 0.1; done
        cd "$root"
        mkdir -p mnt/old
        pivot_root . mnt/old
        umount -l /mnt/old
        exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb sh -eu -c "$script"
    ' sh "$root" "$here" "$script" &
    holder=$!
    while [ ! -e "$root/run/fresh/ready" ]; do
        kill -0 $holder || { echo "fresh: could not enter $root" >&2; return 1; }
        sleep 0.1
    done
    inside=$(pgrep -P $holder | head -n 1)
    setpriv --pdeathsig KILL slirp4netns --configure --mtu=65520 --disable-host-loopback "$inside" tap0 >/dev/null 2>&1 &
    slirp=$!
    code=0
    wait $holder || code=$?
    kill $slirp 2>/dev/null || true
    rm -f "$root/run/fresh/ready"
    return $code
}

failed=""
for suite in $suites; do
    make_root "$suite"
    enter "$work/$suite" 'apt-get update -qq && apt-get install -y -qq make git python3-venv ca-certificates >/dev/null
        git config --global --add safe.directory "*" && git clone -q /mnt/source /root/ingot' ||
        { failed="$failed $suite/prepare"; continue; }
    for goal in $goals; do
        echo "fresh: $suite: make $goal"
        if enter "$work/$suite" "cd /root/ingot && make $goal && make $goal"; then
            echo "fresh: $suite: make $goal passed twice in a row"
        else
            failed="$failed $suite/$goal"
        fi
    done
    rm -rf "${work:?}/$suite"
done
[ -z "$failed" ] || { echo "fresh: failed:$failed" >&2; exit 1; }
echo "fresh: all passed"
