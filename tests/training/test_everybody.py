"""`merba fit`: one model trained on all clips of flow images, its card, and what is refused."""

import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml

from merba.cli import main
from merba.config import complete, load_config
from merba.datasets import read_sheet
from merba.errors import MerbaError
from merba.models import create_model
from merba.preprocessing.packs import RELEASED
from merba.training.checkpoint import load_checkpoint
from merba.training.everybody import train_on_images

EXPERIMENTS = {
    "kernel": {"method": "Kernel", "stopping": "none", "model": {"name": "kernel"}},
    "ststnet": {"method": "STSTNet", "stopping": "none", "model": {"name": "ststnet"}, "training": {"epochs": 2}},
}


@pytest.fixture
def config(releases, tmp_path):
    """The path of a configuration of the tiny release: 18 images."""
    datasets = {"public_flow": {"adapter": "flow_images", "root": str(releases["flow_images"])}}
    path = tmp_path / "images.yaml"
    path.write_text(yaml.safe_dump({"data": "public_flow", "datasets": datasets, "experiments": EXPERIMENTS}))
    return path


def test_the_model_is_fitted_to_every_image_and_says_how_they_are_made(config, tmp_path, capsys):
    (tmp_path / "folds.csv").write_text("subject,dataset,true,predicted\n1,samm,a,a\n2,samm,b,a\n1,casme2,b,b\n2,casme2,a,a\n")
    out = tmp_path / "models" / "public_flow.safetensors"
    arguments = ["--experiment", "kernel", "--error", str(tmp_path / "folds.csv"), "--out", str(out)]
    assert main(["fit", "--config", str(config), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "kernel, trained on 18 real micro-expressions (public flow); leave-one-subject-out UF1 / UAR: all 0.733" in printed
    assert "It contains the flow of its training clips" in printed
    made = load_checkpoint(out)
    assert (made.image, made.form.channels, made.flow["channels"]) == (RELEASED, ("u", "v", "strain"), ["u", "v"])
    assert made.clips == {"casme2": 6, "samm": 6, "smic_hs": 6}
    assert made.error["casme2"] == {"n": 2, "subjects": 2, "uf1": 1, "uar": 1}
    card = out.with_suffix(".md").read_text()
    for words in (
        "18 real micro-expressions",
        "28×28 px",
        "| samm | 2 | 2 | 0.333 | 0.500 |",
        "contains the flow of its training clips",
    ):
        assert words in card
    # The same as the method used directly.
    sheet = read_sheet(load_config(config)).sort_values("dataset", kind="stable")
    x = torch.from_numpy(np.stack([cv2.imread(source)[:, :, ::-1].transpose(2, 0, 1) for source in sheet["source"]])).float()
    labels = torch.tensor([made.classes.index(label) for label in sheet["label"]])
    model = create_model("kernel", 3).eval()
    model.fit(model.features(x), labels, torch.arange(18))
    assert torch.allclose(made.build(made.members[0])(x), model(x), atol=1e-4)


def test_a_network_is_trained_to_its_last_epoch_and_a_root_replaces_the_configurations(config, tmp_path, releases, capsys):
    text = config.read_text().replace(str(releases["flow_images"]), "/absent")
    config.write_text(text)
    out = tmp_path / "ststnet.safetensors"
    arguments = ["fit", "--config", str(config), "--experiment", "ststnet", "--out", str(out)]
    assert main([*arguments, "--root", str(releases["flow_images"])]) == 0
    made = load_checkpoint(out)
    assert (made.protocol, made.members[0].left_out, made.error) == ("everybody", None, None)
    assert "Not known" in out.with_suffix(".md").read_text()


def changed(config, **changes):
    return complete(yaml.safe_load(config.read_text()) | changes)


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "merba", "has no experiment 'merba'; it has kernel, ststnet"),
        (
            {"datasets": {"samm": {"adapter": "samm", "root": "/x"}}},
            "kernel",
            "datasets.samm: adapter samm reads frames, but `merba fit` needs flow images; run the",
        ),
        (
            {"experiments": {"e": {"method": "E", "model": {"name": "ststnet"}, "stopping": "validation"}}},
            "e",
            "experiment e chooses its epoch on held-out subjects: train its folds",
        ),
    ],
)
def test_what_can_not_be_trained_on_everybody_is_refused(config, changes, name, message):
    with pytest.raises(MerbaError, match=message):
        train_on_images(changed(config, **changes), name)


def test_images_without_a_root_are_cloned(config, releases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def clone(repository, commit, target):
        asked.append((repository, commit))
        target.parent.mkdir(parents=True)
        target.symlink_to(releases["flow_images"])

    monkeypatch.setattr("merba.datasets.flow_images.clone", clone)
    datasets = {"public_flow": {"adapter": "flow_images", "repository": "https://example.org/r", "commit": "c0"}}
    for _ in range(2):
        made = train_on_images(changed(config, datasets=datasets), "kernel")
    assert asked == [("https://example.org/r", "c0")]
    assert sum(made.clips.values()) == 18


def test_an_image_that_two_subjects_share_is_refused_with_both_named(config, copied):
    images = sorted((copied("flow_images") / "STSNet_whole_norm_u_v_os").iterdir())
    first, *_, last = images
    shutil.copy(first, last)
    datasets = {"public_flow": {"adapter": "flow_images", "root": str(first.parents[1])}}
    with pytest.raises(MerbaError, match=r"exactly the same flow.*\n  casme2 sub02 EP02_03f and samm 006 006_1_1"):
        train_on_images(changed(config, datasets=datasets), "kernel")


def test_another_suffix_is_refused(config, capsys):
    assert main(["fit", "--config", str(config), "--experiment", "kernel", "--out", "model.pth"]) == 1
    assert "does not end in .safetensors" in capsys.readouterr().err
