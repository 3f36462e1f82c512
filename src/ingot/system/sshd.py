"""The SSH server that a machine runs for one connection at a time, on its standard input and output: `sshd -i`.

It needs no listener and nothing of the machine's own configuration; its keys lie in memory, below /run.
"""

from __future__ import annotations

from collections.abc import Mapping

PROGRAM = "/usr/sbin/sshd"
FOLDER = "/run/ingot"
"""Where its files are on the machine: `sshd_config`, `host_key`, `authorized_keys`."""


def config(environment: Mapping[str, str], *, pam: bool) -> str:
    """The whole configuration of the machine's sshd; `environment` is what every login gets."""
    pairs = " ".join(f"{name}={value}" for name, value in sorted(environment.items()))
    return (
        f"HostKey {FOLDER}/host_key\n"
        f"AuthorizedKeysFile {FOLDER}/authorized_keys\n"
        "StrictModes no\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        # PAM would ask a name server who is calling, and wait for a dead one.
        f"UsePAM {'yes' if pam else 'no'}\n"
        "UseDNS no\n"
        # Post-quantum key exchange doubles the time of a login, and this connection is a pair of pipes.
        "KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256\n"
        "PrintMotd no\n"
        "PrintLastLog no\n"
        "PidFile none\n"
        "MaxSessions 100\n"
        "AcceptEnv LANG LC_*\n"
        f"SetEnv {pairs}\n"
        "Subsystem sftp internal-sftp\n"
    )


def needs_pam(shadow: str) -> bool:
    """Whether root's password is locked (`!`): without PAM sshd refuses such an account whatever key it has."""
    words = next((line.split(":") for line in shadow.splitlines() if line.startswith("root:")), [])
    return len(words) > 1 and words[1].startswith("!")
