"""Checkpoints of untrained models."""

from dataclasses import replace

import torch

from merba.config import complete
from merba.models import create_model
from merba.preprocessing.packs import FlowFormat
from merba.training.checkpoint import Checkpoint, Member

CONFIG = complete(
    {
        "data": "demo",
        "demo": {},
        "datasets": {"d": {"adapter": "clips"}},
        "experiments": {"e": {"method": "E", "model": {"name": "merba_nano"}}},
    }
)
CLASSES = ["negative", "positive", "surprise"]


def member(seed=0, left_out=("samm", "006"), classes=3):
    torch.manual_seed(seed)
    weights = create_model("merba_nano", classes).state_dict()
    return Member(weights, [0.1 * seed, -0.2], [1.5, 2.0], left_out)


def checkpoint(*members, **changes):
    made = Checkpoint(
        members or (member(),),
        {"name": "merba_nano"},
        CLASSES,
        FlowFormat(("u", "v"), "px"),
        "demo",
        "loso",
        {"samm": 3},
        **{stage: CONFIG[stage] for stage in ("faces", "apex", "flow")},
    )
    return replace(made, **changes)
