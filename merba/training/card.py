"""The model card of a checkpoint: what it was trained on, how its inputs are made, and its error."""

from __future__ import annotations

from merba.models import model_name
from merba.training.checkpoint import Checkpoint

TEXT = """\
# {name}

A model of short facial movements: {model}, classes {classes}. Made by merba {version}.

- **Trained on** {trained_on}: {clips}.
- **Input**: {inputs}.
- **It names the category that annotators gave to such movements.** It does not read feelings or detect lies. Its
  probabilities are not calibrated. Never base a decision about a person on it.

## Measured error

{error}

## Licence

{licence}
"""
HOLDS_CLIPS = """\
**This file contains the flow of its training clips**, because the model predicts by comparing with them. Pass it on only if
the terms of the recordings allow that."""
HOLDS_NONE = "The file holds only weights. The terms under which you got the clips also apply to models trained on them."


def model_card(checkpoint: Checkpoint, name: str) -> str:
    """The card, in Markdown, of the checkpoint called `name`, which was trained on all clips."""
    return TEXT.format(
        name=name,
        model=model_name(checkpoint.model),
        classes=", ".join(checkpoint.classes),
        version=checkpoint.version,
        trained_on=checkpoint.trained_on,
        clips=", ".join(f"{count} of {dataset}" for dataset, count in checkpoint.clips.items()),
        inputs=_inputs(checkpoint),
        error=_error(checkpoint),
        licence=HOLDS_CLIPS if checkpoint.holds_clips else HOLDS_NONE,
    )


def _inputs(checkpoint: Checkpoint) -> str:
    channels = ", ".join(checkpoint.form.channels[: checkpoint.input_shape[0]])
    if not (image := checkpoint.image):
        return f"{channels} of the optical flow from onset to apex, in px of the aligned face"
    points = ", ".join(f"({x:.3f}, {y:.3f})" for x, y in image.template)
    return (
        f"{channels} of the optical flow from onset to apex, as an image of {image.size}×{image.size} px (eye centres, nose tip "
        f"and mouth corners are at {points} of its side), resized by {image.resizing}, each channel of each clip scaled to "
        f"0..255 ({image.scaling})"
    )


def _error(checkpoint: Checkpoint) -> str:
    if checkpoint.error is None:
        return "Not known. Measure it with labelled clips of your own (`merba score`)."
    lines = [
        "This model was trained on every clip, so its own error can't be measured. The closest measurement is of models trained",
        "in the same way, each without one subject, and tested on that subject's clips:",
        "",
        "| clips | n | subjects | UF1 | UAR |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in checkpoint.error.items():
        lines.append(f"| {name} | {row['n']} | {row['subjects']} | {row['uf1']:.3f} | {row['uar']:.3f} |")
    return "\n".join([*lines, "", "The clips were recorded in laboratories. Expect a larger error on any other video."])
