"""HTNet: its authors' names and shapes, its levels against slow code, and its regions."""

import pytest
import torch

from merba import create_model
from merba.models.htnet import Attention, LayerNorm, htnet_regions

SMALL = {"dim": 8, "heads": 1, "depths": (1, 1, 2)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_authors_weight_files_fit_strictly():
    with torch.device("meta"):
        state = create_model("htnet", 3).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = {"to_patch_embedding.1.weight": (256, 147, 1, 1), "to_patch_embedding.1.bias": (256,)}
    for level, (dim, heads, depth) in enumerate(((256, 3, 2), (512, 6, 2), (1024, 12, 10))):
        inner = dim // heads * heads
        expected[f"layers.{level}.0.pos_emb"] = (1,)
        for i in range(depth):
            prefix = f"layers.{level}.0.layers.{i}."
            for part in "01":
                expected |= {f"{prefix}{part}.norm.{p}": (1, dim, 1, 1) for p in "gb"}
            expected |= {
                f"{prefix}0.fn.to_qkv.weight": (3 * inner, dim, 1, 1),
                f"{prefix}0.fn.to_out.0.weight": (dim, inner, 1, 1),
                f"{prefix}0.fn.to_out.0.bias": (dim,),
                f"{prefix}1.fn.net.0.weight": (4 * dim, dim, 1, 1),
                f"{prefix}1.fn.net.0.bias": (4 * dim,),
                f"{prefix}1.fn.net.3.weight": (dim, 4 * dim, 1, 1),
                f"{prefix}1.fn.net.3.bias": (dim,),
            }
        if level < 2:
            expected |= {f"layers.{level}.1.0.weight": (2 * dim, dim, 3, 3), f"layers.{level}.1.0.bias": (2 * dim,)}
            expected |= {f"layers.{level}.1.1.{p}": (1, 2 * dim, 1, 1) for p in "gb"}
    expected |= {"mlp_head.0.g": (1, 1024, 1, 1), "mlp_head.0.b": (1, 1024, 1, 1)}
    expected |= {"mlp_head.2.weight": (3, 1024), "mlp_head.2.bias": (3,)}
    assert shapes == expected


def test_a_patch_becomes_one_position_with_its_pixels_row_by_row():
    model = create_model("htnet", 3, in_channels=2, **SMALL)
    inputs = []
    model.to_patch_embedding[1].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    x = torch.randn(1, 2, 28, 28)
    model(x)
    patch = x[0, :, 7:14, 21:28]
    assert torch.equal(inputs[0][0, :, 1, 3], patch.permute(1, 2, 0).flatten())


def test_first_level_keeps_its_sixteen_blocks_apart():
    model = create_model("htnet", 3, image_size=56, **SMALL)
    outputs = []
    model.layers[0][1].register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    x = torch.randn(1, 3, 56, 56, requires_grad=True)
    model(x)
    (gradient,) = torch.autograd.grad(outputs[0][0, :, 2:4, 4:6].square().sum(), x)
    reached = torch.zeros(56, 56, dtype=torch.bool)
    reached[14:28, 28:42] = True
    assert torch.equal(gradient[0].abs().sum(0) > 0, reached)


def test_norm_is_over_channels():
    norm = LayerNorm(5)
    torch.nn.init.normal_(norm.g)
    torch.nn.init.normal_(norm.b)
    x = torch.randn(2, 5, 3, 4)
    variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt() * norm.g + norm.b)


def test_attention_equals_its_formula():
    attention = Attention(7, 3, 0.0)  # 2 channels a head
    x = torch.randn(2, 7, 2, 3)
    q, k, v = (part.reshape(2, 3, 2, 6) for part in attention.to_qkv(x).chunk(3, dim=1))
    weights = (torch.einsum("bhdi,bhdj->bhij", q, k) / 2**0.5).softmax(-1)
    y = torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(2, 6, 2, 3)
    torch.testing.assert_close(attention(x), attention.to_out(y))


def pixels() -> torch.Tensor:
    """A map with its own x and y as channels."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    return torch.stack([x, y])[None]


def test_regions_are_centred_on_eyes_and_mouth_corners():
    points = torch.tensor([[[9.0, 11.0], [19.0, 12.0], [14.0, 16.0], [10.0, 20.0], [18.0, 21.0]]])
    regions = htnet_regions(pixels(), points)[0]
    for (top, left), centre in {(0, 0): (9, 11), (0, 14): (10, 20), (14, 0): (19, 12), (14, 14): (18, 21)}.items():
        assert tuple(regions[:, top + 7, left + 7].tolist()) == centre
        x, y = regions[:, top : top + 14, left : left + 14]
        assert torch.equal(x[0], torch.arange(14.0) + centre[0] - 7)
        assert torch.equal(y[:, 0], torch.arange(14.0) + centre[1] - 7)


def test_regions_near_the_edge_are_moved_inside():
    points = torch.full((1, 5, 2), 27.0)
    points[0, 0] = -3
    regions = htnet_regions(pixels(), points)[0]
    assert regions[:, 0, 0].tolist() == [0, 0]
    assert regions[:, 27, 27].tolist() == [27, 27]


@pytest.mark.parametrize("image_size", [21, 42, 0])
def test_image_sizes_that_do_not_fit_say_what_would(image_size):
    with pytest.raises(ValueError, match="a multiple of 28, such as"):
        create_model("htnet", 3, image_size=image_size)


@pytest.mark.parametrize("wrong", [{"heads": 0}, {"patch_size": 0}, {"depths": ()}, {"dim": 0}, {"in_channels": 0}])
def test_other_arguments_that_do_not_fit_say_what_would(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*must be .*whole numbers? of at least 1"):
        create_model("htnet", 3, **wrong)


def test_odd_flow_and_misshapen_points_say_what_would_fit():
    with pytest.raises(ValueError, match="even"):
        htnet_regions(torch.zeros(1, 2, 27, 28), torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match=r"\(1, 5, 2\)"):
        htnet_regions(torch.zeros(1, 2, 28, 28), torch.zeros(1, 68, 2))
