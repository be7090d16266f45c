"""Predict the class of videos or folders of frames, with a trained checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merba.errors import MerbaError

if TYPE_CHECKING:
    import pandas as pd

    from merba.prediction.predict import Prediction
    from merba.training.checkpoint import Checkpoint

EXAMPLE = "merba predict clip.mp4 --out predictions"


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name the clips and what is known about them."""
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a video, a folder of frames, a folder of videos and frame folders, or a table of clips (CSV or XLSX)",
    )
    parser.add_argument("--onset", type=int, metavar="N", help="number of the onset frame, for one clip (default: the first)")
    parser.add_argument("--apex", type=int, metavar="M", help="number of the apex frame, for one clip (default: detected)")
    parser.add_argument("--fps", type=_rate, metavar="FPS", help="frames per second; overrides the video and the table")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clip_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="made by a fold, `merba export` or `merba fit` (default: models/public_flow.safetensors, made by `make model`)",
    )
    parser.add_argument("--model-file", type=Path, metavar="PY", help="the Python file of a model of your own; this file is run")
    parser.add_argument("--spot", action="store_true", help="search long videos for candidate intervals, and predict these")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write predictions.json, predictions.csv (for `merba score`) and a picture of each clip to this folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _rate(text: str) -> float:
    with suppress(ValueError):
        if 0 < (rate := float(text)) < math.inf:
            return rate
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames per second")


def run(options: argparse.Namespace) -> int:
    from merba.prediction.predict import find_model, predict
    from merba.training.checkpoint import load_checkpoint

    if options.out and options.out.exists() and not options.out.is_dir():
        raise MerbaError(f"--out: {options.out} is not a folder; name one, or a new name")
    _log_progress()
    path = options.checkpoint or find_model()
    checkpoint = load_checkpoint(path, options.model_file)
    _say(f"{path.name} was trained on {checkpoint.trained_on}; {checkpoint.measured}")
    predictions = predict(
        options.clips,
        checkpoint,
        onset=options.onset,
        apex=options.apex,
        fps=options.fps,
        spot=options.spot,
        explain=options.out is not None,
    )
    for prediction in predictions:
        name = prediction.clip
        if prediction.score is not None and prediction.problem is None:
            name += f", frames {prediction.onset} to {prediction.offset}"
        for note in (prediction.problem, *prediction.warnings):
            if note:
                _say(f"{name}: {note}")
    document = _document(predictions, checkpoint, path)
    if options.out:
        _write(options.out, predictions, checkpoint, document)
    print(json.dumps(document, indent=2) if options.json else _table(predictions, checkpoint.classes, options.spot))
    return int(any(prediction.problem or (prediction.faces or 0) > 1 for prediction in predictions))


def _say(message: str) -> None:
    print(f"merba: {message}", file=sys.stderr)


def _log_progress() -> None:
    """Log progress to stderr. Warnings of the stages are left out, because the predictions contain them."""
    logging.basicConfig(format="merba: %(message)s")
    for part in ("prediction.predict", "joblog"):
        logging.getLogger(f"merba.{part}").setLevel(logging.INFO)
    for stage in ("faces", "apex", "flow", "problems"):
        logging.getLogger(f"merba.preprocessing.{stage}").setLevel(logging.ERROR)


def _document(predictions: Sequence[Prediction], checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    import merba

    return {
        "merba": merba.__version__,
        "checkpoint": {"path": str(path), "trained_on": checkpoint.trained_on, **checkpoint.description},
        "predictions": [prediction.record() for prediction in predictions],
    }


def _write(folder: Path, predictions: Sequence[Prediction], checkpoint: Checkpoint, document: dict[str, Any]) -> None:
    """predictions.json and .csv, a picture of each prediction, and one of each search; the JSON names them."""
    from merba.files import atomic
    from merba.prediction.clips import numbered_stem
    from merba.prediction.figures import plot_prediction, plot_search

    searches: dict[int, str] = {}
    for number, (prediction, record) in enumerate(zip(predictions, document["predictions"], strict=True), start=1):
        name = numbered_stem(number, prediction.clip)
        if prediction.predicted:
            record["picture"] = f"{name}.png"
            with atomic(folder / record["picture"]) as draft:
                plot_prediction(prediction, checkpoint, draft)
        if prediction.search:
            if id(prediction.search) not in searches:
                searches[id(prediction.search)] = f"{name}_search.png"
                moving = {other.onset for other in predictions if other.search is prediction.search and other.head_moves}
                with atomic(folder / searches[id(prediction.search)]) as draft:
                    plot_search(prediction.search, moving=moving, title=prediction.clip, path=draft)
            record["search_picture"] = searches[id(prediction.search)]
    with atomic(folder / "predictions.json") as draft:
        draft.write_text(json.dumps(document, indent=2))
    with atomic(folder / "predictions.csv") as draft:
        _scorable(predictions, document["checkpoint"]["classes"]).to_csv(draft, index=False)


def _scorable(predictions: Sequence[Prediction], classes: Sequence[str]) -> pd.DataFrame:
    """The predictions with a class, as `merba score` reads them; subject and true class are empty if no table has them."""
    import pandas as pd

    columns = ["dataset", "subject", "clip", "true", "predicted", "onset", "apex"]
    rows = [
        {name: getattr(prediction, name) for name in columns} | {f"p_{name}": p for name, p in prediction.probabilities.items()}
        for prediction in predictions
        if prediction.predicted
    ]
    return pd.DataFrame(rows, columns=[*columns, *(f"p_{name}" for name in classes)])


def _table(predictions: Sequence[Prediction], classes: Sequence[str], spot: bool) -> str:
    """A line for each prediction: frames, when they are shown (s), the head's motion (px), every class's probability.

    A dash means unknown. An exclamation mark after the motion means that the head moves more than an expression does.
    """
    import pandas as pd

    keys = ("onset", "apex", "offset") if spot else ("onset", "apex")
    rows = []
    for prediction in predictions:
        row = {"clip": prediction.clip, **{key: getattr(prediction, key) for key in keys}}
        row["seconds"] = "–".join(f"{prediction.seconds[key]:.2f}" for key in keys if key in prediction.seconds) or None
        if spot:
            row["score"] = prediction.score and f"{prediction.score:.2f}"
        row["head"] = None if prediction.head_motion is None else f"{prediction.head_motion:.1f}{'!' * prediction.head_moves}"
        row["class"] = prediction.predicted
        rows.append(row | {name: f"{p:.3f}" for name, p in prediction.probabilities.items()})
    table = pd.DataFrame(rows, columns=[*rows[0], *(name for name in classes if name not in rows[0])], dtype=object)
    return table.fillna("–").to_string(index=False)
