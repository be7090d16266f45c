"""Starting from a MambaVision checkpoint: a file of random weights in the published format."""

import argparse
import logging

import pytest
import torch
from safetensors.torch import save_file

from merba import create_model
from merba.errors import MerbaError
from merba.models import check_experiment

SMALL = {"dim": 8, "stem_dim": 4}
DEPTHS = (1, 2, 5, 3)  # level 3: mixers 0–2, attention 3–4; level 4: mixers 0–1, attention 2


@pytest.fixture(scope="module")
def mambavision():
    torch.manual_seed(0)
    model = create_model("mambavision_base", 10, **SMALL, depths=DEPTHS)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return model.state_dict()


@pytest.fixture
def checkpoint(mambavision, tmp_path):
    path = tmp_path / "mambavision.pth.tar"
    torch.save({"state_dict": mambavision, "epoch": 3, "args": argparse.Namespace(lr=1.0)}, path)
    return path


def merba(path, **overrides):
    settings = {"image_size": 56, "depths": (1, 1, 5, 2), "global_blocks": 1} | SMALL | overrides
    return create_model("merba_base", 3, pretrained=path, **settings)


def test_stem_averages_its_input_channels_and_stage_one_is_taken(checkpoint, mambavision):
    model = merba(checkpoint)
    average = mambavision["patch_embed.conv_down.0.weight"].mean(1)
    for channel in (0, 1):
        torch.testing.assert_close(model.stem[0].weight[:, channel], average)
    assert torch.equal(model.stem[4].running_var, mambavision["patch_embed.conv_down.4.running_var"])
    assert torch.equal(model.stage1[0].conv2.weight, mambavision["levels.0.blocks.0.conv2.weight"])
    assert torch.equal(model.norm.bias, mambavision["norm.bias"])


def test_three_input_channels_are_taken_as_they_are(checkpoint, mambavision):
    model = merba(checkpoint, in_channels=3)
    assert torch.equal(model.stem[0].weight, mambavision["patch_embed.conv_down.0.weight"])


def test_local_block_i_takes_mixer_block_i_modulo_their_number(checkpoint, mambavision):
    model = merba(checkpoint)
    for i, source in enumerate([0, 1, 2, 0, 1]):
        block, prefix = model.stage3.blocks[i], f"levels.2.blocks.{source}."
        mixer = block.mixer.mixer
        assert torch.equal(mixer.in_proj[0], mambavision[prefix + "mixer.in_proj.weight"])
        assert torch.equal(mixer.conv[0, :16], mambavision[prefix + "mixer.conv1d_x.weight"][:, 0])
        assert torch.equal(mixer.conv[0, 16:], mambavision[prefix + "mixer.conv1d_z.weight"][:, 0])
        assert torch.equal(mixer.x_proj[0], mambavision[prefix + "mixer.x_proj.weight"])
        assert torch.equal(mixer.dt_proj[0], mambavision[prefix + "mixer.dt_proj.weight"])
        assert torch.equal(mixer.A_log[0], mambavision[prefix + "mixer.A_log"])
        assert torch.equal(mixer.D[0], mambavision[prefix + "mixer.D"])
        assert torch.equal(block.mixer.out_proj.weight, mambavision[prefix + "mixer.out_proj.weight"])
        assert torch.equal(block.norm1.weight, mambavision[prefix + "norm1.weight"])
        assert torch.equal(block.mlp.fc2.weight, mambavision[prefix + "mlp.fc2.weight"])
        assert torch.equal(block.gamma_2, mambavision[prefix + "gamma_2"])


def test_global_blocks_take_the_first_attention_blocks(checkpoint, mambavision):
    model = merba(checkpoint)
    for stage, level, first in (("stage3", 2, 3), ("stage4", 3, 2)):
        block = getattr(model, stage).blocks[-1]
        assert torch.equal(block.mixer.qkv.weight, mambavision[f"levels.{level}.blocks.{first}.mixer.qkv.weight"])
        assert torch.equal(block.mixer.proj.bias, mambavision[f"levels.{level}.blocks.{first}.mixer.proj.bias"])


def test_downsampling_comes_with_its_level(checkpoint, mambavision):
    model = merba(checkpoint)
    for stage in (2, 3, 4):
        source = mambavision[f"levels.{stage - 2}.downsample.reduction.0.weight"]
        assert torch.equal(getattr(model, f"stage{stage}").downsample.weight, source)


def test_a_local_extractor_with_one_direction_then_computes_mambavisions_mixer(checkpoint):
    """On a map of one window, with only the horizontal raster: equal only if every tensor went to its place."""
    official = create_model("mambavision_base", 10, **SMALL, depths=DEPTHS, pretrained=checkpoint).eval()
    model = merba(checkpoint, directions="hr").eval()
    x = torch.randn(2, 49, 64)
    torch.testing.assert_close(model.stage4.blocks[0](x, model.stage4.paths), official.levels[3].blocks[0](x, None))


def test_per_direction_mixers_all_start_from_the_same_weights(checkpoint, mambavision):
    mixer = merba(checkpoint, mixer="per_direction").stage3.blocks[1].mixer.mixer
    for k in range(4):
        assert torch.equal(mixer.x_proj[k], mambavision["levels.2.blocks.1.mixer.x_proj.weight"])


def test_layer_scale_comes_only_with_weights_that_have_one(checkpoint, mambavision, tmp_path):
    assert (merba(checkpoint).stage2.blocks[0].gamma_1 == 1e-5).all()  # random stage, MambaVision-B's value
    without = {name: tensor for name, tensor in mambavision.items() if "gamma" not in name}
    torch.save(without, tmp_path / "tiny.pth")
    assert merba(tmp_path / "tiny.pth").stage2.blocks[0].gamma_1 is None


def test_every_tensor_is_logged_as_taken_adapted_or_left(checkpoint, caplog):
    with caplog.at_level(logging.INFO, "merba.models.pretrained"):
        model = merba(checkpoint)
    lines = caplog.text
    for name in model.state_dict():
        assert f"{name}: " in lines
    assert "stem.0.weight: adapted from patch_embed.conv_down.0.weight: averaged" in lines
    assert "stage1.0.conv1.weight: taken from levels.0.blocks.0.conv1.weight" in lines
    assert "stage2.blocks.0.norm1.weight: left" in lines
    assert "head.weight: left" in lines
    assert "levels.1.blocks.1.conv1.weight of" in lines and "is not used" in lines


def test_mambavision_loads_by_name_and_keeps_a_new_head(checkpoint, mambavision):
    model = create_model("mambavision_base", 3, **SMALL, depths=DEPTHS, in_channels=2, pretrained=checkpoint)
    state = model.state_dict()
    differing = {name for name, tensor in mambavision.items() if not torch.equal(state[name], tensor)}
    assert differing == {"patch_embed.conv_down.0.weight", "head.weight", "head.bias"}


def test_safetensors_and_prefixed_names_are_read(mambavision, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({f"model.{name}": tensor.contiguous() for name, tensor in mambavision.items()}, path)
    assert torch.equal(merba(path).norm.weight, mambavision["norm.weight"])


def test_files_that_can_not_be_used_say_why(checkpoint, tmp_path):
    with pytest.raises(MerbaError, match="there is no file"):
        merba(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(MerbaError, match="can't be read"):
        merba(tmp_path / "text.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MerbaError, match="no MambaVision weights"):
        merba(tmp_path / "other.pth")
    with pytest.raises(MerbaError, match="another size"):
        merba(checkpoint, dim=16)


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(MerbaError, match="can't be read"):
        merba(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_another_depth_is_refused(checkpoint, mambavision, tmp_path):
    with pytest.raises(MerbaError, match=r"lacks levels\.2\.blocks\.5\..* more tensors.*another size"):
        create_model("mambavision_base", 3, **SMALL, depths=(1, 2, 6, 3), pretrained=checkpoint)
    with pytest.raises(MerbaError, match=r"unlike the model, levels\.1\.blocks\.1\."):
        create_model("mambavision_base", 3, **SMALL, depths=(1, 1, 5, 3), pretrained=checkpoint)
    with pytest.raises(MerbaError, match="level 4 of .* too few attention blocks for stage 4.*lower the model's global_blocks"):
        merba(checkpoint, global_blocks=2)


def test_models_without_a_mapping_say_so(checkpoint):
    with pytest.raises(ValueError, match="takes no pretrained file"):
        create_model("ststnet", 3, pretrained=checkpoint)
    experiment = {"model": {"name": "ststnet", "pretrained": str(checkpoint)}, "stopping": "none"}
    with pytest.raises(MerbaError, match="ststnet takes no pretrained file"):
        check_experiment(experiment, 3)  # before any training
