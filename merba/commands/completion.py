"""Print a script that completes subcommands, options and file names in the shell."""

from __future__ import annotations

import argparse

EXAMPLE = "merba completion bash >> ~/.bashrc    (or zsh, >> ~/.zshrc)"
SCRIPT = """\
_merba() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _merba merba
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(options: argparse.Namespace) -> int:
    # zsh takes bash's completions once it is told to.
    print("autoload -U +X bashcompinit && bashcompinit\n" * (options.shell == "zsh") + _script(options.parser), end="")
    return 0


def _script(parser: argparse.ArgumentParser) -> str:
    """The completion of a parser with subcommands; where a word is no option and no choice, the shell offers files."""
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    cases = []
    for name, command in commands.items():
        words = [word for action in command._actions for word in (*action.option_strings, *(action.choices or ()))]
        cases.append(f'    {name}) words="{" ".join(words)}" ;;')
    return SCRIPT.format(cases="\n".join(cases), commands=" ".join(commands))
