"""ME-PLAN: its backbone against a plain reference, its sizes, what its episodes draw, its loss and its prototypes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import checkpoint

from merba import create_model
from merba.errors import MerbaError
from merba.models.summary import architecture
from merba.preprocessing.packs import FlowFormat
from merba.training.checkpoint import Member, join_checkpoints, load_checkpoint, save_checkpoint

SMALL = {"length": 4, "image_size": 16, "widths": (4, 5, 6, 7)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def r3d_state(widths=(4, 5, 6, 7), blocks=2):
    """The state dict of torchvision's `VideoResNet` with `BasicBlock` and `Conv3DSimple`, random."""

    def norm(name, width):
        spread = {"weight": 1 + 0.1 * torch.randn(width), "running_var": 1 + torch.rand(width)}
        shift = {part: 0.1 * torch.randn(width) for part in ("bias", "running_mean")}
        return {f"{name}.{part}": t for part, t in (spread | shift | {"num_batches_tracked": torch.tensor(7)}).items()}

    def conv(name, outputs, inputs, *kernel):
        return {f"{name}.weight": torch.randn(outputs, inputs, *kernel) / (inputs * np.prod(kernel)) ** 0.5}

    state = conv("stem.0", widths[0], 3, 3, 7, 7) | norm("stem.1", widths[0])
    inputs = widths[0]
    for layer, width in enumerate(widths, start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            state |= conv(f"{name}.conv1.0", width, inputs, 3, 3, 3) | norm(f"{name}.conv1.1", width)
            state |= conv(f"{name}.conv2.0", width, width, 3, 3, 3) | norm(f"{name}.conv2.1", width)
            if layer > 1 and block == 0:
                state |= conv(f"{name}.downsample.0", width, inputs, 1, 1, 1) | norm(f"{name}.downsample.1", width)
            inputs = width
    return state | {"fc.weight": torch.randn(400, widths[3]), "fc.bias": torch.randn(400)}


def plain_r3d(state, clips, attention, blocks=2):
    """The pooled features of clips (B, 3, T, H, W), layer by layer, in float64; `attention`: weight and bias after stage 3."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def norm(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(x, name, stride, padding):
        return norm(F.conv3d(x, state[f"{name}.0.weight"], None, stride, padding), f"{name}.1")

    x = conv(clips, "stem", (1, 2, 2), (1, 3, 3)).clamp(min=0)
    for layer in (1, 2, 3, 4):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            new = conv(conv(x, f"{name}.conv1", stride, 1).clamp(min=0), f"{name}.conv2", 1, 1)
            shortcut = conv(x, f"{name}.downsample", stride, 0) if stride == 2 else x
            x = (new + shortcut).clamp(min=0)
        if layer == 3:
            weight, bias = (tensor.double() for tensor in attention)
            x = x * (1 + 1 / (1 + torch.exp(-(torch.einsum("bcthw,c->bthw", x, weight.flatten()) + bias))))[:, None]
    return x.flatten(2).mean(2)


@pytest.fixture
def file(tmp_path):
    torch.save(r3d_state(), tmp_path / "r3d_18.pth")
    return tmp_path / "r3d_18.pth"


def test_a_grey_clip_gives_what_torchvisions_network_makes_of_three_equal_colours(file):
    model = create_model("meplan", 3, pretrained=file, **SMALL).eval()
    conv = model.backbone.attention.conv
    for weight in (conv.weight, torch.randn_like(conv.weight)):
        conv.weight.data, conv.bias.data = weight, torch.randn(1)
        clips = torch.randn(3, *model.input_shape)
        expected = plain_r3d(torch.load(file), clips.transpose(1, 2).double().expand(-1, 3, -1, -1, -1), (conv.weight, conv.bias))
        with torch.no_grad():
            assert model.embed(clips).numpy() == pytest.approx(expected.detach().numpy(), rel=1e-4, abs=1e-5)
    assert expected.std(0).max() > 1e-2


def test_the_backbone_has_torchvisions_names_and_all_of_the_file_but_its_head_is_taken(file):
    held, loaded = torch.load(file), create_model("meplan", 3, pretrained=file, **SMALL).backbone.state_dict()
    assert {name for name in loaded if not name.startswith("attention.")} == {n for n in held if not n.startswith("fc.")}
    assert torch.equal(loaded["stem.0.weight"][:, 0], held["stem.0.weight"].sum(1))
    assert all(torch.equal(loaded[name], held[name]) for name in held if name in loaded and name != "stem.0.weight")


@pytest.mark.parametrize("change", ["a tensor too few", "a tensor too many", "another size", "no R3D"])
def test_other_files_are_refused(tmp_path, change):
    state = r3d_state(blocks=1 if change == "another size" else 2)
    name = {"a tensor too few": "layer2.1.conv2.1.bias", "another size": "layer1.1"}.get(change, "layer5.0.weight")
    if change == "a tensor too few":
        del state[name]
    elif change == "a tensor too many":
        state[name] = torch.zeros(1)
    elif change == "no R3D":
        state = {name: torch.zeros(1)}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(MerbaError, match="other.pth doesn't hold an R3D of the model's size.*torchvision's names") as error:
        create_model("meplan", 3, pretrained=tmp_path / "other.pth", **SMALL)
    assert name in str(error.value)
    with pytest.raises(MerbaError, match="there is no file absent.pth"):
        create_model("meplan", 3, pretrained=Path("absent.pth"), **SMALL)


def test_parameters_and_costs_are_those_that_were_counted_beforehand():
    with torch.device("meta"):
        models = {name: create_model(name, 3) for name in ("meplan", "meplan_small")}
    assert [model.input_shape for model in models.values()] == [(16, 1, 112, 112), (8, 1, 56, 56)]
    whole, small = (architecture(model, model.input_shape).set_index("block").loc["total"] for model in models.values())
    # torchvision's 33,371,472, less its head and two colours of the stem's kernels, and with the attention's 257.
    assert whole["parameters"] == 33_371_472 - 400 * 513 - 2 * 64 * 3 * 7 * 7 + 257
    assert (whole["output"], whole["flops"]) == ("3", pytest.approx(39.8e9, rel=0.005))
    assert small["parameters"] == pytest.approx(0.90e6, rel=0.005)
    assert small["flops"] == pytest.approx(0.16e9, rel=0.03)


def test_attention_starts_alike_everywhere_and_is_trained():
    model = create_model("meplan", 3, **SMALL).train()
    attention, x = model.backbone.attention, torch.randn(2, 6, 2, 3, 3)
    assert torch.equal(attention(x), 1.5 * x)
    model.loss(model(torch.randn(45, *model.input_shape)), torch.arange(3).repeat_interleave(15)).backward()
    assert attention.conv.weight.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def drawn(labels, seed=0, **arguments):
    """The clips of an episode (classes, clips), and its model."""
    model = create_model("meplan", 7, **SMALL, **arguments)
    episode = model.episode(torch.tensor(labels), torch.Generator().manual_seed(seed))
    return episode.view(-1, model.support + model.queries), model


def test_an_episode_has_five_and_ten_clips_of_every_class_each_once():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [15, 20, 60]))
    clips, _ = drawn(labels)
    assert clips.shape == (3, 15)
    assert (labels[clips] == [[0], [1], [2]]).all()
    assert all(len(set(row)) == 15 for row in clips.tolist())
    assert torch.equal(drawn(labels)[0], clips)
    assert not torch.equal(drawn(labels, seed=1)[0], clips)
    assert drawn(labels, support=1, queries=2)[0].shape == (3, 3)


@pytest.mark.parametrize("clips", range(1, 15))
def test_where_a_class_has_few_clips_they_repeat_and_none_is_its_own_prototype(clips):
    rows, _ = drawn([0] * clips + [3] * 30)
    few, many = rows.tolist()
    assert set(few) == set(range(clips))
    assert len(set(many)) == 15
    support, queries = set(few[:5]), set(few[5:])
    assert not support & queries or clips == 1
    assert len(support) == max(1, clips // 3)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_the_queries_by_their_distance_from_the_supports_means(weighted):
    model = create_model("meplan", 4, **SMALL, support=2, queries=3)
    embeddings, labels = torch.randn(15, 7, dtype=torch.float64), [0] * 5 + [1] * 5 + [3] * 5  # class 2 has no clips
    numbers = embeddings.numpy()
    weights = [0.5, 2.0, 9.0, 1.0] if weighted else [1.0] * 4
    total = weight = 0.0
    for place in (2, 3, 4, 7, 8, 9, 12, 13, 14):
        near = [np.exp(-sum((numbers[place] - numbers[k : k + 2].mean(0)) ** 2)) for k in (0, 5, 10)]
        own = {0: 0, 1: 1, 3: 2}[labels[place]]
        total -= weights[labels[place]] * np.log(near[own] / sum(near))
        weight += weights[labels[place]]
    options = {"progress": 0.5, "label_smoothing": 0.0, "convex": False}
    loss = model.loss(embeddings, torch.tensor(labels), class_weights=torch.tensor(weights) if weighted else None, **options)
    assert float(loss) == pytest.approx(total / weight, rel=1e-5)


def settled(labels, **arguments):
    model = create_model("meplan", 3, **SMALL, **arguments).eval()
    clips, labels = torch.randn(len(labels), *model.input_shape), torch.tensor(labels)
    with torch.no_grad():
        model.settle(clips, labels)
    return model, clips, labels


def test_prototypes_are_the_means_of_all_clips_of_a_class():
    model, clips, labels = settled(np.random.default_rng(0).integers(0, 3, 50))
    with torch.no_grad():
        each = [model.embed(clip[None])[0].double() for clip in clips]
        for label in range(3):
            own = [embedding for embedding, of in zip(each, labels, strict=True) if of == label]
            assert model.prototypes.means[label].numpy() == pytest.approx((sum(own) / len(own)).numpy(), abs=1e-5)
        new = torch.randn(2, *model.input_shape)
        distances = [
            [float((model.embed(clip[None])[0] - mean).square().sum()) for mean in model.prototypes.means] for clip in new
        ]
        assert model(new).numpy() == pytest.approx(-np.array(distances), rel=1e-4, abs=1e-6)


def test_a_class_without_training_clips_never_wins():
    model, clips, _ = settled([0, 2, 2, 0])
    with torch.no_grad():
        logits = model(torch.cat([clips, 0 * clips]))
    probabilities = logits.softmax(1)
    assert (probabilities[:, 1] == 0).all()
    assert probabilities.sum(1).numpy() == pytest.approx(1)
    assert (logits.argmax(1) != 1).all()


def test_checkpoints_and_ensembles_of_them_keep_the_prototypes(tmp_path):
    described = {"name": "meplan", **SMALL, "widths": list(SMALL["widths"])}
    form, view = FlowFormat(("grey",), "grey"), {"name": "v", "keep": "grey"}
    trained = {tmp_path / f"{number}.safetensors": settled([0, 1, 2, number])[0] for number in range(3)}
    for path, model in trained.items():
        member = Member(model.state_dict(), [0.0], [1.0], ("samm", path.stem))
        save_checkpoint(path, replace(checkpoint(member), model=described, form=form, view=view))
    save_checkpoint(tmp_path / "all.safetensors", join_checkpoints({path: load_checkpoint(path) for path in trained}))
    ensemble = load_checkpoint(tmp_path / "all.safetensors")
    x = torch.randn(2, *ensemble.input_shape)
    for member, model in zip(ensemble.members, trained.values(), strict=True):
        assert torch.equal(member.weights["prototypes.means"], model.prototypes.means)
        with torch.no_grad():
            assert torch.equal(ensemble.build(member)(x), model(x))


@pytest.mark.parametrize("wrong", [{"support": 0}, {"queries": 1.5}, {"episodes": 0}, {"widths": (4, 4)}, {"blocks": 0}])
def test_arguments_that_do_not_fit_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*it must be"):
        create_model("meplan", 3, **SMALL | wrong)
