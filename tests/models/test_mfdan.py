"""MFDAN: its sizes, attention driven by flow against a plain loop, DropKey, and weights with timm's names."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from vit_files import vit_state, write_vit

from merba import create_model
from merba.errors import MerbaError
from merba.models import mfdan
from merba.models.heads import focal_loss
from merba.models.mfdan import attention_mask
from merba.models.summary import architecture
from merba.models.vit import Attention, vit_of

SMALL = {"image_size": 32, "width": 128, "depth": 8, "heads": 2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def driven(**sizes):
    """A small model in evaluation mode whose attention follows the flow."""
    model = create_model("mfdan", 3, **SMALL | sizes).eval()
    for bias in model.biases:
        nn.init.normal_(bias.weight)
    return model


def test_parameters_and_costs_are_those_that_were_counted_beforehand():
    model = create_model("mfdan", 3)
    table = architecture(model, model.input_shape).set_index("block")
    assert model.input_shape == (1, 3, 224, 224)
    assert table.loc["vit", "parameters"] == pytest.approx(21.5e6, rel=0.005)
    assert table.loc["vit", "flops"] == pytest.approx(4.6e9, rel=0.01)
    flow = table[table.index.str.match("flow|biases")].sum()
    assert flow["parameters"] == pytest.approx(1.6e6, rel=0.04)
    assert flow["flops"] == pytest.approx(0.36e9, rel=0.02)
    small = create_model("mfdan_small", 3)
    total = architecture(small, small.input_shape).iloc[-1]
    assert small.input_shape == (1, 3, 112, 112)
    assert total["parameters"] == pytest.approx(1.0e6, rel=0.01)
    assert total["flops"] == pytest.approx(0.05e9, rel=0.1)


def plain_attention(attention, tokens, bias, dropped):
    """Attention of tokens (L, width), head by head and query by query, over the keys that are not dropped (heads, L, L - 1)."""
    weight, add = attention.qkv.weight.numpy(), attention.qkv.bias.numpy()
    q, k, v = np.split(tokens @ weight.T + add, 3, axis=1)
    depth = tokens.shape[1] // attention.heads
    mixed = np.zeros_like(tokens)
    for head in range(attention.heads):
        part = slice(depth * head, depth * (head + 1))
        for query in range(len(tokens)):
            weights = np.zeros(len(tokens))
            for key in range(len(tokens)):
                prior = bias[head, key - 1] if key else 0.0
                if key == 0 or not dropped[head, query, key - 1]:
                    weights[key] = math.exp(q[query, part] @ k[key, part] / math.sqrt(depth) + prior)
            mixed[query, part] = weights @ v[:, part] / weights.sum()
    return mixed @ attention.proj.weight.numpy().T + attention.proj.bias.numpy()


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_attention_driven_by_flow_is_the_plain_loop(drop):
    attention = Attention(12, 3).double().requires_grad_(False)
    tokens, bias = torch.randn(2, 6, 12).double(), torch.randn(2, 3, 5).double()
    mask = attention_mask(bias, drop)
    dropped = mask.isinf().expand(-1, -1, 6, -1)[..., 1:].numpy()
    assert dropped.any() == (drop > 0)
    found = attention(tokens, mask)
    for clip in range(2):
        expected = plain_attention(attention, tokens[clip].numpy(), bias[clip].numpy(), dropped[clip])
        assert found[clip].numpy() == pytest.approx(expected, abs=1e-12)
    if not drop:
        assert attention(tokens, attention_mask(torch.zeros_like(bias), 0.0)).numpy() == pytest.approx(attention(tokens).numpy())


def test_the_flow_learns_through_attention():
    attention, tokens = Attention(8, 2).double().requires_grad_(False), torch.randn(1, 4, 8).double()

    def attended(bias):
        torch.manual_seed(3)  # the same keys are dropped
        return attention(tokens, attention_mask(bias, 0.3))

    assert torch.autograd.gradcheck(attended, torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True))


def test_each_query_of_each_head_drops_keys_of_its_own_and_never_the_class_token():
    bias = torch.randn(4, 3, 49)
    mask = attention_mask(bias, 0.3)
    assert mask.shape == (4, 3, 50, 50)
    dropped = mask.isinf()
    assert not dropped[..., 0].any() and (mask[..., 0] == 0).all()
    assert dropped[..., 1:].float().mean().item() == pytest.approx(0.3, abs=0.01)
    kept = torch.where(dropped[..., 1:], bias[:, :, None], mask[..., 1:])
    assert torch.equal(kept, bias[:, :, None].expand_as(kept))
    for other in (dropped.roll(1, 0), dropped.roll(1, 1), dropped.roll(1, 2)):  # clips, heads, queries
        both = (dropped & other)[..., 1:].float().mean().item()
        assert both == pytest.approx(0.09, abs=0.01)
    nearly_all = Attention(12, 3)(torch.randn(4, 50, 12), attention_mask(bias, 0.999))
    assert nearly_all.isfinite().all()


def masks_of(model, x, monkeypatch):
    """What `attention_mask` is called with, block by block."""
    calls = []
    monkeypatch.setattr(mfdan, "attention_mask", lambda bias, drop: calls.append((bias, drop)) or attention_mask(bias, drop))
    model(x)
    return calls


def test_a_levels_blocks_share_its_bias_and_each_level_has_a_map_of_its_own(monkeypatch):
    model = driven().requires_grad_(False)
    x = torch.randn(2, *model.input_shape)
    calls = masks_of(model, x, monkeypatch)
    feature = model.flow.stem(x[:, 0, 1:])
    assert feature.shape == (2, 64, 2, 2)
    for level in range(4):
        feature = model.flow.levels[level](feature)
        expected = torch.einsum("bchw,kc->bkhw", feature, model.biases[level].weight[:, :, 0, 0]).flatten(2)
        for block in (2 * level, 2 * level + 1):
            torch.testing.assert_close(calls[block][0], expected)
    token = model.norm(model.vit(x[:, 0, :1], [attention_mask(*call) for call in calls])[:, 0])
    joined = torch.cat([token, feature.mean((2, 3))], 1)
    torch.testing.assert_close(model(x), joined @ model.head.weight.T + model.head.bias)


def test_fewer_keys_are_dropped_in_later_blocks_and_none_when_it_predicts(monkeypatch):
    model = driven()
    x = torch.randn(2, *model.input_shape)
    assert {drop for _, drop in masks_of(model, x, monkeypatch)} == {0.0}
    assert torch.equal(model(x), model(x))
    drops = [drop for _, drop in masks_of(model.train(), x, monkeypatch)]
    assert drops == pytest.approx(np.linspace(0.3, 0, 8))
    assert not torch.equal(model(x), model(x))
    without = driven(drop_key=0.0).train()
    assert torch.equal(without(x), without(x))


def test_attention_ignores_the_flow_at_first_and_follows_it_later():
    for model, follows in ((create_model("mfdan", 3, **SMALL).eval(), False), (driven(), True)):
        x = torch.randn(2, *model.input_shape)
        model.head.weight.data[:, 128:] = 0  # the flow's own features
        with torch.no_grad():
            before = model(x)
            x[:, :, 1:] = torch.randn_like(x[:, :, 1:])
            assert torch.equal(model(x), before) != follows


def test_with_weights_of_a_file_it_is_that_vit_on_grey_images_until_the_flow_drives_it(tmp_path):
    state = write_vit(tmp_path / "vit.safetensors", depth=8)
    model = create_model("mfdan", 3, pretrained=tmp_path / "vit.safetensors", **SMALL).eval().requires_grad_(False)
    x = torch.randn(2, *model.input_shape)
    colours = x[:, 0, :1].expand(-1, 3, -1, -1)
    class_token = vit_of(tmp_path / "vit.safetensors")(colours)[:, 0]
    expected = F.layer_norm(class_token, (128,), state["norm.weight"], state["norm.bias"], 1e-6)
    model.head = nn.Identity()
    assert model(x)[:, :128].numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert {*model.vit.state_dict(), "norm.weight", "norm.bias", "head.weight", "head.bias"} == set(state)


def test_other_files_are_refused(tmp_path):
    write_vit(tmp_path / "deeper.safetensors", depth=12)
    with pytest.raises(MerbaError, match="holds a ViT that doesn't fit the model"):
        create_model("mfdan", 3, pretrained=tmp_path / "deeper.safetensors", **SMALL)
    state = vit_state(depth=8)
    del state["norm.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(MerbaError, match="norm.bias"):
        create_model("mfdan", 3, pretrained=tmp_path / "cut.safetensors", **SMALL)


def test_its_loss_is_the_focal_one():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    own = {"class_weights": torch.tensor([1.0, 2.0, 3.0]), "label_smoothing": 0.1}
    loss = create_model("mfdan", 3, **SMALL, gamma=1.5).loss(logits, labels, progress=0.2, convex=False, **own)
    assert torch.equal(loss, focal_loss(logits, labels, gamma=1.5, **own))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": 6}, "depth 6 must be a multiple of 4"),
        ({"width": 100}, "width 100 one of 16"),
        ({"image_size": 40}, "image_size 40 must be a multiple of patch 16"),
        ({"heads": 5}, "heads 5"),
        ({"drop_key": 1.0}, "drop_key is 1.0; it must be at least 0 and below 1"),
        ({"gamma": -1}, "gamma is -1; it must be a number above 0"),
    ],
)
def test_arguments_that_do_not_fit_say_what_would(arguments, says):
    with pytest.raises(ValueError, match=says):
        create_model("mfdan", 3, **SMALL | arguments)
