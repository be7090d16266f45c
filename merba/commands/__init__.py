"""The subcommands of `merba`, one file each.

A file's docstring is its help. It has EXAMPLE, `add_arguments(parser)` and `run(options)`, which returns the exit status. Heavy
imports are in `run`, so that `merba --help` is quick.
"""
