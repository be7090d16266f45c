"""The jobs of the workflow's rules, one file each; they know nothing about Snakemake.

A file is named like its rule (`counts` serves two) and has `run`: it reads a job's files, calls the stage, writes the files, and
keeps the log. The rule's results depend on the code that the file imports (`merba.code`).
"""

import os
from pathlib import Path


def import_from(checkout: str | Path) -> None:
    """Make the jobs that this process starts import the package from a checkout, even if it isn't installed for them."""
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(os.pathsep.join(paths).split(os.pathsep)))
