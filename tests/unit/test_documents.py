# SPDX-License-Identifier: Apache-2.0
"""The documents: every playbook, role and plugin has its page, links lead somewhere, what is named exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "collections/ansible_collections/qiniu/qnet"
BIN = Path(sys.executable).parent
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLAYBOOK = re.compile(r"playbooks/([a-z_0-9]+\.yml)")


def tracked(pattern: str) -> list[Path]:
    """Files of the repository, those that are about to be added as well."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.splitlines() if (path := ROOT / name).exists()]


MARKDOWN = tracked("*.md")


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as the usual viewers make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Links of a page that lead to no file or no heading."""
    broken = []
    for link in LINK.findall(CODE.sub("", FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        missing_anchor = (
            anchor and target.suffix == ".md" and target.is_file() and anchor not in anchors(target.read_text())
        )
        if not target.exists() or missing_anchor:
            broken.append(link)
    return broken


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference as `make docs` writes it, in the place where it lies beside everything it links to."""
    out = tmp_path_factory.mktemp("reference")
    subprocess.run(["make", "docs", f"REFERENCE={out}"], cwd=ROOT, check=True, capture_output=True, timeout=200)
    return out


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](other.md) [d](page.md#one) [e](https://example.org)\n")
    assert broken_links(page) == ["#two", "other.md"]


def test_every_playbook_role_and_plugin_has_a_page(reference: Path) -> None:
    plugins = reference / "collections/qiniu/qnet"
    wanted = [reference / f"playbooks/{path.stem}.md" for path in (ROOT / "playbooks").glob("*.yml")]
    wanted += [reference / f"roles/{path.name}.md" for path in (ROOT / "roles").iterdir() if path.is_dir()]
    for kind, suffix in (("modules", "module"), ("filter", "filter"), ("inventory", "inventory"), ("become", "become")):
        files = [path for path in (COLLECTION / "plugins" / kind).glob("*.py") if not path.name.startswith("_")]
        assert files
        wanted += [plugins / f"{path.stem}_{suffix}.rst" for path in files]
    wanted += [reference / "README.md", reference / "inventory.md", reference / "qnet.md"]
    assert [str(page) for page in wanted if not page.is_file() or len(page.read_text()) < 100] == []


def test_every_inventory_variable_is_on_its_page(reference: Path) -> None:
    schema = yaml.safe_load((ROOT / "schemas/inventory.schema.json").read_text())
    text = (reference / "inventory.md").read_text()
    keys = [*schema["properties"], *(key for node in schema["$defs"].values() for key in node.get("properties", ()))]
    assert [key for key in keys if f"`{key}`" not in text] == []
    assert broken_links(reference / "inventory.md") == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        (
            "playbooks/new.yml",
            "# SPDX-License-Identifier: Apache-2.0\n---\n- hosts: all\n",
            "does not begin with a comment",
        ),
        ("roles/new/meta/argument_specs.yml", "argument_specs: {main: {short_description: x}}", "has no README.md"),
        ("roles/new/meta/argument_specs.yml", "argument_specs: {main: {}}", "has no short_description"),
        (
            "roles/new/meta/argument_specs.yml",
            "argument_specs: {main: {short_description: x, options: {new_a: {type: str}}}}",
            "new_a has no description",
        ),
    ],
)
def test_what_is_not_described_is_an_error(tmp_path: Path, path: str, text: str, complaint: str) -> None:
    for directory in ("tools", "playbooks", "roles", "schemas"):
        (tmp_path / directory).mkdir()
    for file in ("tools/write_reference.py", "schemas/inventory.schema.json"):
        (tmp_path / file).write_text((ROOT / file).read_text())
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    if "README" not in complaint and path.startswith("roles"):
        (tmp_path / "roles/new/README.md").write_text("# new\n\nText.\n")
    done = subprocess.run(
        [sys.executable, tmp_path / "tools/write_reference.py", tmp_path / "out"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert complaint in done.stderr


def test_every_playbook_can_be_read(tmp_path: Path) -> None:
    fleet = tmp_path / "hosts.yml"
    fleet.write_text("all: {children: {controllers: {hosts: {c1: }}, switches: {hosts: {h1: , h2: , h3: }}}}")
    books = sorted((ROOT / "playbooks").glob("*.yml"))
    command: list[str | Path] = [
        BIN / "ansible-playbook",
        "--syntax-check",
        "-i",
        ROOT / "inventories/fop",
        "-i",
        fleet,
        *books,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"playbook: {book}" in done.stdout for book in books)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_playbooks_and_make_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    there = {path.name for path in (ROOT / "playbooks").glob("*.yml")}
    assert set(PLAYBOOK.findall(text)) <= there
    makefile = (ROOT / "Makefile").read_text()
    named = {word for line in re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE) for word in line.split()}
    named |= set(re.findall(r"`make ([a-z0-9-]+)`", text))
    assert [t for t in named if not re.search(rf"(^|[ :]){t}\b.*:", makefile, re.MULTILINE) and "bench-" not in t] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_in_yaml_and_json_can_be_read(page: Path) -> None:
    for block in re.findall(r"^```(?:yaml|json)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        assert yaml.safe_load(block) is not None
