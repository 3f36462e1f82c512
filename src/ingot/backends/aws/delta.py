"""Which blocks of a disk a snapshot has to be sent, decided by what is known of each. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from ingot.model.units import Bytes
from ingot.ports.disks import BLOCK, Block

if TYPE_CHECKING:
    from ingot.backends.aws.ledger import About

GIB = 2**30
ZEROS = bytes(BLOCK)
ZEROS_SUM = hashlib.sha256(ZEROS).digest()

Fate = Literal["skip", "leave out", "look"]


def volume_gib(size: Bytes) -> int:
    """The size of the volume for a disk, in GiB: the next whole number."""
    return max(1, -(-size // GIB))


def blocks_in(gib: int) -> int:
    """How many blocks a volume has."""
    return gib * GIB // BLOCK


def may_leave_out_zeros(*, asked: bool, encrypted: bool, encrypted_copy: bool, delta: bool) -> bool:
    """Whether blocks of zeros need not be sent: only to a snapshot known to be, and to stay, unencrypted.

    Blocks left out of an encrypted snapshot read back as noise; those left out of a delta as what the parent has.
    """
    return asked and not encrypted and not encrypted_copy and not delta


def may_be_parent(about: About, *, blocks: int, encrypted: bool, key: str, encrypted_copy: bool) -> bool:
    """Whether an earlier snapshot can be the parent of one of so many blocks, which takes encryption and key from it.

    What was left out of the parent is noise in an encrypted copy of its children too.
    """
    if about.blocks > blocks or (about.gaps and encrypted_copy):
        return False
    return not (encrypted or key) or (about.encrypted and about.key == key)


def decide(block: Block, *, sent: bool, known: bool, zeros_left_out: bool) -> Fate:
    """What becomes of a block before it is read: `look` at its bytes to know more.

    `sent`: this snapshot has it already; `known`: it is known which bytes the snapshot has there now.
    """
    if sent or (known and block.same):
        return "skip"
    if block.empty and zeros_left_out:
        return "leave out"
    return "look"


def differs(checksum: bytes, there: bytes | None) -> bool:
    """Whether a block that was looked at has to be sent; `there` is what the snapshot has, None where nobody knows."""
    return there != checksum
