"""The real file system as a tree, and the same digests over it as over one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.planning.roles import ContentReader
from ingot.system.tree import FileTree

from .test_content import BEFORE, DATA


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path, text in DATA["files"].items():
        file = tmp_path / "project" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)
    return tmp_path / "project"


def test_real_files_have_the_digests_of_those_in_memory(project: Path) -> None:
    reader = ContentReader(FileTree(project))
    assert reader.roles(["slurm"], groups=["slurm"]) == BEFORE["slurm"]
    assert reader.playbook("plays/site.yml") == BEFORE["site"]


def test_further_roots_have_what_the_project_lacks(project: Path, tmp_path: Path) -> None:
    tail = Path("ansible_collections/ours/own")
    (tmp_path / "installed").mkdir()
    (project / "collections" / tail.parent).rename(tmp_path / "moved")
    (tmp_path / "installed/ansible_collections").mkdir()
    (tmp_path / "moved").rename(tmp_path / "installed" / tail.parent)
    assert ContentReader(FileTree(project)).roles(["ours.own.web"]).missing
    tree = FileTree(project, tmp_path / "installed")
    assert ContentReader(tree).roles(["ours.own.web"]).digest == BEFORE["web"].digest


def test_linked_folders_are_followed_and_circles_end(project: Path) -> None:
    (project / "roles/munge/files").mkdir()
    (project / "roles/munge/files/again").symlink_to(project / "roles/munge")
    (project / "roles/munge/files/common").symlink_to("../../../common")
    (project / "roles/munge/files/dangling").symlink_to("nowhere")
    files = FileTree(project).files("roles/munge")
    assert "roles/munge/files/common/motd" in files
    assert "roles/munge/files/dangling" in files
    assert ContentReader(FileTree(project)).roles(["munge"]).missing == ()


def test_reading_what_is_no_file(project: Path) -> None:
    tree = FileTree(project)
    assert tree.read("roles") is None
    assert tree.read("nothing") is None
    assert tree.read("ingot.yaml/x") is None
    assert tree.read("../project/ingot.yaml") == b"name: x\n"
    assert tree.read(str(project / "ingot.yaml")) == b"name: x\n"
    assert tree.files("ingot.yaml") == ()
    assert tree.mode("nothing") == 0
    assert tree.files("", deep=False) == ["ansible.cfg", "ingot.yaml"]


def test_a_listing_follows_no_links_and_leaves_git_out(tmp_path: Path) -> None:
    (tmp_path / "etc/.git").mkdir(parents=True)
    (tmp_path / "etc/.git/HEAD").touch()
    (tmp_path / "etc/empty").mkdir(mode=0o700)
    (tmp_path / "etc/run").write_text("x")
    (tmp_path / "etc/run").chmod(0o755)
    (tmp_path / "etc/link").symlink_to("run")
    (tmp_path / "etc/folder").symlink_to("empty")
    assert list(FileTree(tmp_path).listing("etc")) == [
        ("empty", "folder", 0o700),
        ("folder", "-> empty", 0),
        ("link", "-> run", 0),
        ("run", "file", 0o755),
    ]
    assert FileTree(tmp_path).listing("nothing") == ()
