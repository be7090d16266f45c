"""The architecture table's numbers against formulas written out by hand."""

import pytest
import torch
from torch import nn

from merba import create_model
from merba.models import MODELS, check_model
from merba.models.summary import COLUMNS, architecture, direction_costs


@pytest.fixture(scope="module")
def nano():
    return architecture(create_model("merba_nano", 3), (2, 56, 56)).set_index("block")


def test_columns_and_total(nano):
    assert [nano.index.name, *nano.columns] == COLUMNS
    rows = nano.drop("total")
    assert nano.loc["total", "parameters"] == rows["parameters"].sum() == 890_179
    assert nano.loc["total", "flops"] == rows["flops"].sum()
    assert nano.loc["total", "depth"] == rows["depth"].sum()


def test_blocks_have_their_sizes_and_windows(nano):
    assert nano.loc["stem", ["input", "output"]].tolist() == ["2×56×56", "16×56×56"]
    assert nano.loc["stage 3: local extractor", ["depth", "window", "input"]].tolist() == [2, 7, "64×14×14"]
    assert nano.loc["stage 4: downsampling", ["input", "output"]].tolist() == ["64×14×14", "128×7×7"]
    assert nano.loc["stage 2: self-attention", "depth"] == 2
    assert nano["window"].isna()["stage 2: self-attention"]
    assert nano.loc["head", ["input", "output"]].tolist() == ["128", "3"]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_checked_without_its_memory(name):
    model = check_model({"name": name, "pretrained": "absent.pth"}, 3)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_flops_of_convolutions_attention_and_extractor(nano):
    assert nano.loc["stem", "flops"] == 56 * 56 * 9 * (2 * 8 + 8 * 16)
    tokens, d = 28 * 28, 32
    attention = tokens * (3 * d * d + d * d + 8 * d * d) + 2 * tokens * tokens * d
    assert nano.loc["stage 2: self-attention", "flops"] == 2 * attention
    inner, rank, n, k = d // 2, 2, 8, 4
    conv = k * 3 * d
    project = k * inner * (rank + 2 * n) + k * rank * inner
    scan = k * inner * (4 * n + 2)
    assert nano.loc["stage 2: local extractor", "flops"] == tokens * (d * d + conv + project + scan + d * d + 8 * d * d)


def test_base_has_about_94_million_parameters_and_15_billion_multiply_accumulates():
    total = architecture(create_model("merba_base", 7), (2, 224, 224)).iloc[-1]
    assert total["parameters"] == pytest.approx(94e6, rel=0.01)
    assert total["flops"] == pytest.approx(14.6e9, rel=0.01)


def test_any_model_can_be_listed():
    table = architecture(create_model("htnet", 3, dim=8, heads=1, depths=(1, 1, 1)), (3, 28, 28)).set_index("block")
    assert table.loc["to_patch_embedding.1", "flops"] == 16 * 147 * 8
    assert table.loc["total", ["input", "output"]].tolist() == ["3×28×28", "3"]
    plain = nn.Sequential(nn.Linear(4, 5))
    assert architecture(plain, (4,)).iloc[-1][["parameters", "flops"]].tolist() == [25, 20]


def test_what_is_fitted_has_no_parameters_and_no_cost_that_could_be_known():
    table = architecture(create_model("kernel", 3), (3, 28, 28)).set_index("block")
    assert table.index.tolist() == ["KernelRidge", "total"]
    assert (table["parameters"] == 0).all() and table["flops"].isna().all()
    assert table.loc["total", ["input", "output"]].tolist() == ["3×28×28", "3"]


def test_the_model_is_left_as_it_was():
    model = create_model("ststnet", 3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    architecture(model, model.input_shape)
    assert model.training and not model._forward_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_each_direction_costs_its_convolution_projections_and_scan():
    costs = direction_costs({"one": "hr", "two": ["hr", "vr"], "four": "merba"}, "merba_nano").set_index("set")
    assert costs["parameters"].nunique() == 1
    steps = costs["flops"].diff()
    assert steps["four"] == 2 * steps["two"] > 0
    assert costs.loc["two", "directions"] == "hr vr"
