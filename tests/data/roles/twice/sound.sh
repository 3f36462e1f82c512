#!/bin/sh
# What a build with these roles must not leave behind, looked at while the machine is still there.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

[ ! -e /etc/munge/munge.key ] || fail "a MUNGE key is in the image"
for program in munged slurmctld slurmd chronyd prometheus-node-exporter; do
    for found in /proc/[0-9]*/exe; do
        [ "$(basename "$(readlink "$found" || true)")" != "$program" ] || fail "$program runs during the build"
    done
done
for unit in munge ingot-munge-key slurmctld slurmd ingot-slurm-node chrony prometheus-node-exporter; do
    [ "$(systemctl is-enabled "$unit")" = enabled ] || fail "$unit is not enabled"
done
[ "$(id -u slurm):$(id -g slurm)" = 64030:64030 ] || fail "slurm has other ids: $(id slurm)"
