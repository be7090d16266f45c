"""SLSTT: its encoder against a plain loop, cached against uncached tokens, what is frozen, and the images of flow."""

import math

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from vit_files import vit_state, write_vit

from merba import create_model
from merba.errors import MerbaError
from merba.models import check_experiment
from merba.models.slstt import MEAN, STD, flow_images, frozen_encoder
from merba.models.summary import architecture
from merba.models.vit import vit_of

SMALL = {"length": 3, "flow_size": 24, "image_size": 32, "width": 128, "depth": 2, "heads": 2, "hidden": 16}


@pytest.fixture
def file(tmp_path):
    write_vit(tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def plain_vit(state, image):
    """The tokens (L, width) of an image (3, H, W), patch by patch, head by head and token by token, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in state.items()}
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    kernel = state["patch_embed.proj.weight"].reshape(width, -1)
    tokens = [state["cls_token"][0, 0]]
    for y in range(0, image.shape[1], patch):
        for x in range(0, image.shape[2], patch):
            tokens.append(kernel @ image[:, y : y + patch, x : x + patch].ravel() + state["patch_embed.proj.bias"])
    tokens = np.stack(tokens) + state["pos_embed"][0]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in range(2):
        name = f"blocks.{block}"
        q, k, v = np.split(linear(norm(tokens, f"{name}.norm1"), f"{name}.attn.qkv"), 3, axis=1)
        mixed = np.zeros_like(q)
        for head in range(width // 64):
            part = slice(64 * head, 64 * (head + 1))
            for token in range(len(tokens)):
                weights = np.exp(k[:, part] @ q[token, part] / 8)
                mixed[token, part] = weights @ v[:, part] / weights.sum()
        tokens = tokens + linear(mixed, f"{name}.attn.proj")
        hidden = linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1")
        gelu = hidden / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + linear(gelu, f"{name}.mlp.fc2")
    return tokens


def test_the_encoder_of_a_file_with_timms_names_is_the_plain_loop(file):
    encoder, image = vit_of(file), np.random.default_rng(0).normal(0, 1, (3, 32, 32))
    with torch.no_grad():
        tokens = encoder(torch.from_numpy(image).float()[None])[0]
    assert tokens.numpy() == pytest.approx(plain_vit(vit_state(), image), abs=1e-4)
    named = set(encoder.state_dict()) | {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert named == set(vit_state())


def test_cached_tokens_give_what_the_whole_network_gives(file):
    torch.manual_seed(0)
    whole = create_model("slstt", 3, encoder="frozen", pretrained=file, **SMALL)
    cached = create_model("slstt", 3, pretrained=file, **SMALL)
    cached.load_state_dict({name: t for name, t in whole.state_dict().items() if not name.startswith("encoder.")})
    flow = torch.randn(2, *whole.input_shape)
    tokens = torch.from_numpy(np.stack([frozen_encoder(file, torch.device("cpu"))(clip.numpy()) for clip in flow]))
    assert tokens.shape[1:] == cached.input_shape
    for mode in (True, False):  # neither has dropout apart from the encoder's, which is off
        expected, found = (model.train(mode)(x).detach() for model, x in ((whole, flow), (cached, tokens)))
        assert found == pytest.approx(expected, abs=1e-6)
        assert whole.tokens(flow) == pytest.approx(tokens, abs=1e-5)
    assert tokens.std((0, 1)).mean() > 1e-3


def test_a_frozen_encoder_gets_no_gradient_and_a_trained_one_does(file):
    for encoder, trained in (("frozen", False), ("train", True)):
        model = create_model("slstt", 3, encoder=encoder, pretrained=file, **SMALL).train()
        model(torch.randn(2, *model.input_shape)).square().sum().backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        of_encoder = {name: grad for name, grad in grads.items() if name.startswith("encoder.")}
        assert all((grad is not None) == trained for grad in of_encoder.values())
        assert all(grad is not None for name, grad in grads.items() if name not in of_encoder)
        assert len(of_encoder) == 4 + 2 * 12


def test_the_last_norm_starts_as_the_files(file):
    model = create_model("slstt", 3, pretrained=file, **SMALL)
    assert torch.equal(model.norm.weight, vit_state()["norm.weight"])
    assert torch.equal(model.norm.bias, vit_state()["norm.bias"])


def test_the_files_numbers_are_single_precision_whatever_it_has(tmp_path):
    save_file({name: tensor.half() for name, tensor in vit_state().items()}, tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in vit_of(tmp_path / "half.safetensors").parameters()} == {torch.float32}


def test_parameters_and_costs_are_those_that_were_counted_beforehand():
    model = create_model("slstt", 3)
    assert model.input_shape == (11, 768)
    table = architecture(model, model.input_shape).set_index("block")
    encoder = table.loc["encoder", "parameters"] + table.loc["norm", "parameters"]
    assert encoder == pytest.approx(86.09e6, abs=5e3)
    assert sum(p.numel() for p in model.aggregator.lstm.parameters()) == pytest.approx(6.83e6, abs=5e3)
    assert table.loc["total", "parameters"] == pytest.approx(93.1e6, abs=5e4)
    assert table.loc["total", "flops"] == pytest.approx(11 * 55.5e9, rel=0.002)
    assert table.loc["aggregator", "flops"] == pytest.approx(75e6, rel=0.02)
    small = architecture(create_model("slstt_small", 3), (11, 2, 112, 112)).set_index("block")
    assert small.loc["encoder", "parameters"] == pytest.approx(2.8e6, rel=0.02)
    assert small.loc["total", "flops"] == pytest.approx(1.6e9, rel=0.02)


def test_the_mean_aggregator_averages_the_frames_logits():
    model = create_model("slstt", 3, aggregator="mean", **SMALL).requires_grad_(False)
    tokens = torch.randn(2, 3, 128)
    each = [model.aggregator.fc(model.norm(tokens[:, frame])) for frame in range(3)]
    assert model(tokens) == pytest.approx(torch.stack(each).mean(0), abs=1e-6)


def seen(flow):
    """The images of flow without ImageNet's normalisation, 0..1."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return flow_images(flow, flow.shape[-1]) * std + mean


@pytest.mark.parametrize(
    ("motion", "colour"),
    [((1, 0), (1, 0, 0)), ((0, 1), (0.5, 1, 0)), ((-1, 0), (0, 1, 1)), ((0, -1), (0.5, 0, 1))],
    ids=["right", "down", "left", "up"],
)
def test_a_direction_is_a_hue(motion, colour):
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, :, 1, 2] = 0.3 * torch.tensor(motion)
    image = seen(flow)[0]
    assert image[:, 1, 2].tolist() == pytest.approx(colour, abs=1e-5)
    image[:, 1, 2] = 0
    assert image.abs().max() < 1e-5


def test_images_are_those_of_opencv_up_to_its_rounding():
    flow = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    length, angle = cv2.cartToPolar(*flow[0].numpy())
    value = cv2.normalize(length, None, 0, 1, cv2.NORM_MINMAX)
    hsv = np.stack([np.degrees(angle), np.ones_like(angle), value], -1).astype(np.float32)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).transpose(2, 0, 1)
    assert seen(flow)[0].numpy() == pytest.approx(expected, abs=0.003)  # its angles are exact to 0.3°


def test_images_are_scaled_frame_by_frame_and_no_motion_is_black():
    flow = torch.randn(2, 2, 8, 8)
    flow[1] = flow[0] * 7
    assert seen(flow)[1] == pytest.approx(seen(flow)[0], abs=1e-5)
    assert seen(torch.zeros(1, 2, 8, 8)).abs().max() < 1e-6


def test_a_frozen_encoder_without_weights_is_refused():
    experiment = {"model": {"name": "slstt"}, "stopping": "validation", "view": {}}
    with pytest.raises(MerbaError, match="slstt has an encoder that is not trained: name its weights.*in its view if"):
        check_experiment(experiment, 3)
    check_experiment(experiment | {"model": {"name": "slstt_small"}}, 3)


def test_other_files_are_refused(file, tmp_path):
    with pytest.raises(MerbaError, match="holds a ViT that doesn't fit the model"):
        create_model("slstt", 3, encoder="train", pretrained=file, **SMALL | {"depth": 3})
    with pytest.raises(MerbaError, match="holds a ViT that doesn't fit the model"):
        create_model("slstt", 3, pretrained=file, **SMALL | {"width": 64})
    state = vit_state()
    del state["blocks.1.mlp.fc2.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(MerbaError, match="blocks.1.mlp.fc2.bias"):
        vit_of(tmp_path / "cut.safetensors")
    save_file({"stem.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(MerbaError, match="holds no ViT with timm's names"):
        vit_of(tmp_path / "other.safetensors")
    write_vit(tmp_path / "huge.safetensors", width=1280, depth=1)  # ViT-H's heads are 80 wide
    with pytest.raises(MerbaError, match="a ViT of width 1280; use one of at most 1024"):
        vit_of(tmp_path / "huge.safetensors")
    with pytest.raises(MerbaError, match="can't be read as a .safetensors file"):
        vit_of(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "no"}, "encoder is 'no'"),
        ({"aggregator": "gru"}, "'lstm' or 'mean'"),
        ({"heads": 5, "encoder": "train"}, "heads"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("slstt", 3, **SMALL | arguments)
