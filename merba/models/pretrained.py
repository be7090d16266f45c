"""MambaVision checkpoint files: loaded by name into MambaVision, by the mapping below into MERba.

MERba from MambaVision (decided for base; the same rule serves the other sizes):

- stem, stage 1, final norm: as they are; downsampling: that of each level, one to one
- stage 2: keeps its initial values (MambaVision has convolution blocks there)
- stages 3 and 4: local block i takes mixer block i mod (number of mixer blocks), global block j attention block j, with
  their norms, MLPs and layer scales
- head: keeps its initial values

A stem for other input channels takes the average over the checkpoint's channels. Every tensor is logged.
"""

from __future__ import annotations

import argparse
import logging
import re
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor, nn

from merba.errors import MerbaError
from merba.models.merba import LocalExtractor, MERba

log = logging.getLogger(__name__)

State = dict[str, Tensor]
Offers = dict[str, tuple[str, str, Tensor]]  # the model's tensor → (the checkpoint's, how it was changed, value)
STEM = "patch_embed.conv_down.0.weight"


def read_tensors(path: str | Path) -> State:
    """The tensors of a file of weights by name.

    .safetensors, or a PyTorch file (read with weights_only) that holds them itself or under "state_dict" or "model".
    Raises MerbaError if the file is missing or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise MerbaError(f"pretrained: there is no file {path}; name a file of weights, or leave pretrained out")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its options with the weights
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # readers raise any kind of error for a file that is no checkpoint
        raise MerbaError(f"pretrained: {path} can't be read as a checkpoint of weights only: {problem}") from problem
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}


def read_checkpoint(path: str | Path) -> State:
    """Tensors of a checkpoint file (see `read_tensors`) by official MambaVision name; prefixes of wrappers are removed.

    Raises MerbaError if the file is missing, unreadable or not MambaVision's.
    """
    state = {re.sub(r"^((module|model|encoder)\.)+", "", name): tensor for name, tensor in read_tensors(path).items()}
    if STEM not in state:
        raise MerbaError(f"pretrained: {path} holds no MambaVision weights (there is no tensor {STEM})")
    return state


def default_layer_scale(state: State) -> float | None:
    """MERba's layer scale for these weights: MambaVision-B's 1e-5 if the checkpoint has one, else None."""
    return 1e-5 if any(name.endswith("gamma_1") for name in state) else None


def load_pretrained(model: nn.Module, state: State, name: str = "checkpoint") -> dict[str, str]:
    """Initialise MERba or MambaVision from a checkpoint's tensors, and log what happens to each of the model's.

    Returns, for each tensor of the model, "left", "taken from <source>" or "adapted from <source>: <how>". `name` is for
    messages. Raises MerbaError for a tensor of another size, and for blocks that only the model or only the file has.
    """
    target = model.state_dict()
    if isinstance(model, MERba):
        offers = _for_merba(model, state, name)
    else:
        offers = {k: (k, "", v) for k, v in state.items()}
        _check_names(set(target), set(state), name)
    _average_channels(offers, "stem.0.weight" if isinstance(model, MERba) else STEM, target)
    outcome = {}
    for tensor_name, tensor in target.items():
        source, how, value = offers.get(tensor_name, ("", "", None))
        if value is None or (tensor_name.startswith("head.") and value.shape != tensor.shape):
            outcome[tensor_name] = "left"
        elif value.shape != tensor.shape:
            raise MerbaError(
                f"pretrained: {source} of {name} has shape {tuple(value.shape)}, but {tensor_name} has "
                f"{tuple(tensor.shape)}: the file belongs to a model of another size; name one that fits"
            )
        else:
            outcome[tensor_name] = f"adapted from {source}: {how}" if how else f"taken from {source}"
            tensor.copy_(value)
        log.info("pretrained: %s: %s", tensor_name, outcome[tensor_name])
    used = {part for source, _, _ in offers.values() for part in source.split(" + ")}
    for unused in sorted(state.keys() - used):
        log.info("pretrained: %s of %s is not used", unused, name)
    return outcome


def _check_names(model: set[str], file: set[str], name: str) -> None:
    """Raise MerbaError if MambaVision and the file have different tensors, apart from the head and batch norm's counters."""
    for names, what in ((model - file, "lacks"), (file - model, "has, unlike the model,")):
        names = sorted(name for name in names if not name.startswith("head.") and not name.endswith("num_batches_tracked"))
        if names:
            raise MerbaError(
                f"pretrained: {name} {what} {names[0]} and {len(names) - 1} more tensors: it belongs to a MambaVision of "
                "another size; name the model of that size"
            )


def _average_channels(offers: Offers, stem: str, target: State) -> None:
    source, _, value = offers[stem]
    channels = target[stem].shape[1]
    if value.shape[1] != channels:
        average = value.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        offers[stem] = (source, "averaged over the input channels", average)


def _for_merba(model: MERba, state: State, name: str) -> Offers:
    """The checkpoint's values for MERba's tensors."""
    offers: Offers = {}

    def offer(target: str, source: str) -> None:
        for name, tensor in state.items():
            if name.startswith(source):
                offers[target + name.removeprefix(source)] = (name, "", tensor)

    offer("stem.", "patch_embed.conv_down.")
    offer("stage1.", "levels.0.blocks.")
    offer("norm.", "norm.")
    for stage in (2, 3, 4):
        offer(f"stage{stage}.downsample.", f"levels.{stage - 2}.downsample.reduction.0.")
    for stage in (3, 4):
        level = f"levels.{stage - 1}.blocks."
        local = cycle(_blocks_with(state, level, "mixer.in_proj.weight"))
        attention = iter(_blocks_with(state, level, "mixer.qkv.weight"))
        for i, block in enumerate(getattr(model, f"stage{stage}").blocks):
            extractor = isinstance(block.mixer, LocalExtractor)
            source = next(local if extractor else attention, None)
            if source is None:
                raise MerbaError(
                    f"pretrained: level {stage} of {name} has too few {'mixer' if extractor else 'attention'} blocks for "
                    f"stage {stage}; name a larger checkpoint, or lower the model's {'depths' if extractor else 'global_blocks'}"
                )
            target = f"stage{stage}.blocks.{i}."
            offer(target, source)
            if extractor:
                sets = len(block.mixer.mixer.D)
                offers |= _for_extractor(state, target + "mixer.", source + "mixer.", sets)
    return offers


def _blocks_with(state: State, level: str, tensor: str) -> list[str]:
    """Prefixes of a level's blocks that have this tensor, in the network's order."""
    matches = (re.fullmatch(rf"{re.escape(level)}(\d+)\.{re.escape(tensor)}", name) for name in state)
    return [f"{level}{i}." for i in sorted(int(match[1]) for match in matches if match)]


def _for_extractor(state: State, target: str, source: str, sets: int) -> Offers:
    """A MambaVision mixer as a local extractor: its last linear layer moved out, the rest for each set of weights."""
    x, z = source + "conv1d_x.weight", source + "conv1d_z.weight"
    bias = source + "dt_proj.bias"
    offers = {
        "in_proj": (source + "in_proj.weight", "", state[source + "in_proj.weight"]),
        "conv": (f"{x} + {z}", "joined", torch.cat([state[x], state[z]])[:, 0]),
        "x_proj": (source + "x_proj.weight", "", state[source + "x_proj.weight"]),
        "dt_proj": (source + "dt_proj.weight", "", state[source + "dt_proj.weight"]),
        "dt_bias": (bias, "doubled, as the official network adds it twice", 2 * state[bias]),
        "A_log": (source + "A_log", "", state[source + "A_log"]),
        "D": (source + "D", "", state[source + "D"]),
    }
    each = {f"{target}mixer.{k}": (s, how, v.expand(sets, *v.shape)) for k, (s, how, v) in offers.items()}
    out_proj = source + "out_proj.weight"
    return {**each, f"{target}out_proj.weight": (out_proj, "", state[out_proj])}
