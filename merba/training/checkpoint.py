"""Checkpoints: one safetensors file with the weights of a model, or of an ensemble, and all that using them needs.

The tensors are those of the state dict; an ensemble's names have the member's number before them (`0.`, `1.`, …).
Everything else is one JSON text, under `merba` in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merba
from merba.config.validation import explain, faults, schema
from merba.errors import MerbaError
from merba.files import atomic
from merba.models import MODELS, create_model, model_name
from merba.models.fitted import FittedModel
from merba.preprocessing.packs import RELEASED, FlowFormat, ImageForm

FORMAT = 2
"""Version of the metadata; a file with another one is refused."""
STAGES = ("faces", "apex", "flow")
AS_THEY_ARE = ("model", "classes", "data", "protocol", "clips", "decode", "mirror_average", "error", "version", *STAGES)
UNITS = ("px", "image")
DECODES = ("raw", "signed")
KINDS = {"demo": "rendered clips", **dict.fromkeys(("public_flow", "3db", "dfme"), "real micro-expressions")}
"""What kind of clips a configuration's `data` has; for other data they are called clips."""


@dataclass(frozen=True, eq=False)
class Member:
    """One trained model: its state dict, mean and deviation of its training clips' channels, and who was left out.

    mean and std are in the flow's unit, one value per channel of the model's input; 0 and 1 if training didn't normalise.
    left_out is (dataset, subject), None if no subject was left out.
    """

    weights: Mapping[str, Tensor]
    mean: Sequence[float]
    std: Sequence[float]
    left_out: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Models that differ only in their weights, and how their inputs are made.

    model is `name` and arguments as in an experiment's `model`, without `pretrained` (see `describe_model`); classes
    are in the order of the outputs; form is the flow that training read; data and protocol are the configuration's, or the
    protocol EVERYBODY, which leaves no subject out. clips are the numbers of its clips by dataset.
    faces, apex and flow are sections of the configuration: how clips become flow in px of the aligned face. image says how flow
    becomes the images that training read, None if it read flow. decode is the experiment's,
    mirror_average the training setting of that name: whether a clip's outputs are averaged with those of its mirror image.
    error has the scores of such models by leave-one-subject-out (see `merba.evaluation.scoring.scores_by_dataset`), None if
    unknown. view has the settings of the view that training read instead of flow, if any.
    """

    members: Sequence[Member]
    model: Mapping[str, Any]
    classes: Sequence[str]
    form: FlowFormat
    data: str
    protocol: str
    clips: Mapping[str, int]
    faces: Mapping[str, Any]
    apex: Mapping[str, Any]
    flow: Mapping[str, Any]
    image: ImageForm | None = None
    decode: str = "raw"
    mirror_average: bool = False
    error: Mapping[str, Mapping[str, float]] | None = None
    view: Mapping[str, Any] | None = None
    version: str = merba.__version__

    @property
    def description(self) -> dict[str, Any]:
        """Everything but the tensors, as values for JSON; without folders of the machine that trained."""
        return {
            "format": FORMAT,
            "version": self.version,
            "model": _without_folder(self.model, "file"),
            "classes": list(self.classes),
            "channels": list(self.form.channels),
            "unit": self.form.unit,
            "image": self.image and asdict(self.image),
            "data": self.data,
            "protocol": self.protocol,
            "clips": dict(self.clips),
            "decode": self.decode,
            "mirror_average": self.mirror_average,
            "error": self.error,
            **({"view": _without_folder(self.view, "pretrained")} if self.view else {}),
            **{stage: getattr(self, stage) for stage in STAGES},
            "faces": {key: value for key, value in self.faces.items() if key != "weights"},
            "members": [
                {"mean": list(member.mean), "std": list(member.std), "left_out": member.left_out} for member in self.members
            ],
        }

    @property
    def trained_on(self) -> str:
        """In words, such as "442 real micro-expressions (public flow)"; for a single fold's model, also who was left out."""
        left_out = self.members[0].left_out if len(self.members) == 1 else None
        without = f", without {' '.join(left_out)}" if left_out else ""
        return f"{sum(self.clips.values())} {KINDS.get(self.data, 'clips')} ({self.data.replace('_', ' ')}){without}"

    @property
    def measured(self) -> str:
        """The error in words; the error of the demo means nothing."""
        if self.data == "demo":
            return "its predictions for real faces mean nothing"
        if self.error is None:
            return "its error is not known"
        scores = (f"{name} {row['uf1']:.3f} / {row['uar']:.3f}" for name, row in self.error.items())
        return f"leave-one-subject-out UF1 / UAR: {', '.join(scores)}"

    def build(self, member: Member) -> nn.Module:
        """The model of one member, in evaluation mode on the CPU."""
        model = self._blank()
        if isinstance(model, FittedModel):
            model.make_room(member.weights)
        model.load_state_dict(member.weights)
        return model.eval()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the model's input: (C, H, W) for flow, (T, C, H, W) or (T, width) for a view."""
        with torch.device("meta"):  # shapes only: no memory, no time for random weights
            return self._blank().input_shape

    @property
    def holds_clips(self) -> bool:
        """Whether the training clips can be read from the tensors."""
        with torch.device("meta"):
            return getattr(self._blank(), "holds_clips", False)

    def _blank(self) -> nn.Module:
        arguments = {key: value for key, value in self.model.items() if key != "name"}
        return create_model(self.model.get("name"), len(self.classes), **arguments)


def _without_folder(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The settings, with only the name of the file that `key` names, if any."""
    return dict(settings) | ({key: Path(settings[key]).name} if settings.get(key) else {})


def describe_model(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`model` of a checkpoint from an experiment's: without `pretrained`, but with the layer scale that it brought."""
    described = {key: value for key, value in settings.items() if key != "pretrained"}
    if settings.get("pretrained") and MODELS.get(settings.get("name", ""), ("",))[0] == "merba":
        from merba.models.pretrained import default_layer_scale

        described.setdefault("layer_scale", default_layer_scale(weights))
    return described


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a failed write leaves no file. Raises MerbaError if it could not be loaded again."""
    _check_fit(path, checkpoint)
    alone = len(checkpoint.members) == 1
    tensors = {
        name if alone else f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, member in enumerate(checkpoint.members)
        for name, tensor in member.weights.items()
    }
    with atomic(path) as draft:
        save_file(tensors, draft, {"format": "pt", "merba": json.dumps(checkpoint.description)})


def load_checkpoint(path: Path, model_file: Path | None = None) -> Checkpoint:
    """Read a checkpoint; its tensors stay in the file until they are used.

    If the model is a class in a user's Python file, this file is needed as `model_file` and is run; a checkpoint itself never
    runs code. Raises MerbaError if the checkpoint is missing, no safetensors file, not merba's, of another format, or
    inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise MerbaError(
            f"{path}: there is no such file; give a checkpoint: the model.safetensors of a trained fold, or what `merba export`, "
            "`merba fit` or `make model` made"
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("merba")
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        what = f"a {path.suffix} file, not" if path.suffix in (".pth", ".pt", ".tar", ".ckpt") else "cut short, damaged or not"
        raise MerbaError(
            f"{path}: {what} safetensors, as checkpoints of merba are ({error}); copy it again, or give a model.safetensors that "
            "merba wrote. MambaVision's weights are for the model's setting `pretrained`"
        ) from error
    if text is None:
        raise MerbaError(f"{path}: a safetensors file without merba's metadata; give a model.safetensors that merba wrote")
    checkpoint = _with_file(path, _read(path, text, tensors), model_file)
    _check_settings(path, checkpoint)
    _check_fit(path, checkpoint)
    return checkpoint


def _with_file(path: Path, checkpoint: Checkpoint, model_file: Path | None) -> Checkpoint:
    if "file" not in checkpoint.model:
        return checkpoint
    if model_file is None:
        raise MerbaError(
            f"{path}: its model is the class {checkpoint.model['class']} in the file {checkpoint.model['file']}, but a "
            "checkpoint never runs a file by itself: if you trust this file, give it with --model-file"
        )
    return replace(checkpoint, model={**checkpoint.model, "file": str(model_file)})


def join_checkpoints(checkpoints: Mapping[Path, Checkpoint]) -> Checkpoint:
    """An ensemble of all members of checkpoints, given by their files' names.

    Raises MerbaError if they differ in anything but weights, normalisation and who was left out.
    """
    (first_path, first), *others = checkpoints.items()
    for path, other in others:
        for key, value in first.description.items():
            if key != "members" and other.description[key] != value:
                raise MerbaError(
                    f"{path}: {key} is {other.description[key]}, but {value} in {first_path}; an ensemble's members "
                    "may differ only in weights, normalisation and the subject left out: train them with one configuration"
                )
    return replace(first, members=[member for checkpoint in checkpoints.values() for member in checkpoint.members])


def _read(path: Path, text: str, tensors: Mapping[str, Tensor]) -> Checkpoint:
    damaged = "the metadata is damaged; copy the file again, or train again"
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            raise MerbaError(
                f"{path}: format {about['format']}, written by merba {about['version']}; this merba ({merba.__version__}) "
                f"reads {FORMAT}: {'update it' if about['format'] > FORMAT else 'train or export again'}"
            )
        count = len(about["members"])
        if not count:
            raise ValueError("it has no members")
        members = [
            Member(
                _of_member(tensors, number) if count > 1 else tensors,
                member["mean"],
                member["std"],
                member["left_out"] and tuple(member["left_out"]),
            )
            for number, member in enumerate(about["members"])
        ]
        form = FlowFormat(tuple(about["channels"]), about["unit"])
        image = about["image"] and ImageForm(**about["image"] | {"template": tuple(map(tuple, about["image"]["template"]))})
        rest = {key: about[key] for key in AS_THEY_ARE}
        return Checkpoint(members, form=form, image=image, view=about.get("view"), **rest)
    except KeyError as error:
        raise MerbaError(f"{path}: {error} is missing: {damaged}") from error
    except (TypeError, ValueError) as error:
        raise MerbaError(f"{path}: {error}: {damaged}") from error


def _of_member(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_settings(path: Path, checkpoint: Checkpoint) -> None:
    """Raise MerbaError if this version of merba doesn't know a file's settings."""
    known = schema("config")["properties"]
    if not checkpoint.view:
        channels = known["flow"]["properties"]["channels"]["items"]["enum"]
        for channel in checkpoint.form.channels:
            if channel not in channels:
                raise MerbaError(f"{path}: unknown flow channel {channel!r}; this merba makes {', '.join(channels)}: update it")
        if checkpoint.form.unit not in UNITS:
            raise MerbaError(f"{path}: unknown unit of flow {checkpoint.form.unit!r}; known: {', '.join(UNITS)}: update merba")
    if checkpoint.decode not in DECODES:
        raise MerbaError(f"{path}: unknown decode {checkpoint.decode!r}; known: {', '.join(DECODES)}: update merba")
    for stage in STAGES:
        for error in faults(known[stage], getattr(checkpoint, stage)):
            raise MerbaError(f"{path}: settings of {stage}: {explain(error)}; use the merba that wrote it, or a later one")
    if (checkpoint.form.unit == "image") != (checkpoint.image is not None):
        raise MerbaError(f"{path}: the unit of its flow and its settings of flow images don't fit each other: train again")
    if (image := checkpoint.image) and (image.resizing, image.scaling) != (RELEASED.resizing, RELEASED.scaling):
        raise MerbaError(f"{path}: unknown flow images, {image.resizing} and {image.scaling}: update merba")


def _check_fit(path: Path, checkpoint: Checkpoint) -> None:
    """Raise MerbaError if model, flow and weights of a checkpoint do not fit each other."""
    if "pretrained" in checkpoint.model:
        raise MerbaError(f"{path}: the model names a `pretrained` file, which its weights replace; see `describe_model`")
    try:
        with torch.device("meta"):
            blank = checkpoint._blank()
    except (KeyError, TypeError, ValueError) as error:
        raise MerbaError(f"{path}: {error}; use the merba that wrote it ({checkpoint.version}), or a later one") from error
    wanted = len(checkpoint.form.channels) if checkpoint.view else blank.input_shape[0]
    if wanted > len(checkpoint.form.channels):
        raise MerbaError(
            f"{path}: the model needs {wanted} input channels, the flow has {len(checkpoint.form.channels)} "
            f"({', '.join(checkpoint.form.channels)}): train again"
        )
    for number, member in enumerate(checkpoint.members):
        if len(member.mean) != wanted or len(member.std) != wanted:
            raise MerbaError(
                f"{path}: member {number} has {len(member.mean)} means and {len(member.std)} deviations for "
                f"{wanted} channels: train again"
            )
        if isinstance(blank, FittedModel):
            blank.make_room(member.weights)
        shapes = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
        held = {name: tuple(tensor.shape) for name, tensor in member.weights.items()}
        if held != shapes:
            wrong = sorted(name for name in held.keys() | shapes.keys() if held.get(name) != shapes.get(name))
            name = wrong[0]
            raise MerbaError(
                f"{path}: {len(wrong)} tensors of member {number} don't fit {model_name(checkpoint.model)}: {name} is "
                f"{held.get(name, 'missing')}, the model has {shapes.get(name, 'none of that name')}; was the model "
                "changed since? Train again"
            )
