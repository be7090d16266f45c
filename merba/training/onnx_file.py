"""A checkpoint's network as an ONNX file, for programs without PyTorch."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch

from merba.errors import MerbaError
from merba.files import atomic
from merba.models import MODELS, model_name
from merba.scan import closed_form
from merba.training.checkpoint import Checkpoint

FAMILIES = ("merba", "mambavision", "ststnet", "htnet")
"""The modules of `merba.models` with networks that have been compared with their ONNX files."""
OPSET = 17
LARGEST = 2**31
"""Bytes; a single ONNX file can't be larger."""
OUTSIDE = (
    "This file holds one network: float32 input `flow` (clips, channels, height, width), output `logits` (clips, classes); the "
    "classes, in order, are in `merba`. It does not make flow into images (`image`), resize or decode it (`decode`), crop "
    "HTNet's regions (`arrange`), normalise ((flow - mean) / std, both in `members`), average with the mirror image "
    "(`mirror_average`), join an ensemble, or recognise a still face."
)
"""What the caller has to do; this text is in the file's metadata."""


def write_onnx(path: Path, checkpoint: Checkpoint) -> None:
    """Write the network of a checkpoint with one member, in evaluation mode, as an ONNX file for any number of clips.

    The file's metadata has the checkpoint's description, as JSON (`merba`), and what is left to the caller (`outside`). Raises
    MerbaError for an ensemble, the head dgcm, more than LARGEST bytes, or another model than those of FAMILIES.
    """
    _check(checkpoint)
    import onnx  # of the extra `onnx`

    model = checkpoint.build(checkpoint.members[0])
    flow, buffer = torch.zeros(2, *checkpoint.input_shape), io.BytesIO()
    with closed_form.instead_of_kernels(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shapes that are constants, as they are here, and about the newer exporter
        torch.onnx.export(
            model,
            (flow,),
            buffer,
            dynamo=False,  # the newer one needs onnxscript
            opset_version=OPSET,
            input_names=["flow"],
            output_names=["logits"],
            dynamic_axes={"flow": {0: "clips"}, "logits": {0: "clips"}},
        )
    made = onnx.load_model_from_string(buffer.getvalue())
    made.doc_string = OUTSIDE
    onnx.helper.set_model_props(made, {"merba": json.dumps(checkpoint.description), "outside": OUTSIDE})
    onnx.checker.check_model(made)
    with atomic(path) as draft:
        onnx.save_model(made, draft)


def _check(checkpoint: Checkpoint) -> None:
    name = model_name(checkpoint.model)
    known = [model for model, (family, _) in MODELS.items() if family in FAMILIES]
    if name not in known:
        raise MerbaError(f"{name} can't be written as an ONNX file; these can: {', '.join(known)}")
    if len(checkpoint.members) > 1:
        raise MerbaError(
            f"the checkpoint is an ensemble of {len(checkpoint.members)} models, but an ONNX file holds one: export the "
            "model.safetensors of each fold, or make one model with `merba export --retrain`"
        )
    if (size := sum(tensor.nbytes for tensor in checkpoint.members[0].weights.values())) >= LARGEST:
        raise MerbaError(f"{name} has {size / 1e9:.1f} GB of weights, but an ONNX file holds less than 2.1; use a smaller model")
    if checkpoint.model.get("head", "linear") != "linear":
        raise MerbaError(
            f"the head {checkpoint.model['head']} has two outputs, and its rule for the class is not part of an ONNX file; only "
            "models with a linear head can be written"
        )
