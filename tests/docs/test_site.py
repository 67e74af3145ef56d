"""README.md fits two screens, links lead somewhere, and every command and metric has its place in docs/."""

import argparse
import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

from state_rag import __version__
from state_rag.cli import build_parser
from tests.docs.blocks import README, ROOT, pages

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)")
FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2", re.MULTILINE | re.DOTALL)
TX = ("train", "predict", "infer")


def text_of(page):
    return FENCED.sub("", page.read_text())


def anchors(page):
    """Return the anchors that GitHub and MyST give to a page's headings, and explicit ones."""
    headings = re.findall(r"^#+ +(.*)$", text_of(page), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\((.+)\)=$", text_of(page), re.MULTILINE))


def command_names():
    (choices,) = [
        action.choices for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return list(choices)


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for found in LINK.finditer(text_of(page)):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{found['target']} is not there"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{found['target']}: no such heading"


@pytest.mark.parametrize("name", [*command_names(), *(f"tx-{name}" for name in TX)])
def test_a_command_has_a_page_with_its_help(name):
    page = ROOT / "docs" / "commands" / f"{name}.md"
    assert page.exists(), f"write docs/commands/{name}.md; the other pages there show how"
    directive = f"{{tx-help}} {name.removeprefix('tx-')}" if name.startswith("tx-") else f"{{command-help}} {name}"
    assert directive in page.read_text(), f"{page.name} lacks ```{directive}"


def test_a_page_of_a_command_belongs_to_a_command():
    found = {path.stem for path in (ROOT / "docs" / "commands").glob("*.md")} - {"index"}
    assert found == {*command_names(), *(f"tx-{name}" for name in TX)}


def test_generated_parts_are_asked_for_by_their_pages():
    for page, directive in {
        "settings.md": "{settings-table}",
        "metrics.md": "{metrics-table}",
        "architecture.md": "{rooms-picture}",
        "api.md": "{public-api}",
    }.items():
        assert directive in (ROOT / "docs" / page).read_text()


def test_each_download_has_its_card():
    entries = tomllib.loads((ROOT / "datasets" / "checksums.toml").read_text())
    names = {entry["name"] for entry in entries.values() if "name" in entry}
    told = set(re.findall(r"`(?:state-rag data fetch )?([\w-]+)`", (ROOT / "datasets" / "README.md").read_text()))
    assert names <= told


def test_the_citation_file_has_what_the_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == __version__
    assert citation["license"] == "MIT"
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2603.07233"
    assert isinstance(citation.get("date-released", date.today()), date)


def test_a_source_distribution_has_what_the_documentation_is_made_of():
    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    files = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "README.md"}
    assert {f"/{name}" for name in {"docs", "state_rag", "tests"} | files} <= set(kept)


def test_no_path_of_a_machine_stands_in_the_pages():
    for page in [*pages(), ROOT / "CITATION.cff", *(ROOT / "docs").glob("*.py"), *(ROOT / "docs").glob("*.svg")]:
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|mnt|Users)/", Path(page).read_text()), page
