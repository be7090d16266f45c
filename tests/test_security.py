"""What docs/reliability.md says about security is true of the code: no shell strings, no pickles, exact versions."""

import ast
import re
from pathlib import Path

import pytest

from merba.datasets.flow_images import clone
from merba.errors import MerbaError

ROOT = Path(__file__).parents[1]
RULES = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))])
CODE = [*(ROOT / "merba").rglob("*.py"), *(ROOT / "workflow" / "scripts").glob("*.py")]
RUNS_CODE = r"(eval|exec|compile|os\.(system|popen|exec\w*|spawn\w*)|\w*[pP]ickle\.loads?|yaml\.(unsafe_)?load|pd\.read_pickle)"


def calls():
    """(place, function as written, node) of every call in the package and the rules' scripts."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def keywords(node):
    return {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def test_every_rule_runs_a_script_and_the_documented_list_is_theirs():
    assert not re.findall(r"^ +(shell|run|wrapper|notebook|cwl):", RULES, re.M)
    rules = re.split(r"^ *rule ?(\w*):", RULES, flags=re.M)
    with_jobs, scripts = set(), set()
    for name, body in zip(rules[1::2], rules[2::2], strict=True):
        names = {"table_2", "table_3"} if 'f"table_{number}"' in body else {name}  # the two are made in a loop
        with_jobs |= names if re.search(r"^ +output:", body, re.M) else set()
        scripts |= names if re.search(r"^ +script:", body, re.M) else set()
    listed = re.search(r"no rule has a `shell:` line: (.*?) run scripts", (ROOT / "docs/reliability.md").read_text(), re.S)[1]
    assert with_jobs == scripts == set(re.findall(r"`(\w+)`", listed))


def test_programs_are_started_with_lists_of_arguments_and_none_by_a_shell():
    started = [(place, node) for place, name, node in calls() if name.startswith("subprocess.")]
    assert {place.split(":")[0] for place, _ in started} == {"merba/datasets/flow_images.py"}
    for place, node in started:
        assert isinstance(node.args[0], ast.List), place
        assert "shell" not in keywords(node), place


def test_nothing_that_is_read_becomes_code_but_a_model_file_that_the_user_names():
    run = {(place.split(":")[0], name) for place, name, _ in calls() if re.fullmatch(RUNS_CODE, name)}
    assert run == {("merba/plugins.py", "exec"), ("merba/plugins.py", "compile")}
    for place, name, node in calls():
        if name == "torch.load":
            assert keywords(node)["weights_only"] == "True", place
        assert keywords(node).get("allow_pickle", "False") == "False", place


@pytest.mark.parametrize("lock", sorted((ROOT / "envs").glob("*.txt")), ids=lambda path: path.name)
def test_every_dependency_has_an_exact_version(lock):
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+(; sys_platform == \"\w+\")?", line)] == []


@pytest.mark.parametrize("place", ["repository", "commit"])
def test_a_repository_or_commit_is_never_an_option_of_git(tmp_path, place):
    """Git's `--upload-pack=<command>` would run the command."""
    given = {"repository": f"file://{tmp_path}/absent", "commit": "HEAD", place: f"--upload-pack=touch {tmp_path}/ran"}
    with pytest.raises(MerbaError, match="git (remote|fetch) of"):
        clone(given["repository"], given["commit"], tmp_path / "clone")
    assert not (tmp_path / "ran").exists()
