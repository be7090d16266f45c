"""Print a script that completes subcommands, options and file names in the shell."""

from __future__ import annotations

import argparse

EXAMPLE = 'merba completion bash >> ~/.bashrc    (zsh: > "${fpath[1]}/_merba")'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(options.parser, options.shell))
    return 0
