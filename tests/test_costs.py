"""Estimated costs of trainings, against the models themselves and measured trainings."""

import pytest

from merba.costs import PROGRAM_MB, SMALL, keeps_weights, network
from merba.models import MODELS, check_model
from merba.models.fitted import FittedModel
from merba.models.summary import architecture

CLASSES = 5
OVERRIDES = [
    {"name": "merba_nano", "image_size": 28, "stem_stride": 1, "window": 4},
    {"name": "merba_nano", "image_size": [60, 44], "mixer": "per_direction", "directions": "hr vr"},
    {"name": "merba_tiny", "dim": 24, "depths": [2, 1, 3, 1], "layer_scale": 1e-5, "mlp_ratio": 2.5, "in_channels": 3},
    {"name": "merba_small", "state": 4, "global_blocks": 1, "extractor": "global", "stem_dim": 16},
    {"name": "mambavision_nano", "image_size": 28, "windows": [7, 4], "in_channels": 2},
    {"name": "mambavision_base", "dim": 64, "depths": [1, 2, 5, 4], "layer_scale": None},
    {"name": "htnet", "dim": 64, "depths": [2, 2, 2], "in_channels": 2},
    {"name": "htnet", "image_size": 56, "heads": 4, "mlp_ratio": 2},
    {"name": "ststnet", "in_channels": 2},
    {"name": "slstt", "encoder": "train", "aggregator": "mean"},
    {"name": "meplan", "image_size": 60, "length": 5, "blocks": 3, "widths": [8, 12, 20, 28]},
    {"name": "mfdan", "image_size": 96, "width": 64, "depth": 8, "heads": 2},
    {"name": "mersiamc3d", "length": 12, "image_size": 40, "width": 8, "features": 24},
]


@pytest.mark.parametrize("model", [*({"name": name} for name in MODELS), *OVERRIDES], ids=str)
def test_parameters_are_the_models(model):
    made = check_model(model, CLASSES)
    parameters = 0 if isinstance(made, FittedModel) else sum(p.numel() for p in made.parameters())
    assert network(model, CLASSES).parameters == parameters


def test_dgcm_has_its_own_heads():
    model = {"name": "merba_nano", "head": "dgcm"}
    assert network(model, 7).parameters == sum(p.numel() for p in check_model(model, 7).parameters())


@pytest.mark.parametrize(
    "model",
    [
        *({"name": name} for name in ("merba_base", "htnet", "featref", "slstt_small", "meplan", "meplan_small")),
        *({"name": name} for name in ("mfdan", "mfdan_small", "mersiamc3d", "mersiamc3d_small")),
        *OVERRIDES[:1],
        *OVERRIDES[4:5],
        *OVERRIDES[-3:-2],
    ],
    ids=str,
)
def test_multiply_accumulates_are_near_those_that_are_counted(model):
    made = check_model(model, 3)
    counted = int(architecture(made, made.input_shape)["flops"].iloc[-1])
    assert network(model, 3).operations == pytest.approx(counted, rel=0.35)


# CPU seconds of a fold of config/public_flow.yaml on one core at 2.8 GHz, and MERba-nano's at 56 px (bench/results/train.json).
@pytest.mark.parametrize(
    ("model", "epochs", "measured"),
    [
        (OVERRIDES[0], 30, 61),
        ({"name": "merba_nano", "image_size": 28, "stem_stride": 2}, 30, 22),
        (OVERRIDES[4], 30, 43),
        (OVERRIDES[6] | {"in_channels": 3}, 30, 17),
        ({"name": "featref"}, 60, 63),
        ({"name": "ststnet"}, 800, 26),
        ({"name": "merba_nano"}, 70, 719),
    ],
    ids=str,
)
def test_estimated_times_are_within_a_factor_of_two_and_a_half(model, epochs, measured):
    estimated = network(model, 3).seconds(435, epochs, on_gpu=False)
    assert 1 / 2.5 < estimated / measured < 2.5


def test_the_memory_of_a_step_is_near_what_was_measured():
    # Peaks with batches of 128 and 8; the program itself is in them.
    for name, batch, measured in (("merba_nano", 128, 3500), ("merba_base", 8, 2967)):
        assert PROGRAM_MB + network({"name": name}, 3).step_memory_mb(batch) == pytest.approx(measured, rel=0.35)


def test_a_model_of_somebody_elses_has_no_known_cost():
    assert network({"name": "unheard_of"}, 3) is None
    assert network({"file": "my_net.py", "class": "MyNet"}, 3) is None


@pytest.mark.parametrize(
    ("wanted", "models", "kept"),
    [
        (None, ["merba_nano", "ststnet", "kernel"], True),
        (None, ["merba_nano", "merba_base"], False),
        (None, ["merba_nano", "unheard_of"], False),
        (True, ["merba_base"], True),
        (False, ["merba_nano"], False),
    ],
)
def test_weights_are_kept_where_all_models_are_small_unless_the_configuration_says_otherwise(wanted, models, kept):
    experiments = {name: {"model": {"name": name}} for name in models}
    assert keeps_weights({"keep_weights": wanted, "experiments": experiments}) is kept
    assert network({"name": "merba_nano"}, 3).parameters < SMALL < network({"name": "merba_tiny"}, 3).parameters
