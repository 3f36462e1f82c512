"""The journal's format and what is read from it, whole or torn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.engine.journal import Journal, Place, unfinished
from ingot.errors import BackendError

PLACE = Place(backend="memory", location="here", options={"size": 3})


def test_records_come_back_newest_first_until_shut(tmp_path: Path) -> None:
    journal = Journal(tmp_path, run="r1")
    first, second = journal.open("a.machine", PLACE), journal.open("a.rule", PLACE)
    journal.made(first, "m-1")
    assert [(record.token, record.ref) for record in journal.read()] == [(second, ""), (first, "m-1")]
    assert journal.read()[0].place == PLACE
    journal.shut(second)
    assert [record.kind for record in journal.read()] == ["a.machine"]


def test_tokens_name_the_run_and_never_repeat(tmp_path: Path) -> None:
    journal = Journal(tmp_path, run="20261121-103045-ab12")
    tokens = [journal.open("a", PLACE) for _ in range(3)]
    assert tokens == [f"ingot-20261121-103045-ab12-{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_counts_as_unwritten_and_does_not_spoil_the_next(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, run="r1")
    token = journal.open("a.machine", PLACE)
    journal.made(token, "m-1")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    later = Journal(tmp_path, run="r1")
    assert [record.ref for record in later.read()] == [""]
    later.shut(token)
    assert later.read() == ()
    assert all(json.loads(line) for line in later.path.read_text().splitlines())


def test_a_journal_that_leaves_nothing_open_is_set_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path, run="r1")
    token = journal.open("a", PLACE)
    journal.close()
    assert journal.path.exists()
    journal.shut(token)
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal.done.jsonl"]


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, run="r1")
    journal.open("a", PLACE)
    written = journal.path.read_bytes()
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))
    with pytest.raises(BackendError, match="No space left"):
        journal.open("b", PLACE)
    assert journal.path.read_bytes() == written


def test_nothing_made_leaves_no_file(tmp_path: Path) -> None:
    Journal(tmp_path, run="r1").close()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(st.sampled_from(["open", "made", "shut"]), st.sampled_from("abc")), max_size=20))
def test_open_is_what_was_opened_and_not_shut_since(entries: list[tuple[str, str]]) -> None:
    lines = []
    expected: dict[str, str] = {}
    for do, token in entries:
        entry: dict[str, object] = {"do": do, "token": token, "kind": "k", "ref": "r"}
        entry |= {"place": {"backend": "m", "location": "", "options": {}}} if do == "open" else {}
        lines.append(json.dumps(entry) + "\n")
        if do == "open":
            expected[token] = ""
        elif do == "made" and token in expected:
            expected[token] = "r"
        elif do == "shut":
            expected.pop(token, None)
    assert {record.token: record.ref for record in unfinished(lines)} == expected
