"""The documentation: the site builds, commands are real, named files exist, examples run, quoted messages are the code's."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

import merba
from merba.cli import command_parser
from merba.config import complete, schema
from merba.config.reference import reference
from merba.datasets import ADAPTERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_DATA = ("config/3db.yaml", "config/dfme.yaml", "mine.yaml")  # the last is the reader's own copy


def blocks(page, language):
    """(title or "", text) of a page's fenced code blocks."""
    return re.findall(rf'^```{language}(?: title="([^"\n]*)")?\n(.*?)^```$', page.read_text(), re.M | re.S)


def words_of(lines, program):
    """The command lines of `program` among `lines`, as words without the program."""
    found = []
    for part in (part for line in lines for part in line.split(" && ")):
        words = shlex.split(re.split(" >>? ", part)[0], comments=True)
        if words and words[0] == program and "…" not in part:
            found.append(words[1:])
    return found


def commands(program):
    """(page, words) of each command line of `program` in a shell block."""
    found = []
    for page in PAGES:
        lines = [line for _, text in blocks(page, "(?:sh|bash)") for line in text.replace("\\\n", " ").splitlines()]
        found += [(page.name, words) for words in words_of(lines, program)]
    return found


def mentions(program):
    """(page, words) of each command line of `program` in the text, which may leave out what it needs."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S).replace("\n", " ")
        found += [(page.name, words) for words in words_of(re.findall(rf"`({program} [^`]+)`", text), program)]
    return found


def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))', page)


def test_the_configuration_page_is_the_schemas():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()


@pytest.mark.parametrize(("page", "words"), commands("merba"))
def test_every_merba_command_is_one(page, words):
    command_parser().parse_args(words)


@pytest.mark.parametrize(("page", "words"), mentions("merba"))
def test_every_subcommand_and_option_in_the_text_exists(capsys, page, words):
    with pytest.raises(SystemExit) as end:
        command_parser().parse_args([words[0], "--help"])
    assert end.value.code == 0
    known = capsys.readouterr().out
    assert all(word in known for word in words if word.startswith("--"))


@pytest.mark.parametrize(("page", "words"), [*commands("make"), *mentions("make")])
def test_every_make_target_exists(page, words):
    assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(("page", "words"), [*commands("snakemake"), *mentions("snakemake")])
def test_every_snakemake_command_is_one(page, words):
    parsed = get_argument_parser().parse_args(words)
    # What follows --configfile is a file too: targets come before it.
    for path in [*(parsed.configfile or []), *(parsed.profile or [])]:
        assert (ROOT / path).exists() or str(path) == "mine.yaml"


@pytest.mark.long
@pytest.mark.parametrize("config", [None, "config/public_flow.yaml"])
def test_every_target_in_the_documentation_can_be_planned(tmp_path, config):
    targets = set()
    for _, words in [*commands("snakemake"), *mentions("snakemake")]:
        parsed = get_argument_parser().parse_args(words)
        files = [str(path) for path in parsed.configfile or []]
        # The demo replaces the licensed data: it has the same datasets.
        if (files[0] if files and files[0] not in NEEDS_DATA else None) == config:
            targets |= {*parsed.targets, *(parsed.forcerun or [])}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        tmp_path,
        "-n",
        *sorted(targets),
    ]
    command += ["--configfile", ROOT / config] if config else []
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_file_exists(page):
    named = re.findall(
        r"(?<![\w/.-])(?<!not `)((?:bench|config|docs|envs|merba|profiles|rules|tests|workflow)/[\w./-]*[\w/])", page.read_text()
    )
    examples = {title for title, _ in blocks(page, "python") if title}
    assert not [path for path in named if not (ROOT / path).exists() and path not in examples]


def test_every_named_test_exists():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w{4,})`", page.read_text())}
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in tests]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_in_the_text_is_valid(page):
    for _, text in blocks(page, "yaml"):
        document = yaml.safe_load(text)
        assert set(document) <= set(schema("config")["properties"])
        if "experiments" in document:
            complete({"data": "3db", "datasets": {"samm": {"adapter": "samm"}}} | document)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_layout_is_shown_as_a_tree(adapter):
    (section,) = re.findall(rf"^## {adapter}\n(.*?)(?=^## )", (ROOT / "docs" / "datasets.md").read_text(), re.M | re.S)
    assert "```\nroot/\n├── " in section or "```\nroot/\n└── " in section


def test_the_citation_is_of_this_version_the_paper_and_every_dataset():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == merba.__version__
    cited = [f"{one['title']} {one.get('notes', '')} {one.get('url', '')}" for one in citation["references"]]
    for work in ("arxiv.org/abs/2506.14468", *(f"dataset {name}" for name in ("SMIC", "CASME II", "SAMM", "DFME", "CAS(ME)³"))):
        assert sum(work in one for one in cited) == 1


def test_the_readme_takes_three_minutes():
    text = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert len(text.split()) < 3 * 250, "a practised reader takes in some 250 words a minute"


def test_the_example_of_the_readme_runs():
    ((_, code),) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("part", ["A model", "A dataset"])
def test_the_worked_examples_run(tmp_path, part):
    """The files of docs/extending.md are written and installed as a package, and the example runs next to them."""
    page = tmp_path / "part.md"
    page.write_text(re.search(rf"^## {part}\n(.*?)(?=^## |\Z)", (ROOT / "docs/extending.md").read_text(), re.M | re.S)[1])
    examples = []
    for title, code in blocks(page, "python"):
        if title:
            (tmp_path / title).write_text(code)
        else:
            examples.append(code)
    for title, text in blocks(page, "toml"):
        if title:
            (tmp_path / title).write_text(text)
            install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", tmp_path / "installed", tmp_path]
            subprocess.run([sys.executable, "-m", "pip", *map(str, install)], check=True)
    assert examples
    places = os.pathsep.join(map(str, (ROOT, tmp_path / "installed", tmp_path)))
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(examples)], cwd=tmp_path, env={"PYTHONPATH": places}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def messages_of_the_code():
    """Every text in merba/, with … where a value is filled in."""
    found = set()
    for path in (ROOT / "merba").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_in_troubleshooting_is_one_of_the_code():
    texts = messages_of_the_code()
    quoted = [text.strip() for _, text in blocks(ROOT / "docs" / "troubleshooting.md", "text")]
    assert len(quoted) > 10
    for message in quoted:
        parts = [re.escape(part.strip()) for part in re.split("…+", message) if part.strip()]
        assert any(re.search(".*".join(parts), text, re.S) for text in texts), message
