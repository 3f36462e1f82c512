"""Which layers a cloud keeps."""

from __future__ import annotations

import pytest

from ingot.model.step import CloudInitStep, PackagesStep, RebootStep, SealStep
from ingot.model.units import Bytes
from ingot.planning.checkpoints import Part, checkpoints

PLAIN: Part = ((PackagesStep(install=("htop",)),), None)
NAMED: Part = ((PackagesStep(install=("htop",), layer="drivers"),), None)
REBOOT: Part = ((RebootStep(),), None)
TOLD: Part = ((CloudInitStep(inline="#cloud-config\n"),), None)
LARGER: Part = ((), Bytes(2**34))
SEAL: Part = ((SealStep(),), None)


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ([SEAL], {0}),
        ([PLAIN, SEAL], {0, 1}),
        ([PLAIN, PLAIN, PLAIN, SEAL], {0, 1, 2, 3}),
        # The one before the last part first, then the first, the last, and what halves the way.
        ([*[PLAIN] * 20, SEAL], {0, 10, 18, 19, 20}),
        # What the user names comes before what is only likely to be of use.
        ([PLAIN, NAMED, NAMED, NAMED, NAMED, *[PLAIN] * 9, SEAL], {1, 2, 3, 4, 14}),
        ([*[PLAIN] * 5, REBOOT, *[PLAIN] * 5, SEAL], {0, 4, 9, 10, 11}),
        # A machine that was told something at its first boot has made nothing else.
        ([*[PLAIN] * 4, TOLD, *[PLAIN] * 4, SEAL], {3, 4, 7, 0, 9}),
        # However many that are.
        ([PLAIN, LARGER, PLAIN, LARGER, PLAIN, TOLD, PLAIN, LARGER, SEAL], {0, 2, 4, 5, 6, 8}),
    ],
)
def test_at_most_four_beside_the_seal(parts: list[Part], kept: set[int]) -> None:
    assert checkpoints(parts, most=4) == kept


def test_the_end_of_an_image_that_others_continue() -> None:
    assert 3 in checkpoints([*[PLAIN] * 12, SEAL], most=4, ends=[3])
    assert checkpoints([*[PLAIN] * 12, SEAL], most=1, ends=[3, 11]) == {3, 12}


def test_none_but_what_has_to_be() -> None:
    assert checkpoints([*[PLAIN] * 5, SEAL], most=0) == {5}
    assert checkpoints([PLAIN, TOLD, SEAL], most=0) == {0, 1, 2}


def test_a_backend_that_keeps_all() -> None:
    assert checkpoints([PLAIN, PLAIN, SEAL], most=None) == {0, 1, 2}
