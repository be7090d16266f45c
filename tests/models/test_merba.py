"""MERba: what each part may see, its results against slow independent code, and every switch."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from merba import MERba, create_model
from merba.models.dropout import DropPath
from merba.models.merba import Attention, Block, ConvBlock, LocalExtractor, Mixer, stride_for
from merba.scan import DIRECTIONS, window_paths

MERBA = ["hr", "vr", "hz", "vz"]
TINY = {"image_size": 56, "stem_dim": 4, "dim": 8, "depths": (1, 1, 1, 1), "global_blocks": 1, "heads": (1, 2, 4)}


def paths_of(directions, height, width, window):
    return torch.from_numpy(window_paths(directions, height, width, window))


def window_of_token(height, width, window):
    rows, columns = np.mgrid[:height, :width]
    return torch.from_numpy(((rows // window) * 100 + columns // window).reshape(-1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ---------------------------------------------------------------- what a block sees


@pytest.mark.parametrize(("height", "width"), [(14, 14), (10, 9)])
def test_local_extractor_depends_on_its_own_window_only(height, width):
    block = Block(16, LocalExtractor(16, 4, "shared", "mean", 8, 0.0), 4, dropout=0.0, drop_path=0.0, layer_scale=None)
    x = torch.randn(1, height * width, 16, requires_grad=True)
    y = block(x, paths_of(MERBA, height, width, 7))
    window = window_of_token(height, width, 7)
    for w in window.unique():
        (gradient,) = torch.autograd.grad(y[:, window == w].square().sum(), x, retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        assert torch.equal(reached, window == w)


def test_one_token_of_a_window_reaches_all_of_its_window():
    """A token affects all later tokens of a path, and the top-left token is first in all paths."""
    extractor = LocalExtractor(16, 4, "shared", "mean", 8, 0.0)
    x = torch.randn(1, 49, 16, requires_grad=True)
    y = extractor(x, paths_of(MERBA, 7, 7, 7))
    for token in (24, 48):
        (gradient,) = torch.autograd.grad(y[0, token].square().sum(), x, retain_graph=True)
        assert gradient[0, 0].abs().sum() > 0


def test_global_block_mixes_windows():
    block = Block(16, Attention(16, 2, 0.0), 4, dropout=0.0, drop_path=0.0, layer_scale=None)
    x = torch.randn(1, 14 * 14, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x, None)[:, 0].square().sum(), x)
    assert (gradient[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("directions", [MERBA, list(DIRECTIONS)])
def test_edge_window_equals_its_real_tokens_scanned_alone(directions):
    extractor = LocalExtractor(16, len(directions), "shared", "mean", 8, 0.0)
    image = torch.randn(2, 10, 9, 16)
    whole = extractor(image.flatten(1, 2), paths_of(directions, 10, 9, 7)).unflatten(1, (10, 9))
    for rows, columns in ((slice(7, 10), slice(0, 7)), (slice(0, 7), slice(7, 9)), (slice(7, 10), slice(7, 9))):
        part = image[:, rows, columns]
        height, width = part.shape[1:3]
        alone = extractor(part.flatten(1, 2), paths_of(directions, height, width, 7)).unflatten(1, (height, width))
        torch.testing.assert_close(whole[:, rows, columns], alone)


class CountProjections(TorchDispatchMode):
    """Multiply-accumulates of matrix products with the inner dimension `features`, by tokens and result channels."""

    def __init__(self, features):
        super().__init__()
        self.features, self.outputs = features, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "mm" in func.__name__ and args[0].shape[-1] == self.features:
            self.outputs += result.numel()
        return result


@pytest.mark.parametrize(("sets", "times"), [(1, 1), (4, 4)], ids=["shared", "per_direction"])
def test_shared_mixers_compute_the_input_projection_once(sets, times):
    mixer = Mixer(32, sets, state=8)
    with torch.no_grad(), CountProjections(32) as count:
        mixer(torch.randn(2, 49, 32), paths_of(MERBA, 7, 7, 7))
    assert count.outputs == times * 2 * 49 * 32


# ---------------------------------------------------------------- against slow code


def visiting_order(direction, height, width):
    """Rows and columns of a window in scan order, by walking it."""
    path, _, variant = direction.partition("_")
    steps = []
    lines = range(height) if path[0] == "h" else range(width)
    for line in lines:
        places = list(range(width if path[0] == "h" else height))
        if path[1] == "z" and line % 2:
            places.reverse()
        steps += [(line, place) if path[0] == "h" else (place, line) for place in places]
    if variant == "mirror":
        steps = [(row, width - 1 - column) for row, column in steps]
    return steps[::-1] if variant == "reverse" else steps


def slow_mixer(tokens, mixer, k):
    """MambaVision's mixer of one sequence (L, dim), token by token, as its paper writes it."""
    rank, state, _ = mixer.sizes
    inner = mixer.D.shape[1]
    x, z = (tokens @ mixer.in_proj[k].T).chunk(2, dim=-1)

    def conv(sequence, kernel):
        padded = F.pad(sequence.T[None], (1, 1))
        return F.silu(F.conv1d(padded, kernel[:, None], groups=inner))[0].T

    x, z = conv(x, mixer.conv[k, :inner]), conv(z, mixer.conv[k, inner:])
    h, outputs = torch.zeros(inner, state), []
    for t in range(len(tokens)):
        dt, b, c = (mixer.x_proj[k] @ x[t]).split([rank, state, state])
        dt = F.softplus(mixer.dt_proj[k] @ dt + mixer.dt_bias[k])
        h = torch.exp(dt[:, None] * -mixer.A_log[k].exp()) * h + dt[:, None] * b * x[t][:, None]
        outputs.append(h @ c + mixer.D[k] * x[t])
    return torch.cat([torch.stack(outputs), z], dim=-1)


def slow_local_extractor(extractor, tokens, directions, height, width, window):
    image = tokens.unflatten(1, (height, width))
    result = []
    for sample in image:
        fused = [[None] * width for _ in range(height)]
        for top in range(0, height, window):
            for left in range(0, width, window):
                part = sample[top : top + window, left : left + window]
                results = []
                for k, direction in enumerate(directions):
                    order = visiting_order(direction, *part.shape[:2])
                    sequence = torch.stack([part[row, column] for row, column in order])
                    k = k if len(extractor.mixer.D) > 1 else 0
                    results.append(dict(zip(order, slow_mixer(sequence, extractor.mixer, k), strict=True)))
                for row, column in results[0]:
                    stacked = torch.stack([by_place[row, column] for by_place in results])
                    pooled = stacked.mean(0) if extractor.fusion == "mean" else stacked.sum(0)
                    fused[top + row][left + column] = extractor.out_proj(pooled)
        result.append(torch.stack([value for line in fused for value in line]))
    return torch.stack(result)


@pytest.mark.parametrize(
    ("directions", "mixer", "fusion"),
    [
        (MERBA, "shared", "mean"),
        (["hr", "vr_mirror", "hz_reverse"], "per_direction", "sum"),
    ],
)
def test_local_extractor_equals_loops_over_windows_directions_and_tokens(directions, mixer, fusion):
    extractor = LocalExtractor(16, len(directions), mixer, fusion, 4, 0.0)
    results, gradients = [], []
    for function in (
        lambda x: extractor(x, paths_of(directions, 5, 4, 3)),
        lambda x: slow_local_extractor(extractor, x, directions, 5, 4, 3),
    ):
        torch.manual_seed(1)
        x = torch.randn(2, 20, 16, requires_grad=True)
        results.append(function(x))
        weights = list(extractor.parameters())
        gradients.append(torch.autograd.grad((results[-1] * torch.randn(2, 20, 16)).sum(), [x, *weights]))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 5)])
def test_local_attention_equals_attention_on_each_window_alone(height, width):
    attention = Attention(16, 2, 0.0)
    x = torch.randn(2, height * width, 16)
    y = attention(x, paths_of(["hr"], height, width, 7)[0].long())
    window = window_of_token(height, width, 7)
    for w in window.unique():
        torch.testing.assert_close(y[:, window == w], attention(x[:, window == w], None))


# ---------------------------------------------------------------- geometry and switches


@pytest.mark.parametrize(("image_size", "stride"), [(224, 4), (112, 2), (56, 1)])
def test_maps_of_stages_2_to_4_are_28_14_7_for_each_input(image_size, stride):
    model = MERba(3, **TINY | {"image_size": image_size})
    assert stride_for(image_size, image_size) == stride
    assert [model.stage2.size, model.stage3.size, model.stage4.size] == [(28, 28), (14, 14), (7, 7)]
    assert [stage.paths.shape for stage in (model.stage2, model.stage3, model.stage4)] == [
        (4, 16, 49),
        (4, 4, 49),
        (4, 1, 49),
    ]
    assert model(torch.randn(2, 2, image_size, image_size)).shape == (2, 3)


def test_a_named_stem_stride_replaces_that_of_the_input():
    model = MERba(3, **TINY | {"image_size": 28, "stem_stride": 2})
    assert model.stem(torch.randn(1, 2, 28, 28)).shape[2:] == (14, 14)
    assert [model.stage2.size, model.stage3.size, model.stage4.size] == [(7, 7), (4, 4), (2, 2)]
    with pytest.raises(ValueError, match="stem_stride is 3"):
        MERba(3, **TINY | {"stem_stride": 3})


@pytest.mark.parametrize(
    ("override", "shape"),
    [
        ({"extractor": "global"}, (2, 5)),
        ({"attention": "local"}, (2, 5)),
        ({"extractor": "global", "attention": "local", "image_size": 50}, (2, 5)),
        ({"directions": "plainmamba", "mixer": "per_direction"}, (2, 5)),
        ({"directions": "vim"}, (2, 5)),
        ({"directions": "vmamba"}, (2, 5)),
        ({"directions": "localmamba"}, (2, 5)),
        ({"directions": "hr vr hr_mirror vr_mirror", "fusion": "sum"}, (2, 5)),
        ({"directions": ["hz"]}, (2, 5)),
        ({"layer_scale": 1e-5, "in_channels": 3, "window": 5}, (2, 5)),
        ({"image_size": (44, 60), "attention": "local"}, (2, 5)),
        ({"drop_path": 0.5, "dropout": 0.0}, (2, 5)),
        ({"image_size": 28, "stem_stride": 2}, (2, 5)),
    ],
)
def test_every_switch_gives_a_model_all_of_whose_parameters_learn(override, shape):
    settings = TINY | override
    model = MERba(5, **settings).train()
    output = model(torch.randn(2, *model.input_shape))
    assert output.shape == shape
    model.eval()  # drop path may leave a block without gradient
    model(torch.randn(2, *model.input_shape)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_sum_is_the_mean_times_the_number_of_directions():
    extractor = LocalExtractor(16, 4, "shared", "mean", 8, 0.0)
    x, paths = torch.randn(2, 49, 16), paths_of(MERBA, 7, 7, 7)
    mean = extractor(x, paths)
    extractor.fusion = "sum"
    torch.testing.assert_close(extractor(x, paths), 4 * mean)


def test_per_direction_mixers_with_equal_weights_are_the_shared_one():
    shared = LocalExtractor(16, 4, "shared", "mean", 8, 0.0)
    own = LocalExtractor(16, 4, "per_direction", "mean", 8, 0.0)
    state = {k: v if k == "out_proj.weight" else v.expand(4, *v.shape[1:]) for k, v in shared.state_dict().items()}
    own.load_state_dict(state)
    x, paths = torch.randn(2, 49, 16), paths_of(MERBA, 7, 7, 7)
    torch.testing.assert_close(own(x, paths), shared(x, paths))


def test_global_extractor_scans_the_whole_map_once():
    model = MERba(3, **TINY | {"extractor": "global"})
    assert [stage.paths.shape for stage in (model.stage2, model.stage3, model.stage4)] == [
        (4, 1, 784),
        (4, 1, 196),
        (4, 1, 49),
    ]


def test_dgcm_model_returns_coarse_and_fine_logits():
    coarse, fine = MERba(7, **TINY, head="dgcm")(torch.randn(3, 2, 56, 56))
    assert coarse.shape == fine.shape == (3, 4)


def test_drop_path_rises_linearly_over_all_blocks():
    model = create_model("merba_base", 3, dim=16, stem_dim=4, drop_path=0.3)
    rates = [m.p for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx(np.linspace(0, 0.3, 3 + 3 + 10 + 5).tolist())


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x, branch = torch.zeros(4000, 3, 2), torch.ones(4000, 3, 2)
    y = DropPath(0.25)(x, branch).flatten(1)
    assert ((y == 0).all(1) | (y == y[:, :1]).all(1)).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)


def test_layer_scale_is_absent_or_its_value():
    assert not any("gamma" in name for name, _ in MERba(3, **TINY).named_parameters())
    scaled = MERba(3, **TINY, layer_scale=1e-5)
    gammas = [p for name, p in scaled.named_parameters() if "gamma" in name]
    assert len(gammas) == 12 and all((p == 1e-5).all() for p in gammas)


def test_time_steps_start_as_mambas():
    dt = F.softplus(Mixer(512, 1, state=8).dt_bias)
    assert 0.001 <= dt.min() < 0.002 and 0.05 < dt.max() <= 0.1


def test_stage_one_is_a_residual_of_two_convolutions():
    block = ConvBlock(4, 0.0).eval()
    x = torch.randn(1, 4, 6, 6)
    y = block.norm2(block.conv2(F.gelu(block.norm1(block.conv1(x)), approximate="tanh")))
    torch.testing.assert_close(block(x), x + y)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "millions"),
    [("merba_base", 93.8), ("merba_small", 48.4), ("merba_tiny", 30.3), ("merba_nano", 0.89)],
)
def test_parameter_counts(name, millions):
    with torch.device("meta"):
        model = create_model(name, 3)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_nano_has_two_global_blocks_a_stage_and_one_local_or_two():
    model = create_model("merba_nano", 3)
    kinds = [["qkv" if hasattr(b.mixer, "qkv") else "scan" for b in getattr(model, f"stage{s}").blocks] for s in (2, 3, 4)]
    assert kinds == [["scan", "qkv", "qkv"], ["scan", "scan", "qkv", "qkv"], ["scan", "qkv", "qkv"]]
    assert model.input_shape == (2, 56, 56) and len(model.stage1) == 1


def test_it_learns_to_tell_directions_of_motion():
    model = MERba(2, **TINY, dropout=0.0, drop_path=0.0)
    labels = torch.arange(8) % 2
    flow = torch.randn(8, 2, 56, 56) * 0.5 + torch.where(labels == 0, 1.0, -1.0)[:, None, None, None]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(flow), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.1


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"directions": "diagonal"}, "unknown scan direction 'diagonal'"),
        ({"directions": []}, "choose from"),
        ({"extractor": "both"}, "it must be 'local' or 'global'"),
        ({"attention": "none"}, "it must be 'local' or 'global'"),
        ({"mixer": "three"}, "it must be 'shared' or 'per_direction'"),
        ({"fusion": "max"}, "it must be 'mean' or 'sum'"),
        ({"heads": (3, 2, 4)}, "does not divide its 16 channels.* 1 would"),
        ({"heads": (1, 2)}, "3 whole numbers"),
        ({"depths": (1, 1, 1)}, "4 whole numbers"),
        ({"depths": (1, 0, 1, 1)}, "4 whole numbers of at least 1"),
        ({"directions": "vmmamba"}, "'vmmamba'; choose from hr, .*presets merba, vim, vmamba"),
        ({"heads": 4}, "heads is 4; it must be 3 whole numbers"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 56.0}, "image_size is 56.0; it must be a whole number"),
        ({"image_size": (56,)}, "2 whole numbers"),
        ({"window": None}, "window is None; it must be a whole number"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0; it must be a number above 0"),
        ({"window": 0}, "window is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"head": "tree"}, "linear, dgcm"),
    ],
)
def test_arguments_that_do_not_fit_say_what_would(override, says):
    with pytest.raises(ValueError, match=says):
        MERba(3, **TINY | override)


def test_dgcm_wants_seven_classes():
    with pytest.raises(ValueError, match="7 classes, not 3"):
        MERba(3, **TINY, head="dgcm")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="merba_nano"):
        create_model("merba_huge", 3)
    with pytest.raises(ValueError, match="layer_scale"):
        create_model("merba_nano", 3, layerscale=1)


def test_an_input_of_another_shape_says_what_would_fit():
    with pytest.raises(ValueError, match=r"2, 56, 56.*resize"):
        create_model("merba_nano", 3)(torch.zeros(1, 3, 56, 56))


# ---------------------------------------------------------------- compilation


@pytest.mark.parametrize(
    "backend",
    [pytest.param("aot_eager", marks=pytest.mark.long), pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_compiled_model_equals_the_eager_one_forward_and_backward(backend):
    model = create_model("merba_nano", 3, dropout=0.0, drop_path=0.0)
    x, y = torch.randn(2, 2, 56, 56), torch.tensor([0, 2])
    losses, gradients = [], []
    for function in (model, torch.compile(model, fullgraph=True, backend=backend)):
        model.zero_grad()
        loss = F.cross_entropy(function(x), y)
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-2)


@pytest.mark.long
def test_training_with_its_dropout_and_drop_path_compiles_whole():
    model = MERba(5, **TINY, drop_path=0.5).train()
    torch.compile(model, fullgraph=True, backend="aot_eager")(torch.randn(4, 2, 56, 56)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_checkpointed_stages_have_the_same_gradients():
    model = MERba(5, **TINY, drop_path=0.5).train()
    x, gradients = torch.randn(2, 2, 56, 56), []
    for run in (lambda stage, x: stage(x), partial(checkpoint, use_reentrant=False)):
        torch.manual_seed(1)  # the same dropout
        model.zero_grad()
        y = model.stem(x)
        for stage in (model.stage1, model.stage2, model.stage3, model.stage4):
            y = run(stage, y)
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.stage2.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_autocast_gives_nearly_the_same_training_step():
    model = MERba(5, **TINY, dropout=0.0, drop_path=0.0, layer_scale=0.5).train()
    x, gradients = torch.randn(4, 2, 56, 56), []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = model(x)
        F.cross_entropy(outputs.float(), torch.tensor([0, 1, 2, 3])).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    single, half = gradients
    assert 0 < (half - single).norm() / single.norm() < 0.2
