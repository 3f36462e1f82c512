#!/bin/sh
# What the roles should have made.
set -eux

age --version
grep -qx 'Server=10.0.0.5' /etc/zabbix/zabbix_agentd.conf
test "$(stat -c %a /etc/zabbix/zabbix_agentd.d)" = 755
test "$(systemctl is-enabled zabbix-agent)" = enabled
test "$(systemctl is-enabled zabbix-java-gateway)" = enabled
grep -q '^LISTEN_PORT=10052' /etc/zabbix/zabbix_java_gateway.conf
grep -q '^vm.swappiness=' /etc/sysctl.conf && grep -qx 'vm.zone_reclaim_mode=0' /etc/sysctl.conf
test "$(systemctl is-enabled manage-transparent-huge-pages)" = enabled
