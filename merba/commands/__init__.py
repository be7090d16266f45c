"""The subcommands of `merba`, one file each.

A file's first docstring line is its help. It has EXAMPLE, `add_arguments(parser)` and `run(options)`, which gives the exit
status; heavy imports happen in `run`, so that `merba --help` is quick.
"""
