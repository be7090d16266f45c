"""ONNX files: PyTorch's logits for any number of clips, the file's own description, and what is refused."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoints import checkpoint, member
from workflow_runs import ROOT

from merba.cli import main
from merba.errors import MerbaError
from merba.models import create_model
from merba.training.checkpoint import Member, load_checkpoint, save_checkpoint
from merba.training.onnx_file import write_onnx

MODELS = {
    "windows": {"name": "merba_nano"},
    "public flow": {"name": "merba_nano", "image_size": 28, "stem_stride": 1, "window": 4},
    "windows at the edge": {"name": "merba_nano", "image_size": [40, 72], "mixer": "per_direction", "attention": "local"},
    "whole maps": {"name": "merba_nano", "image_size": 28, "extractor": "global", "directions": "plainmamba"},
    "layer scale": {"name": "merba_nano", "image_size": 28, "layer_scale": 0.5, "fusion": "sum"},
    "ststnet": {"name": "ststnet", "in_channels": 2},
    "htnet": {"name": "htnet", "in_channels": 2, "dim": 32},
    "mambavision": {"name": "mambavision_nano", "in_channels": 2, "image_size": 40},
}


def trained(settings):
    """A checkpoint of a model with running statistics and weights unlike the initial ones."""
    torch.manual_seed(0)
    arguments = {key: value for key, value in settings.items() if key != "name"}
    model = create_model(settings["name"], 3, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(3):
            model(1 + 2 * torch.randn(8, *model.input_shape))
    return checkpoint(Member(model.state_dict(), [0.1, -0.2], [1.5, 2.0], ("samm", "006")), model=settings)


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_logits_are_pytorchs(tmp_path, settings):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made, path = trained(settings), tmp_path / "model.onnx"
    write_onnx(path, made)
    onnx.checker.check_model(path, full_check=True)
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in onnx.load(path).graph.node}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = made.build(made.members[0])
    for clips in (1, 3):
        flow = torch.randn(clips, *made.input_shape)
        with torch.no_grad():
            expected = model(flow).numpy()
        (logits,) = session.run(["logits"], {"flow": flow.numpy()})
        assert np.abs(logits - expected).max() < 1e-4
        assert np.abs(expected).max() > 0.05


def test_the_file_says_how_its_input_is_made_and_what_is_left_to_the_caller(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    made = trained({"name": "ststnet", "in_channels": 2})
    save_checkpoint(tmp_path / "model.safetensors", made)
    assert main(["export", str(tmp_path / "model.safetensors"), "--onnx", "--out", str(tmp_path / "model.onnx")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model.onnx'}: ststnet, classes negative, positive, surprise\n"
    model = onnx.load(tmp_path / "model.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["merba"]) == json.loads(json.dumps(load_checkpoint(tmp_path / "model.safetensors").description))
    assert json.loads(about["merba"])["members"][0]["mean"] == [0.1, -0.2]
    for left_out in ("resize", "decode", "arrange", "normalise", "mirror_average", "ensemble"):
        assert left_out in about["outside"]
    (flow,), (logits,) = model.graph.input, model.graph.output
    sizes = [[size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim] for tensor in (flow, logits)]
    assert sizes == [["clips", 2, 28, 28], ["clips", 3]]


def test_the_example_of_the_documentation_predicts(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    made = trained({"name": "ststnet", "in_channels": 2})
    write_onnx(tmp_path / "model.onnx", made)
    (code,) = re.findall(
        r'^```python title="with onnxruntime"\n(.*?)^```$', (ROOT / "docs/prediction.md").read_text(), re.M | re.S
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "prediction.md", "exec"), names)
    still = torch.tensor([[[[-0.1 / 1.5]], [[0.2 / 2.0]]]]).expand(1, 2, 28, 28)
    assert names["predicted"] == made.classes[made.build(made.members[0])(still).argmax()]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (checkpoint(member(0), member(1)), "the checkpoint is an ensemble of 2 models, but an ONNX file holds one"),
        (replace(checkpoint(), model={"name": "kernel", "in_channels": 2}), "kernel can't be written as an ONNX file; these can"),
        (replace(checkpoint(), model={"file": "mine.py", "class": "Mine"}), "Mine can't be written as an ONNX file; these can"),
        (replace(checkpoint(), model={"name": "merba_nano", "head": "dgcm"}), "the head dgcm has two outputs"),
        (checkpoint(Member({"head.weight": torch.empty(2**29, device="meta")}, [0], [1])), "merba_nano has 2.1 GB of weights"),
    ],
    ids=["ensemble", "fitted", "a file's", "dgcm", "too large"],
)
def test_what_has_no_onnx_file_is_refused(tmp_path, made, said):
    with pytest.raises(MerbaError, match=said):
        write_onnx(tmp_path / "model.onnx", made)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    save_checkpoint(tmp_path / "model.safetensors", checkpoint())
    assert main(["export", str(tmp_path / "model.safetensors"), "--onnx", "--out", str(tmp_path / "model.onnx")]) == 1
    assert "the package onnx is missing; install the extra `onnx`" in capsys.readouterr().err
