"""Print UF1, UAR and accuracy of a file of predictions, as MEGC2019 defines them, or its difference from another file."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

EXAMPLE = "merba score predictions.csv --against merba_single_window"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="CSV or Parquet, one row per clip: columns subject, true, predicted; optional dataset, clip, split, selection, seed",
    )
    parser.add_argument(
        "--against",
        metavar="NAME|FILE",
        help="compare with this file, or with a shipped one (a wrong name lists them), on the clips that are in both",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    import pandas as pd

    from merba.evaluation.comparison import clips_alone, compare, named_predictions, seeds_differ
    from merba.evaluation.scoring import read_predictions, score_table
    from merba.sheet import alike

    predictions = read_predictions(options.file)
    table = score_table(predictions)
    others = named_predictions(options.against) if options.against else None
    comparisons = [] if others is None else compare(predictions, others)
    true, predicted = set(predictions["true"]), set(predictions["predicted"])
    subjects = [("subjects", sorted(set(part))) for _, part in predictions.groupby("dataset")["subject"]]
    for what, names in [("classes", sorted(true)), ("datasets", sorted(set(predictions["dataset"]))), *subjects]:
        for pair in alike(names):
            said = f"the {what} {' and '.join(map(repr, pair))} differ only in case, zeros or spaces, and count as two"
            print(f"merba: {said}", file=sys.stderr)
    if predicted - true:
        print(f"merba: predicted, but never true: {', '.join(sorted(predicted - true))}", file=sys.stderr)
    files = [(options.file, predictions), (options.against, others)]
    for (name, clips), (other, rest) in [] if others is None else permutations(files):
        count, alone = clips_alone(clips, rest)
        if alone:
            said = f"{len(alone)} of {count} clips of {name} are not in {other}, such as {alone[0]}, and are not compared"
            print(f"merba: {said}", file=sys.stderr)
        if said := seeds_differ(clips):
            print(f"merba: {name}: {said}; the others are not compared", file=sys.stderr)
    if options.json and others is not None:
        shown = {"scores": table, "comparisons": pd.DataFrame(comparisons)}
        plain = {name: json.loads(rows.to_json(orient="records")) for name, rows in shown.items()}  # unknown values as null
        print(json.dumps({"against": options.against} | plain, indent=2))
    elif options.json:
        print(table.to_json(orient="records", indent=2))
    else:
        print(table.round(4).to_string(index=False))
        print(f"classes: {', '.join(sorted(true))}")
        for comparison in comparisons:
            print(f"\n{_described(comparison, options.against)}")
    return 0


def _described(comparison: dict[str, Any], other: str) -> str:
    """A comparison as text: scores and recalls of both, the differences with their intervals, the confusion matrix."""
    import pandas as pd

    rows = []
    for name in ("uf1", "uar"):
        low, high = (f"{comparison[f'{name}_difference_{end}']:+.4f}" for end in ("low", "high"))
        difference = f"{comparison[f'{name}_difference']:+.4f} ({low} to {high})"
        rows.append([name.upper(), comparison[name], comparison[f"their_{name}"], difference])
    for name, recall in comparison["recall"].items():
        rows.append([f"recall of {name}", recall, comparison["their_recall"][name], ""])
    columns = ["", "this", other, "difference (95 % interval)"]
    counts = pd.DataFrame(comparison["counts"], columns=comparison["classes"])
    counts.insert(0, "true \\ predicted", comparison["classes"])
    about = [value for value in (comparison["selection"], comparison["split"]) if value not in ("", "all")]
    return "\n".join(
        [
            f"{', '.join(['against ' + other, *about])}: {comparison['n']} clips of {comparison['subjects']} subjects, in both",
            pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="%.4f"),
            "",
            counts.to_string(index=False),
        ]
    )
