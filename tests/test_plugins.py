"""Models and datasets from outside the package: a user's file, and entry points of an installed one."""

import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from checkpoints import checkpoint
from workflow_runs import MICRO, configured, planned, snakemake

from merba import create_model, list_models
from merba.code import code_digest
from merba.config import complete
from merba.datasets import load_dataset
from merba.errors import MerbaError
from merba.models import MODELS, check_model
from merba.plan import Plan
from merba.plugins import plugins
from merba.training.checkpoint import Member, load_checkpoint, save_checkpoint

NET = """
from pathlib import Path

from torch import nn

Path("ran.txt").touch()
SIZES = {"other_wide": {"width": 3}}


class Net(nn.Module):
    def __init__(self, num_classes, *, width=1):
        super().__init__()
        self.input_shape = (2, 4, 4)
        self.linear = nn.Linear(32, num_classes * width)
        self.classes = num_classes

    def forward(self, x):
        return self.linear(x.flatten(1))[:, : self.classes]
"""
READ = """
from merba.sheet import sample_rows

def read(root, *, name, emotion="joy"):
    row = {"dataset": name, "subject": "a", "clip": "b", "source": str(root), "kind": "video", "onset": 0}
    return sample_rows([row | {"emotion": emotion, "label": "positive"}])
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A file of a model in the working folder, which no test has run yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    forget()
    return tmp_path / "net.py"


def forget():
    """Forget the files that were run."""
    for name in [name for name in sys.modules if name.startswith("merba_own_")]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip would install it: two models of one class, a broken one, and a dataset."""
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    (site / "other_net").mkdir(parents=True)
    (site / "other_net" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    (site / "other_models.py").write_text(NET)
    (site / "other_data.py").write_text(READ)
    about = site / "other-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    models = "other_net = other_models:Net\nother_wide = other_models:Net\nother_broken = other_net.inner:Net\n"
    (about / "entry_points.txt").write_text(f"[merba.models]\n{models}\n[merba.datasets]\nother = other_data:read\n")
    monkeypatch.syspath_prepend(site)
    plugins.cache_clear()
    yield site
    plugins.cache_clear()
    sys.modules.pop("other_models", None)


def own_model(**arguments):
    return {"file": "net.py", "class": "Net", **arguments}


def test_a_class_of_a_file_is_a_model(net):
    assert check_model(own_model(width=2), 5).linear.out_features == 10
    with pytest.raises(MerbaError, match="Net has no argument 'depth'; it has width"):
        check_model(own_model(depth=2), 5)


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        (own_model() | {"file": "no.py"}, NET, "no.py doesn't exist; a relative path starts at the folder of the run"),
        (own_model() | {"class": "Nat"}, NET, "net.py has no class 'Nat'; it has Net"),
        (own_model(), "import nothing_like_it", "net.py can't be run: ModuleNotFoundError: No module named 'nothing_like_it'"),
    ],
)
def test_a_file_that_is_no_model_is_named(net, model, text, message):
    net.write_text(text)
    with pytest.raises(MerbaError, match=message):
        check_model(model, 3)


@pytest.mark.parametrize("model", [{"width": 2}, {"file": "net.py"}, own_model(name="merba_nano")])
def test_a_model_is_a_name_or_a_class_of_a_file(model):
    experiment = {"method": "Mine", "model": model}
    with pytest.raises(MerbaError, match="experiments.mine.model: give either `name`, a registered model, or `file` and `class`"):
        complete({"data": "own", "datasets": {"a": {"adapter": "clips"}}, "experiments": {"mine": experiment}})


def test_a_class_of_a_file_inherits_no_argument_of_a_registered_model():
    experiments = {"mine": {"inherit": "merba", "model": own_model()}}
    config = complete({"data": "3db", "datasets": {"samm": {"adapter": "samm"}}, "experiments": experiments})
    assert config["experiments"]["mine"]["model"] == own_model()


def test_a_checkpoint_never_runs_a_file_by_itself(net):
    weights = create_model(None, 3, **own_model()).state_dict()
    made = replace(checkpoint(Member(weights, [0.0, 0.0], [1.0, 1.0])), model=own_model() | {"file": str(net)})
    save_checkpoint(net.parent / "model.safetensors", made)
    assert made.description["model"] == own_model()  # without the folder
    (net.parent / "ran.txt").unlink()
    forget()
    with pytest.raises(
        MerbaError, match="its model is the class Net in the file net.py, but a checkpoint never runs a file by itself"
    ):
        load_checkpoint(net.parent / "model.safetensors")
    assert not (net.parent / "ran.txt").exists()
    loaded = load_checkpoint(net.parent / "model.safetensors", net)
    assert (net.parent / "ran.txt").exists()
    x = torch.randn(2, 2, 4, 4)
    assert torch.equal(loaded.build(loaded.members[0])(x), made.build(made.members[0])(x))


def test_models_of_a_package_have_names(package):
    assert list_models() == [*MODELS, "other_net", "other_wide", "other_broken"]
    assert create_model("other_net", 2).linear.out_features == 2
    assert create_model("other_wide", 2).linear.out_features == 6
    with pytest.raises(MerbaError, match=r"merba.models: other_broken \(other_net.inner:Net\) can't be imported: RuntimeError"):
        create_model("other_broken", 2)


def test_a_changed_file_of_a_package_changes_its_own_models_digest_and_is_not_imported_for_that(package):
    before = {name: code_digest("merba.jobs.fold", [name]) for name in ("other_net", "other_broken", "merba_nano")}
    (package / "other_models.py").write_text(NET + "\nCHANGED = 1\n")
    after = {name: code_digest("merba.jobs.fold", [name]) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"other_net"}
    assert "other_models" not in sys.modules


def test_a_dataset_of_a_package_is_an_adapter_with_its_settings(package):
    sheet = load_dataset("mine", {"adapter": "other", "root": "videos", "emotion": "glee"})
    assert sheet["emotion"].tolist() == ["glee"]
    with pytest.raises(MerbaError, match="unknown key 'emotoin' .did you mean 'emotion'"):
        load_dataset("mine", {"adapter": "other", "root": "videos", "emotoin": "glee"})
    with pytest.raises(MerbaError, match="adapter 'othr' is unknown .did you mean 'other'"):
        load_dataset("mine", {"adapter": "othr", "root": "videos"})


def test_a_plan_with_a_file_needs_no_pytorch_and_names_it(net):
    config = yaml.safe_load(MICRO.read_text())
    config["experiments"] = {"mine": {"inherit": "merba", "method": "Mine", "model": own_model()}}
    plan = Plan(config)
    assert plan.model_files(["mine"]) == ["net.py"]
    assert plan.models() == [(None, own_model(), 3)]
    assert plan.fold_hours("mine") is None
    assert not (net.parent / "ran.txt").exists()


@pytest.mark.long
def test_the_workflow_trains_a_class_of_a_file_and_again_when_it_changes(net):
    samm = {"samm": {"adapter": "samm", "root": "results/demo/samm"}}
    mine = {
        "mine": {
            "method": "Mine",
            "stopping": "none",
            "model": own_model(),
            "training": {"epochs": 2, "warmup": 1, "cooldown": 1},
        }
    }
    config = configured(net.parent, datasets=samm, experiments=mine)
    snakemake(net.parent, "results/table_1_architecture.csv", "experiment_mine", config=config)
    record = json.loads((net.parent / "results/folds/mine/samm/006/run.json").read_text())
    assert "net.py" in record["inputs"]
    table = pd.read_csv(net.parent / "results/table_1_architecture.csv")
    assert "Net" in set(table["model"])
    net.write_text(NET.replace("linear", "layer"))
    output = snakemake(net.parent, "-n", "experiment_mine", config=config)
    assert planned(output)["fold"] == 2
