"""Print what a configuration will run: the jobs of each stage, and an estimate of time, memory and disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from merba.plan import Plan

EXAMPLE = "merba plan --config config/public_flow.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the workflow's configuration")


def run(options: argparse.Namespace) -> int:
    import yaml

    from merba.config import load_config
    from merba.plan import Plan

    load_config(options.config)  # its errors name the file
    plan = Plan(yaml.safe_load(options.config.read_text()), str(options.config))
    ablations, where = plan.config["ablations"], "a GPU" if plan.on_gpu else "one CPU core"
    kept = "kept" if plan.config["keep_weights"] else "not kept (`keep_weights`)"
    print(f"{options.config}: {len(plan.sheet)} clips, training on {where}, weights {kept}\n")
    print(stages(plan, ablations=ablations).to_string(index=False))
    print("\nExperiments (hours are for all folds, one after another):\n")
    print(experiments(plan, ablations=ablations).to_string(index=False))
    print(
        "\nJobs are those of a first run; `snakemake -n` lists those that are still missing. Hours, memory and disk are "
        "estimates, correct within a factor of about 2.5"
        + (". On a GPU, where nothing was measured, the error may be larger." if plan.on_gpu else ".")
    )
    for warning in plan.warnings(ablations=ablations):
        print(f"\nWarning: {warning}.")
    return 0


def stages(plan: Plan, *, ablations: bool) -> pd.DataFrame:
    """Jobs of each stage and their CPU hours, if they can be estimated: columns stage, jobs, hours."""
    import pandas as pd

    from merba.costs import PREPROCESSING, START_SECONDS

    framed = int((plan.sheet["kind"] != "flow").sum())
    rows = []
    for stage, jobs in ((stage, jobs) for stage, jobs in plan.jobs(ablations=ablations).items() if jobs):
        hours = (jobs * START_SECONDS + framed * PREPROCESSING.get(stage, 0)) / 3600
        if stage == "fold":
            estimates = [_hours(plan, name) for name in plan.trained(ablations=ablations)]
            hours = sum(estimate or 0 for estimate in estimates)
        rows.append((stage, jobs, f"{hours:.2f}"))
    return pd.DataFrame(rows, columns=["stage", "jobs", "hours"])


def experiments(plan: Plan, *, ablations: bool) -> pd.DataFrame:
    """Each experiment's folds, millions of parameters, hours, memory of a job in GB, and GB on disk with kept weights.

    For other people's models, values that the package can't know are "?".
    """
    import pandas as pd

    rows = []
    for name in plan.trained(ablations=ablations):
        folds, network, hours = len(plan.folds(name)), plan.network(name), _hours(plan, name)
        disk = None if network is None else folds * network.megabytes * plan.config["keep_weights"] / 1000
        parameters = None if network is None else network.parameters / 1e6
        figures = [parameters, hours, plan.fold_memory(name) / 1000, disk]
        rows.append((name, folds, *("?" if figure is None else f"{figure:.2f}" for figure in figures)))
    return pd.DataFrame(rows, columns=["experiment", "folds", "M parameters", "hours", "GB memory", "GB disk"])


def _hours(plan: Plan, experiment: str) -> float | None:
    """Estimated hours of all folds of an experiment; None if they can't be estimated."""
    hours = plan.fold_hours(experiment)
    return None if hours is None else hours * len(plan.folds(experiment))
