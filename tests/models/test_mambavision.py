"""MambaVision: official names and shapes, and the arithmetic of its parts in plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from merba import create_model
from merba.models.mambavision import Level, MambaVisionMixer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mambavision_tiny", 31.8),
        ("mambavision_tiny2", 35.1),
        ("mambavision_small", 50.1),
        ("mambavision_base", 97.7),
        ("mambavision_large", 227.96),
        ("mambavision_large2", 241.55),
        ("mambavision_large3", 739.6),
    ],
)
def test_parameter_counts_are_the_published_ones(name, millions):
    with torch.device("meta"):
        model = create_model(name, 1000)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_names_and_shapes_are_those_of_the_published_base_checkpoint():
    with torch.device("meta"):
        state = create_model("mambavision_base", 1000).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, shape in {
        "patch_embed.conv_down.0.weight": (64, 3, 3, 3),
        "patch_embed.conv_down.1.running_mean": (64,),
        "patch_embed.conv_down.3.weight": (128, 64, 3, 3),
        "patch_embed.conv_down.4.bias": (128,),
        "levels.0.blocks.2.conv1.bias": (128,),
        "levels.0.blocks.2.norm2.num_batches_tracked": (),
        "levels.1.downsample.reduction.0.weight": (512, 256, 3, 3),
        "levels.2.blocks.4.norm1.weight": (512,),
        "levels.2.blocks.4.mixer.in_proj.weight": (512, 512),
        "levels.2.blocks.4.mixer.conv1d_x.weight": (256, 1, 3),
        "levels.2.blocks.4.mixer.conv1d_z.weight": (256, 1, 3),
        "levels.2.blocks.4.mixer.x_proj.weight": (48, 256),
        "levels.2.blocks.4.mixer.dt_proj.weight": (256, 32),
        "levels.2.blocks.4.mixer.dt_proj.bias": (256,),
        "levels.2.blocks.4.mixer.A_log": (256, 8),
        "levels.2.blocks.4.mixer.D": (256,),
        "levels.2.blocks.4.mixer.out_proj.weight": (512, 512),
        "levels.2.blocks.5.mixer.qkv.weight": (1536, 512),
        "levels.2.blocks.5.mixer.qkv.bias": (1536,),
        "levels.2.blocks.5.mixer.proj.weight": (512, 512),
        "levels.3.blocks.2.mixer.A_log": (512, 8),
        "levels.3.blocks.3.mixer.qkv.bias": (3072,),
        "levels.3.blocks.4.mlp.fc1.weight": (4096, 1024),
        "levels.3.blocks.4.mlp.fc2.bias": (1024,),
        "levels.3.blocks.4.gamma_1": (1024,),
        "levels.3.blocks.4.gamma_2": (1024,),
        "norm.running_var": (1024,),
        "head.weight": (1000, 1024),
    }.items():
        assert shapes.get(name) == shape, name
    assert len(shapes) == 356


def test_mixer_equals_its_formulas_step_by_step():
    mixer = MambaVisionMixer(16, state=4)
    torch.nn.init.normal_(mixer.dt_proj.bias)
    tokens = torch.randn(2, 6, 16)
    x, z = mixer.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)
    x = F.silu(F.conv1d(x, mixer.conv1d_x.weight, padding=1, groups=8)).transpose(1, 2)
    z = F.silu(F.conv1d(z, mixer.conv1d_z.weight, padding=1, groups=8)).transpose(1, 2)
    dt, b, c = mixer.x_proj(x).split([1, 4, 4], dim=-1)
    dt = F.softplus(F.linear(dt, mixer.dt_proj.weight) + 2 * mixer.dt_proj.bias)  # twice, as official
    h, y = torch.zeros(2, 8, 4), []
    for t in range(6):
        h = torch.exp(-mixer.A_log.exp() * dt[:, t, :, None]) * h + (dt * x)[:, t, :, None] * b[:, t, None]
        y.append((h * c[:, t, None]).sum(-1) + mixer.D * x[:, t])
    expected = mixer.out_proj(torch.cat([torch.stack(y, 1), z], -1))
    torch.testing.assert_close(mixer(tokens, None), expected, atol=1e-6, rtol=1e-4)


def test_windows_are_cut_in_raster_order_from_the_zero_padded_map_and_put_back():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, tokens, where):
            seen.append(tokens)
            return tokens + 1

    x = torch.randn(2, 3, 3, 5)
    y = Level(3, [Spy()], window=2, downsample=False)(x)
    torch.testing.assert_close(y, x + 1)
    padded = F.pad(x, (0, 1, 0, 1))
    windows = [padded[b, :, top : top + 2, left : left + 2].flatten(1).T for b in (0, 1) for top in (0, 2) for left in (0, 2, 4)]
    assert torch.equal(seen[0], torch.stack(windows))


def test_model_runs_forward_and_backward():
    model = create_model("mambavision_tiny", 3, in_channels=2, image_size=56, dim=16, stem_dim=4, depths=(1, 1, 2, 2))
    model(torch.randn(2, *model.input_shape)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_stems_stride_changes_the_map_and_no_weight(stride):
    with torch.device("meta"):
        official = create_model("mambavision_tiny", 3).state_dict()
        model = create_model("mambavision_tiny", 3, image_size=64, stem_stride=stride)
    assert {name: t.shape for name, t in model.state_dict().items()} == {name: t.shape for name, t in official.items()}
    assert model.patch_embed.to_empty(device="cpu")(torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // stride, 64 // stride)


@pytest.mark.parametrize(("image_size", "windows"), [(56, (14, 7)), (28, (7, 4))])
def test_nano_has_merba_nanos_blocks_and_a_window_for_each_late_level(image_size, windows):
    model = create_model("mambavision_nano", 3, image_size=image_size, windows=windows, in_channels=2)
    merba = create_model("merba_nano", 3)
    assert [len(level.blocks) for level in model.levels[1:]] == [len(getattr(merba, f"stage{s}").blocks) for s in (2, 3, 4)]
    maps = []
    for level in model.levels[2:]:
        level.register_forward_pre_hook(lambda _, args: maps.append(tuple(args[0].shape[2:])))
    model(torch.randn(1, *model.input_shape))
    assert maps == [(side, side) for side in windows]


def test_heads_that_do_not_divide_say_what_would():
    with pytest.raises(ValueError, match="it must be a divisor of 512"):
        create_model("mambavision_base", 3, heads=(7, 16))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"depths": (3, 3, 10)}, "depths is .*; it must be 4 whole numbers"),
        ({"heads": (2, 4, 8, 16)}, "heads is .*; it must be 2 whole numbers"),
        ({"windows": (14, 0)}, "windows is .* at least 1"),
        ({"stem_stride": 3}, "stem_stride is 3; it must be 1, 2 or 4"),
        ({"image_size": 0}, "image_size is 0; it must be a whole number of at least 1"),
        ({"drop_path": 1.5, "dim": 16, "stem_dim": 8}, "drop_path is"),
    ],
)
def test_other_arguments_that_do_not_fit_say_what_would(override, says):
    with pytest.raises(ValueError, match=says):
        create_model("mambavision_base", 3, **override)
