"""What the documentation says holds: links lead somewhere, pages are reachable, no private paths are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "collections/**/*.md", "changes/*.md")
    for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_there_are_pages() -> None:
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link and "mailto:" not in link]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_page_of_docs_is_linked_from_somewhere() -> None:
    linked = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if "://" not in link
    }
    folders = {target for target in linked if target.is_dir()}
    orphans = [
        page
        for page in PAGES
        if page.is_relative_to(ROOT / "docs")
        and page.resolve() not in linked
        and not any(page.resolve().is_relative_to(folder) for folder in folders)
    ]
    assert not orphans


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_decisions_say_what_was_not_chosen(page: Path) -> None:
    if page.parent.name != "decisions" or page.name == "README.md":
        pytest.skip("not a decision")
    assert "**Chosen.**" in page.read_text()
    assert "**Instead of**" in page.read_text()
