"""What a model is made of and what it costs: the paper's Table I for any model, and Table VII's costs.

FLOPs are counted as papers on vision models count them: one for each multiply-accumulate of the convolutions, matrix
products, attention and scans; norms and activations are left out.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from merba.models import create_model
from merba.models.fitted import FittedModel
from merba.models.merba import LGFI, LocalExtractor, MERba
from merba.scan import BACKENDS

COLUMNS = ["block", "depth", "window", "input", "output", "parameters", "flops"]


def architecture(model: nn.Module, input_shape: Sequence[int]) -> pd.DataFrame:
    """Table I of a model for one input of shape (C, H, W): columns COLUMNS, one row per block, the last one the total.

    depth is the number of modules in the row; window the side of its windows, <NA> if it works on the whole map;
    input and output are "channels×height×width". MERba is listed by stages and kinds of block, other models by module; for
    a model that takes a view's tokens, the encoder that makes them is listed too. Fitted methods have no parameters, and
    their cost depends on the clips: their FLOPs are <NA>.
    """
    if hasattr(model, "uncached"):
        with torch.device("meta"):
            model = model.uncached()
        input_shape = model.input_shape
    if isinstance(model, FittedModel):
        about = [1, None, _size(tuple(input_shape), None), str(model.num_classes), 0, None]
        return _table([[type(model).__name__, *about], ["total", *about]])
    names = {module: f"{type(model).__name__}.{name}".rstrip(".") for name, module in model.named_modules()}
    shapes, flops = _trace(model, input_shape)
    rows = []
    groups = _merba_groups(model) if isinstance(model, MERba) else _plain_groups(model, shapes)
    for block, window, size, modules in groups:
        input_size, output_size = shapes[modules[0]][0], shapes[modules[-1]][1]
        parameters = sum(p.numel() for module in modules for p in module.parameters())
        cost = sum(flops.get(names[module], 0) for module in modules)
        rows.append([block, len(modules), window, _size(input_size, size), _size(output_size, size), parameters, cost])
    parameters = sum(p.numel() for p in model.parameters())
    depth, last = sum(row[1] for row in rows), rows[-1][4]
    rows.append(["total", depth, None, _size(tuple(input_shape), None), last, parameters, flops["Global"]])
    return _table(rows)


def _table(rows: Sequence[Sequence]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"window": "Int64", "flops": "Int64"})


def direction_costs(
    direction_sets: Mapping[str, Sequence[str] | str], name: str = "merba_base", num_classes: int = 7, **overrides
) -> pd.DataFrame:
    """Parameters and FLOPs of a MERba size with each of the named direction sets (for Table VII).

    Columns: set, directions, parameters, flops.
    """
    rows = []
    for label, directions in direction_sets.items():
        with torch.device("meta"):  # no memory, no time for random weights
            model = create_model(name, num_classes, directions=directions, **overrides)
        total = architecture(model, model.input_shape).iloc[-1]
        listed = directions if isinstance(directions, str) else " ".join(directions)
        rows.append([label, listed, total["parameters"], total["flops"]])
    return pd.DataFrame(rows, columns=["set", "directions", "parameters", "flops"])


# A row: name, window, size of the map where modules pass tokens, modules in the order in which they run.
Group = tuple[str, int | None, tuple[int, int] | None, list[nn.Module]]


def _merba_groups(model: MERba) -> list[Group]:
    groups: list[Group] = [
        ("stem", None, None, [model.stem]),
        ("stage 1: convolution", None, None, list(model.stage1)),
    ]
    for stage in (2, 3, 4):
        lgfi: LGFI = getattr(model, f"stage{stage}")
        local = [block for block in lgfi.blocks if isinstance(block.mixer, LocalExtractor)]
        attention = [block for block in lgfi.blocks if not isinstance(block.mixer, LocalExtractor)]
        groups += [
            (f"stage {stage}: downsampling", None, None, [lgfi.downsample]),
            (f"stage {stage}: local extractor", lgfi.extractor_window, lgfi.size, local),
            (f"stage {stage}: self-attention", lgfi.attention_window, lgfi.size, attention),
        ]
    return [*groups, ("norm", None, None, [model.norm]), ("head", None, None, [model.head])]


def _plain_groups(model: nn.Module, ran: Container[nn.Module]) -> list[Group]:
    """The outermost modules that ran (containers may only hold them); the model itself if none did."""

    def walk(name: str, module: nn.Module) -> list[Group]:
        if module in ran:
            return [(name, None, None, [module])]
        return [group for inner, part in module.named_children() for group in walk(f"{name}.{inner}", part)]

    groups = [group for name, module in model.named_children() for group in walk(name, module)]
    return groups or [(type(model).__name__, None, None, [model])]


def _size(shape: tuple[int, ...], size: tuple[int, int] | None) -> str:
    if size is not None:  # tokens (L, C)
        shape = (shape[1], *size)
    return "×".join(map(str, shape))


def _trace(model: nn.Module, input_shape: Sequence[int]) -> tuple[dict[nn.Module, tuple], dict[str, int]]:
    """Each module's shapes of input and output without the batch, and multiply-accumulates by the module's full name."""
    shapes = {}

    def note(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        output = output[0] if isinstance(module, nn.LSTM) else output
        output = output if isinstance(output, Tensor) else torch.cat(output, 1)
        shapes[module] = (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    training = model.training
    counter = FlopCounterMode(display=False, depth=None, custom_mapping=_scan_formulas())
    try:
        with torch.no_grad(), counter:  # on tensors without values
            state = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
            state |= {name: tensor.to("meta") for name, tensor in model.named_buffers()}
            functional_call(model.eval(), state, torch.empty(1, *input_shape, device="meta"))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return shapes, {name: sum(costs.values()) // 2 for name, costs in counter.get_flop_counts().items()}


def _scan_formulas() -> dict:
    """FLOPs of the operators that PyTorch's counter doesn't know; like it, two per multiply-accumulate."""

    def conv(x: Sequence[int], weight: Sequence[int], *_, out_shape: Sequence[int], **__) -> int:
        return 2 * 3 * math.prod(out_shape)

    def scan(u: Sequence[int], delta: Sequence[int], A: Sequence[int], *_, **__) -> int:
        # Per token, channel and state: Δ A, decay · h, Δu · B and C · h; per token and channel: Δ u and D u.
        return 2 * math.prod(u) * (4 * A[-1] + 2)

    def attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_, **__) -> int:
        return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])

    operators = torch.ops.merba
    formulas = {getattr(operators, f"window_conv_{name}"): conv for name in BACKENDS}
    formulas |= {getattr(operators, f"window_scan_{name}"): scan for name in BACKENDS}
    return {**formulas, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
