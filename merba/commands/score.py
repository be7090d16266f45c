"""UF1, UAR and accuracy of a file of predictions, anybody's, as MEGC2019 counts them."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "merba score predictions.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="CSV or Parquet, one row a clip: columns subject, true, predicted; optional dataset, clip, split, selection, seed",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    from merba.evaluation.scoring import read_predictions, score_table

    predictions = read_predictions(options.file)
    table = score_table(predictions)
    if options.json:
        print(table.to_json(orient="records", indent=2))
    else:
        print(table.round(4).to_string(index=False))
        true, predicted = set(predictions["true"]), set(predictions["predicted"])
        untrue = f"; predicted, but never true: {', '.join(sorted(predicted - true))}" if predicted - true else ""
        print(f"classes: {', '.join(sorted(true))}{untrue}")
    return 0
