"""Every relative link and file in the pages leads somewhere, and the lists of pages are complete."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Folders of what is installed or built.
NOT_OURS = {".git", ".venv", ".venv-generate", "build", "dist", "node_modules", "target"}
PAGES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not NOT_OURS & set(path.relative_to(ROOT).parts) and "site-packages" not in path.parts
)
# Folders that the paths in the pages start from.
FOLDERS = (".", "tests", "server/abstractllm_server", "abstractllm/providers/huggingface")
CODE = re.compile(r"^(```|~~~).*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its code."""
    return CODE.sub(lambda match: "" if match[1] else "code", (ROOT / page).read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings, and those that the page sets itself."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.sub(r"^(```|~~~).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    counts: Counter[str] = Counter()
    names = set(re.findall(r'<a (?:id|name)="([^"]+)"', blocks))
    for heading in re.findall(r"^#{1,6} (.+?)(?: #*)?$", blocks, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        names.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return names


def links(page: Path) -> list[str]:
    """Return the relative links of a page."""
    targets = [inline or reference for inline, reference in LINK.findall(prose(page))]
    return [target for target in targets if not re.match(r"[a-z][a-z+.-]*:", target)]


def broken(page: Path, link: str) -> bool:
    """Return true if a link leads to no file, or to no heading of its page."""
    path, _, anchor = link.partition("#")
    target = (ROOT / page.parent / unquote(path)).resolve() if path else ROOT / page
    if not target.exists() or not target.is_relative_to(ROOT):
        return True
    return bool(anchor) and (target.suffix != ".md" or anchor not in anchors(target.relative_to(ROOT)))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if broken(page, link)] == []


def test_links_are_read_and_judged() -> None:
    assert sum(len(links(page)) for page in PAGES) > 50
    page = Path("README.md")
    for link in ("LICENSE", "docs/configuration.md#who-may-call", "docs", "#start"):
        assert not broken(page, link)
    for link in ("no-such-page.md", "docs/configuration.md#no-such-heading", "#no-such-heading", "../elsewhere.md"):
        assert broken(page, link)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_and_test_that_a_page_names_is_there(page: Path) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:go|java|json|mjs|proto|py|ts))(?:::(\w+))?`", text)
    missing = []
    for name, test in named:
        files = [ROOT / folder / name for folder in FOLDERS if (ROOT / folder / name).is_file()]
        if not files or test not in files[0].read_text("utf-8"):
            missing.append(f"{name}::{test}")
    assert missing == []


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_the_index_of_a_folder_lists_all_of_its_pages(folder: str) -> None:
    index = Path(folder, "README.md")
    listed = {(ROOT / folder / link.partition("#")[0]).resolve() for link in links(index)}
    pages = {path.resolve() for path in (ROOT / folder).glob("*.md")} - {(ROOT / index).resolve()}
    if folder == "docs":
        pages |= {path.resolve() for path in (ROOT / "docs/providers").glob("*.md")}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - listed) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_has_its_number_status_and_date(page: Path) -> None:
    text = page.read_text("utf-8")
    status = r"accepted|superseded by \[\d+\]\([^)]+\)"
    match = re.match(
        rf"# (\d+)\. (.+)\n\n- Status: ({status})\n- Date: (\d{{4}}-\d\d-\d\d)\n\n\*\*Context\.\*\* ", text
    )
    assert match, "begins with its title, status and date"
    number, title, _, date = match.groups()
    assert page.name.startswith(f"{int(number):04}-")
    row = rf"\| {number} \| \[{re.escape(title)}\]\({re.escape(page.name)}\) \| .+ \| {date} \|"
    assert re.search(row, (page.parent / "README.md").read_text("utf-8"))
