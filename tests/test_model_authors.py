"""The other models against their authors' own code and weight files.

Neither may be shipped here. Clones are read from the folder authors/ of MERBA_TEST_DATA, where there are any:
NVlabs/MambaVision, wangzhifengharrison/HTNet and christy1206/STSTNet.
"""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from shared_data import shared_data
from test_scan_mamba import load_interface
from torch import nn

from merba import create_model


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def load(name: str, path) -> ModuleType:
    """A file as a module of that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same_network(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Their weights load strictly, and outputs and all gradients are equal."""
    with torch.no_grad():  # no layer may hide behind a start of 0, 1 or 1e-5
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    outputs, gradients = [], []
    for model in (ours.eval(), theirs.eval()):
        outputs.append(model(x))
        outputs[-1].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4 * outputs[1].abs().max().item())
    for name, expected in gradients[1].items():
        error = (gradients[0][name] - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error < 1e-3, f"{name}: {error:.1e}"


class Mlp(nn.Module):
    """timm's, which MambaVision's file imports."""

    def __init__(self, in_features, hidden_features, act_layer, drop):
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(in_features, hidden_features),
            act_layer(),
            nn.Linear(hidden_features, in_features),
        )

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def test_mambavision_is_the_official_network(monkeypatch):
    path = shared_data("authors/MambaVision/mambavision/models/mamba_vision.py")
    interface = load_interface(monkeypatch)
    interface.selective_scan_fn = interface.selective_scan_ref
    same = lambda function: function  # noqa: E731
    packages = {
        "timm": {}, "timm.models": {}, "official": {},
        "timm.models.registry": {"register_model": same},
        "timm.models.layers": {"trunc_normal_": nn.init.trunc_normal_, "DropPath": nn.Identity, "LayerNorm2d": nn.LayerNorm},
        "timm.models._builder": {"resolve_pretrained_cfg": same, "_update_default_kwargs": same},
        "timm.models.vision_transformer": {"Mlp": Mlp, "PatchEmbed": nn.Identity},
        "official.registry": {"register_pip_model": same},
    }  # fmt: skip
    for name, content in packages.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    official = load("official.mamba_vision", path)
    theirs = official.MambaVision(
        dim=16, in_dim=8, depths=[1, 1, 3, 2], window_size=[8, 8, 14, 7], mlp_ratio=4, num_heads=[2, 4, 8, 16],
        num_classes=5, layer_scale=1e-5, drop_path_rate=0.0,
    )  # fmt: skip
    ours = create_model("mambavision_base", 5, dim=16, stem_dim=8, depths=(1, 1, 3, 2), image_size=96)
    assert_same_network(ours, theirs, torch.randn(2, 3, 96, 96))  # maps of 6 and 3, filled up to windows of 14 and 7


def test_htnet_is_its_authors_network():
    pytest.importorskip("einops", reason="einops, which the authors' code needs, is not installed")
    module = load("htnet_model", shared_data("authors/HTNet/Model.py"))
    sizes = {"image_size": 28, "patch_size": 7, "heads": 3, "num_hierarchies": 3, "block_repeats": (2, 2, 10), "num_classes": 3}
    with torch.device("meta"):  # at their sizes: names and shapes
        theirs, ours = module.HTNet(**sizes, dim=256).state_dict(), create_model("htnet", 3).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}
    ours, theirs = create_model("htnet", 3, dim=32).double(), module.HTNet(**sizes, dim=32).double()
    assert_same_network(ours, theirs, torch.randn(2, 3, 28, 28).double())


def test_ststnets_published_weights_load_strictly():
    files = sorted(shared_data("authors/STSTNet/STSTNet_Weights").glob("*.pth"))
    assert len(files) == 68
    for file in files:
        model = create_model("ststnet", 3)
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=True)
        assert model.eval()(torch.randint(256, (2, 3, 28, 28)).float()).isfinite().all()
