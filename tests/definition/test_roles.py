from __future__ import annotations

from pathlib import Path

import pytest

from ingot.definition.roles import RoleSearch, read_interface


def _role(folder: Path) -> Path:
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "main.yml").write_text("---\n[]\n")
    return folder


def test_folders_of_the_project_and_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text(
        "[defaults]\nroles_path = shared:%(nothing)s:/nowhere\ncollections_path = vendor\n"
    )
    first = _role(tmp_path / "shared" / "web")
    _role(tmp_path / "roles" / "web")
    own = _role(tmp_path / "roles" / "db")
    vendored = _role(tmp_path / "vendor" / "ansible_collections" / "acme" / "tools" / "roles" / "agent")
    search = RoleSearch(root=tmp_path, installed=())
    assert search.role("web") == first
    assert search.role("db") == own
    assert search.role("acme.tools.agent") == vendored
    assert search.role("roles/db") == own
    assert search.role("lost") is None
    assert search.role("acme.lost.agent") is None


def test_installed_collections_come_last(tmp_path: Path) -> None:
    role = _role(tmp_path / "site" / "ansible_collections" / "acme" / "tools" / "roles" / "agent")
    search = RoleSearch(root=tmp_path / "project", installed=(tmp_path / "site",))
    assert search.role("acme.tools.agent") == role


def test_collections_of_the_ansible_package_are_found(tmp_path: Path) -> None:
    assert RoleSearch(root=tmp_path).collection("community.general") is not None


@pytest.mark.parametrize("text", ["nonsense", "[defaults\n", "[other]\nroles_path = x\n", "\udc00"])
def test_an_unreadable_configuration_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ansible.cfg").write_bytes(text.encode(errors="surrogatepass"))
    assert RoleSearch(root=tmp_path, installed=()).config.get("roles_path") is None


def test_dependencies_that_need_each_other(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        meta = _role(tmp_path / "roles" / one) / "meta"
        meta.mkdir()
        (meta / "main.yml").write_text(f"dependencies: [{other}]\n")
        (meta / "argument_specs.yml").write_text(
            f"argument_specs: {{main: {{options: {{{one}_x: {{type: str}}}}}}}}\n"
        )
    interface = read_interface(RoleSearch(root=tmp_path, installed=()), "a")
    assert interface is not None
    assert set(interface.options) == {"a_x"}
    assert "b_x" in interface.others
    assert interface.closed
