#!/bin/sh
# What the playbook should have made for one workload manager.
set -eux

manager=$1
licence=$(printf 'a licence that only the vault knows' | sha256sum | cut -d ' ' -f 1)

test "$(cat /etc/launcher/licence.sha256)" = "$licence"
grep -qx "workload_manager: $manager" /etc/launcher/launcher.yaml
grep -qx '  - registry.example/cuda:1' /etc/launcher/launcher.yaml
test "$(cat /srv/images/wanted)" = registry.example/cuda:1
test "$(stat -c %a /srv/images/cache)" = 777
grep -qx 'no self-test; 1 account' /etc/launcher/selftest
grep -q 'registry.example' /etc/launcher/registries.conf
grep -q LAUNCHER_HOME /etc/profile.d/shell_vars.sh
grep -qx '\* hard memlock unlimited' /etc/security/limits.conf
grep -q "for $manager on Debian 12" /etc/motd
test "$(systemctl is-enabled launcher)" = enabled
test "$(systemctl is-enabled unattended-upgrades || true)" = masked
test "$(stat -c %U /etc/launcher/launcher.yaml)" = launcher
test "$(systemctl is-enabled munge || true)" = enabled || test "$manager" = pbs
dpkg-query --show libexpat1-dev libncurses-dev htop zip
