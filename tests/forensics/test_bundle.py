from __future__ import annotations

import json
from pathlib import Path

from ingot.forensics import bundle
from ingot.forensics.classify import classify
from ingot.model.forensics import Evidence, Port
from ingot.model.secret import Secret, scrubber
from ingot.model.units import Seconds
from tests.forensics import recorded

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"
SECRETS = {"token": Secret("s3cr3t-token"), "short": Secret("a")}


def write(folder: Path, evidence: Evidence) -> dict[str, str]:
    bundle.write(folder, evidence, classify(evidence), scrub=scrubber(SECRETS))
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_bundle_holds_no_secret_and_no_private_key(tmp_path: Path) -> None:
    evidence = Evidence(
        kind="vm",
        console=f"cloud-init: fetching with s3cr3t-token\n{KEY}\nlogin: ",
        journal=f"[ 1.0] node cloud-init[1]: s3cr3t-token\n[ 1.1] node sshd[2]: {KEY}\n",
        logs={"cloud-init.log": f"s3cr3t-token {KEY}"},
        port=Port(state="greeted", login="refused", said=("debug1: s3cr3t-token",)),
    )
    texts = write(tmp_path / "machine", evidence)
    assert set(texts) == {
        "summary.txt",
        "evidence.json",
        "console.log",
        "journal.log",
        "sshd.log",
        "cloud-init.log",
    }
    for text in texts.values():
        assert "s3cr3t-token" not in text and "b3BlbnNzaC1rZXk" not in text
    assert texts["console.log"].startswith("cloud-init: fetching with ***\n*** (a private key)\n")
    assert (tmp_path / "machine").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "machine").iterdir())


def test_a_key_whose_end_is_missing_is_left_out_too(tmp_path: Path) -> None:
    texts = write(tmp_path, Evidence(kind="vm", console=f"up\n{KEY[:60]}"))
    assert texts["console.log"] == "up\n*** (a private key)"


def test_a_name_from_a_disk_is_no_path(tmp_path: Path) -> None:
    write(tmp_path / "machine", Evidence(kind="vm", logs={"../../etc/passwd": "x"}))
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_of_a_long_text_the_middle_is_left_out(tmp_path: Path) -> None:
    texts = write(tmp_path, Evidence(kind="vm", console="a" * bundle.LONGEST + "b" * bundle.LONGEST))
    said = texts["console.log"]
    assert said.startswith("aaa") and said.endswith("bbb") and len(said) < bundle.LONGEST + 100
    assert f"{bundle.LONGEST} characters left out" in said


def test_what_was_written_can_be_read_again(tmp_path: Path) -> None:
    evidence = Evidence(
        kind="booted",
        console="Welcome to Debian\n",
        status="starting",
        seconds=Seconds(12.0),
        jobs=("db.service",),
        port=Port(login="accepted", said=("one", "two")),
        logs={"auth.log": "text\n"},
    )
    texts = write(tmp_path, evidence)
    assert recorded.load(tmp_path) == evidence
    about = json.loads(texts["evidence.json"])
    assert (about["cause"], about["stage"], "console" in about) == ("slow", "systemd", True)
    first, second, *_ = texts["summary.txt"].splitlines()
    assert first.startswith("slow: it is still booting (stage systemd") and second.startswith("try: ")
    assert "waits for  db.service\n" in texts["summary.txt"]
