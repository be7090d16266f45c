"""Print the contents of the sample sheet, next to the paper's Tables II and III."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from merba.errors import ClipProblem

EXAMPLE = "merba samples --config config/3db.yaml --check-apex"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the workflow's configuration")
    parser.add_argument(
        "--check-apex", action="store_true", help="detect annotated apexes too, and print the differences (reads the clips)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def run(options: argparse.Namespace) -> int:
    from merba.config import load_config
    from merba.datasets import plan_sheet
    from merba.evaluation.clip_counts import paper_tables, sheet_summary, side_by_side
    from merba.preprocessing.apex_check import apex_differences, difference_summary, histogram

    config = load_config(options.config)
    sheet = plan_sheet(config)
    sheet["fps"] = [_rate(clip) for clip in sheet.itertuples()]
    summary, tables = sheet_summary(sheet), paper_tables(sheet, config)
    apexes = apex_differences(sheet, config) if options.check_apex else None
    if options.json:
        document = {"data": config["data"], "datasets": _records(summary)}
        document["tables"] = {title: _records(table) for title, table in tables.items()}
        if apexes is not None:
            document["apexes"] = {"summary": _records(difference_summary(apexes)), "clips": _records(apexes)}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    print(f"{options.config}: {len(sheet)} clips, data: {config['data']}\n")
    print(summary.to_string(index=False))
    for title, table in tables.items():
        print(f"\n{title}; the paper's number follows ≠:\n\n{side_by_side(table)}")
    if apexes is not None:
        print("\nDetected minus annotated apex, in frames:\n")
        print(difference_summary(apexes).round(2).to_string(index=False))
        print(f"\n{histogram(apexes['difference'])}")
    return 0


def _rate(clip: Any) -> float:
    """Frames per second of a row of the sheet; if the row of a video has none, from the video's header."""
    from merba.frames import clip_of

    if clip.kind != "video" or not math.isnan(clip.fps):
        return clip.fps
    try:
        return clip_of(clip).fps
    except ClipProblem:
        return math.nan


def _records(table) -> list[dict]:
    """Rows of a table for JSON: missing values are null."""
    return json.loads(table.to_json(orient="records"))
