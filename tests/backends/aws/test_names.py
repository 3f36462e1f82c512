"""Names are unique and such that EC2 takes them, whatever the template says."""

from __future__ import annotations

import re

import pytest

from ingot.backends.aws.names import WORDS, ami_name, tag_values, unknown_words, words

KNOWN = {
    "project": "acme", "image": "worker", "target": "aws", "run": "r1", "arch": "x86_64",
    "created": "20260907-120000", "digest": "0123456789ab",
}  # fmt: skip
LEGAL = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")  # RegisterImage, `Name`


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{project}-{image}-{created}", "acme-worker-20260907-120000"),
        ("bodo_{image}_4f2a_2024.8+3", "bodo_worker_4f2a_2024.8-3"),
        ("dask-cloudprovider {created}", "dask-cloudprovider 20260907-120000"),
        ("a", "a-0123456789ab"),
        ("+", "0123456789ab"),
        ("x" * 200, "x" * 115 + "-0123456789ab"),
        ("{{{image}}}", "worker"),
    ],
)
def test_ami_names(template: str, name: str) -> None:
    assert ami_name(template, KNOWN) == name
    assert LEGAL.fullmatch(name)


@pytest.mark.parametrize("template", ["acme-worker", "y" * 128, "ab"])
def test_a_name_that_is_taken_ends_in_the_digest(template: str) -> None:
    name = ami_name(template, KNOWN, taken=True)
    assert name.endswith("-0123456789ab") and LEGAL.fullmatch(name) and name != template


def test_words() -> None:
    assert unknown_words("".join(f"{{{word}}}" for word in WORDS)) == ()
    assert unknown_words("{image}-{sha}-{}") == ("sha", "")
    assert {*words({"image": "worker"}, arch="x86_64", digest="d")} == {*WORDS}
    for wrong in ("{image", "{image!r}", "{created:%Y}"):
        with pytest.raises(ValueError, match=r"\w"):
            unknown_words(wrong)


def test_a_tag_whose_word_is_not_known_yet_is_left_out() -> None:
    templates = {"Role": "{image}", "AMISha": "{digest}", "Team": "hpc", "Long": "z" * 300}
    assert tag_values(templates, KNOWN) == {
        "Role": "worker",
        "AMISha": "0123456789ab",
        "Team": "hpc",
        "Long": "z" * 256,
    }
    before = words({"image": "worker"}, arch="x86_64")
    assert {*tag_values(templates, before)} == {"Role", "Team", "Long"}
