"""The models, by name: `create_model(name, num_classes, **overrides)`; others' models come from entry points, or from a file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from merba.errors import MerbaError
from merba.plugins import MODELS as OTHERS
from merba.plugins import class_of_file, loaded, plugins

# name → (module in this folder, class); the module's SIZES[name] are the arguments of that size. Modules are imported only
# when they are needed: a training job loads one of them.
MODELS: dict[str, tuple[str, str]] = {
    "merba_base": ("merba", "MERba"),
    "merba_small": ("merba", "MERba"),
    "merba_tiny": ("merba", "MERba"),
    "merba_nano": ("merba", "MERba"),
    "mambavision_tiny": ("mambavision", "MambaVision"),
    "mambavision_tiny2": ("mambavision", "MambaVision"),
    "mambavision_small": ("mambavision", "MambaVision"),
    "mambavision_base": ("mambavision", "MambaVision"),
    "mambavision_large": ("mambavision", "MambaVision"),
    "mambavision_large2": ("mambavision", "MambaVision"),
    "mambavision_large3": ("mambavision", "MambaVision"),
    "mambavision_nano": ("mambavision", "MambaVision"),
    "htnet": ("htnet", "HTNet"),
    "featref": ("featref", "FeatRef"),
    "slstt": ("slstt", "SLSTT"),
    "slstt_small": ("slstt", "SLSTT"),
    "slstt_demo": ("slstt", "SLSTT"),
    "meplan": ("meplan", "MEPLAN"),
    "meplan_small": ("meplan", "MEPLAN"),
    "mfdan": ("mfdan", "MFDAN"),
    "mfdan_small": ("mfdan", "MFDAN"),
    "mersiamc3d": ("mersiamc3d", "MERSiamC3D"),
    "mersiamc3d_small": ("mersiamc3d", "MERSiamC3D"),
    "ststnet": ("ststnet", "STSTNet"),
    "biwoof": ("biwoof", "BiWOOF"),
    "lbp_top": ("lbp_top", "LBPTOP"),
    "kernel": ("kernel", "KernelRidge"),
    "lda": ("lda", "LDA"),
}
NOT_PRETRAINED = "{} takes no pretrained file: leave `pretrained` out"


def list_models() -> list[str]:
    """The names that `create_model` knows: the package's own, then those of other packages' entry points `merba.models`."""
    return [*MODELS, *(name for name in plugins(OTHERS) if name not in MODELS)]


def create_model(name: str | None, num_classes: int, *, pretrained: str | Path | None = None, **overrides: Any) -> nn.Module:
    """The model of that name; `overrides` replace single arguments of its size (see the class in its file).

    Without a name, `file` and `class` among the overrides say which class of which Python file it is; the file is run.
    Input float (B, C, H, W), or what a view keeps; output logits (B, num_classes), for DGCM a tuple (coarse (B, 4), fine
    (B, 4)). A model with a function `loss` may return what that function takes while it trains.
    `pretrained` is a file of weights: a MambaVision checkpoint for MERba and MambaVision (see `merba.models.pretrained`), for
    others what their own `load_pretrained` reads. An unknown name or argument, or sizes that don't fit each other, raise
    ValueError; a file that can't be used, MerbaError.
    """
    if name is None:
        if not {"file", "class"} <= overrides.keys():
            raise ValueError("the model has neither a `name`, nor `file` and `class`")
        path, class_name = Path(overrides.pop("file")), overrides.pop("class")
        name, model_class, size = class_name, class_of_file(path, class_name), {}
    else:
        model_class, size = _named(name)
    known = list(inspect.signature(model_class).parameters)[1:]
    for argument in overrides:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}; it has {', '.join(known)}")
    settings = {**size, **overrides}
    if pretrained is None:
        return model_class(num_classes, **settings)
    if hasattr(model_class, "load_pretrained"):
        model = model_class(num_classes, **settings)
        model.load_pretrained(pretrained)
        return model
    from merba.models.pretrained import default_layer_scale, load_pretrained, read_checkpoint

    if not takes_pretrained(name, model_class):
        raise ValueError(NOT_PRETRAINED.format(name))
    state = read_checkpoint(pretrained)
    if MODELS[name][0] == "merba":
        settings.setdefault("layer_scale", default_layer_scale(state))
    model = model_class(num_classes, **settings)
    load_pretrained(model, state, str(pretrained))
    return model


def takes_pretrained(name: str | None, model: nn.Module | type[nn.Module]) -> bool:
    """Whether the model of that name (or its class) can start from a `pretrained` file."""
    return hasattr(model, "load_pretrained") or MODELS.get(name, ("",))[0] in ("merba", "mambavision")


def _named(name: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a name, and its arguments in its module's SIZES; modules of other packages need not have SIZES."""
    if name in MODELS:
        file, class_name = MODELS[name]
        module = import_module(f"merba.models.{file}")
        return getattr(module, class_name), module.SIZES[name]
    if name in plugins(OTHERS):
        model_class = loaded(plugins(OTHERS)[name])
        return model_class, getattr(sys.modules[model_class.__module__], "SIZES", {}).get(name, {})
    raise ValueError(f"unknown model {name!r}; known: {', '.join(list_models())}")


def model_name(settings: Mapping[str, Any]) -> str:
    """The name of an experiment's `model` in messages: its registered name, or its class."""
    return settings.get("name") or settings["class"]


def check_model(settings: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The model of an experiment's `model`, a name or file and arguments, on the meta device: shapes without memory or values.

    A `pretrained` file is not read. Raises MerbaError if no model can be made from the settings.
    """
    arguments = {key: value for key, value in settings.items() if key != "pretrained"}
    try:
        with torch.device("meta"):
            return create_model(arguments.pop("name", None), num_classes, **arguments)
    except (ValueError, TypeError) as error:
        raise MerbaError(str(error)) from error


def check_experiment(experiment: Mapping[str, Any], num_classes: int) -> None:
    """Raise MerbaError if an experiment's `model` can't be made, doesn't fit its view, or can't stop by validation."""
    from merba.models.fitted import FittedModel

    model = check_model(experiment["model"], num_classes)
    name, shape = model_name(experiment["model"]), "×".join(map(str, model.input_shape))
    takes_view = len(model.input_shape) != 3
    if takes_view and "view" not in experiment:
        raise MerbaError(f"{name} takes inputs of {shape}, but flow has another shape: name its `view`, for example tim10")
    if not takes_view and "view" in experiment:
        raise MerbaError(f"{name} takes inputs of {shape}, but views have other shapes: remove `view`")
    if getattr(model, "needs_pretrained", False) and not experiment["model"].get("pretrained"):
        raise MerbaError(
            f"{name} has an encoder that is not trained: name its weights, `pretrained: FILE`, in its view if that keeps tokens, "
            "or in its `model`"
        )
    # A view's `pretrained` is copied here; a model that reads tokens need not start from it.
    of_view = experiment.get("view", {}).get("keep") == "tokens"
    settings = experiment["model"]
    if settings.get("pretrained") and not of_view and not takes_pretrained(settings.get("name"), model):
        raise MerbaError(NOT_PRETRAINED.format(name))
    if isinstance(model, FittedModel) and experiment["stopping"] != "none":
        raise MerbaError(
            f"{model_name(experiment['model'])} is fitted, not trained: it has no epoch at which a validation part could stop "
            "it; set `stopping: none` in its experiment"
        )
