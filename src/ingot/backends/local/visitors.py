"""Files that are on a machine's disk while it runs, and in no layer."""

from __future__ import annotations

from ingot.backends.local import network

_POLICY = "#!/bin/sh\n# No service starts during a build.\nexit 101\n"
_SYSCTL = """\
#!/bin/sh
# During a build the kernel is the builder's, and its settings are not the image's to change: what the image's files
# say holds from its first boot on. Questions are answered by the real program.
for word; do
  case $word in
    -w | --write | -p* | --load* | --system | [!-]*=*) exit 0 ;;
  esac
done
for real in /usr/sbin/sysctl /sbin/sysctl; do
  [ ! -x "$real" ] || exec "$real" "$@"
done
echo "sysctl: not installed" >&2
exit 127
"""
_SUDOERS = 'Defaults env_keep += "{}"\n'
_KEPT_BY_SUDO = (
    "SYSTEMD_OFFLINE debian_chroot DEBIAN_FRONTEND *_proxy *_PROXY SSL_CERT_FILE REQUESTS_CA_BUNDLE"
)


def visitors(*, booted: bool) -> list[dict[str, object]]:
    """The files of one machine; on a booted one services start as they are told to."""
    policy = {"path": "/usr/sbin/policy-rc.d", "text": _POLICY, "mode": 0o755}
    return [
        *(() if booted else (policy,)),
        {"path": "/usr/local/sbin/sysctl", "text": _SYSCTL, "mode": 0o755, "only_if_missing": True},
        {"path": "/etc/resolv.conf", "text": network.RESOLV_CONF, "mode": 0o644},
        {"path": "/etc/hosts", "text": "127.0.0.1 localhost\n", "mode": 0o644, "only_if_missing": True},
        {"path": "/etc/apt/apt.conf.d/99ingot", "link": "/run/ingot/apt.conf"},
        {"path": "/etc/sudoers.d/ingot", "text": _SUDOERS.format(_KEPT_BY_SUDO), "mode": 0o440},
    ]
