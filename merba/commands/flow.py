"""Write the flow of videos or folders of frames for other code: arrays in px, or STSTNet's and HTNet's flow images."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from merba.commands.predict import add_clip_arguments

EXAMPLE = "merba flow clips.csv --form ststnet --out flow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clip_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder to write to")
    parser.add_argument(
        "--form",
        choices=("arrays", "ststnet"),
        default="arrays",
        help="arrays in px and a table, or images and a table as STSTNet and HTNet release them (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    from merba.prediction.flow_files import write_flow

    logging.basicConfig(level=logging.INFO, format="merba: %(message)s")
    logging.getLogger("merba.preprocessing.problems").setLevel(logging.ERROR)  # `write_flow` names each problem once
    clips = write_flow(options.clips, options.out, form=options.form, onset=options.onset, apex=options.apex, fps=options.fps)
    failed = int(clips["problem"].notna().sum())
    print(f"{options.out}: flow of {len(clips) - failed} of {len(clips)} clips")
    return int(failed > 0)
