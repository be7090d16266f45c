# The plan of what runs (merba/plan.py), and what rules ask it for by wildcards. Nothing is written here.
import atexit
import sys
import time
from pathlib import Path

from merba.code import PACKAGE, file_digest
from merba.config import fold_settings, plain_values, read_yaml
from merba.config.last_run import configuration_name, others_results, sign
from merba.datasets import DEMO_ROOT
from merba.datasets.flow_images import CLONES
from merba.errors import MerbaError
from merba.jobs import import_from
from merba.joblog import failures
from merba.plan import PAPER_MODEL, Plan
from merba.sheet import digest
from snakemake.utils import update_config

started = time.time()
if (PACKAGE.parent / "Snakefile").is_file():
    import_from(PACKAGE.parent)  # a checkout, which conda environments lack

# Where Snakemake puts a file of this workflow: under the `prefix` if it is used as a module. Snakemake does this itself for
# inputs, outputs, logs and benchmarks, but not for parameters.
placed = workflow.modifier.modify_path

given = {
    key: plain_values(value)
    for key, value in workflow.config_settings.config.items()
    if key in config
}
update_config(config, given)


def or_exit(ask, *arguments):
    """What `ask` returns. A user's mistake ends the run with only its message; Snakemake would add Python's stack."""
    try:
        return ask(*arguments)
    except MerbaError as error:
        sys.exit(f"merba: {error}")


for path in workflow.configfiles:
    or_exit(read_yaml, Path(path))
plan = or_exit(
    Plan,
    config,
    " and ".join(
        configuration_name(path, Path.cwd(), PACKAGE.parent)
        for path in workflow.configfiles
    )
    or "configuration",
    given,
    Path(placed("results")),
)
config.update(plan.config, origin=plan.origin)


wildcard_constraints:
    dataset="[a-z0-9_]+",
    experiment="[a-z0-9_]+",
    subject="[A-Za-z0-9_-]+",
    table="table_[4-7]_[a-z0-9]+",
    matrix="[a-z0-9_]+",
    page=r"\d+",
    ablations="(_ablations)?",
    every="(_every_method)?",
    view="[a-z0-9_]+",


# A job gets its rows as a parameter, so a new or corrected clip reruns only its own subject. With the sheet's file as an
# input, all subjects would rerun; with the file as an `ancient` input, none before the next run.
def clips_of(wildcards):
    """The rows of a subject, as preprocessing needs them."""
    return or_exit(plan.clips, wildcards.dataset, wildcards.subject)


def files_of(wildcards):
    """A value that changes when a frame of this subject changes that no rule of the workflow makes."""
    return plan.file_state(wildcards.dataset, wildcards.subject)


def frames_of(wildcards):
    """The folders of a dataset's clips that rules make: of the demo, or of a clone."""
    return or_exit(plan.made, wildcards.dataset)


def faces_and_apex(wildcards):
    """Faces and apexes of a subject; ready-made flow needs neither."""
    if not plan.needs_faces(wildcards.dataset):
        return {}
    return {
        "faces": "results/faces/{dataset}/{subject}.parquet",
        "apex": "results/apex/{dataset}/{subject}.parquet",
    }


def retried(amount):
    """Memory (MB) or time (minutes) of a job: `amount` times the number of the attempt."""
    return lambda wildcards, attempt: amount * attempt


def settings_of(wildcards):
    """The settings of an experiment."""
    return plan.experiments[wildcards.experiment]


def packs_of(wildcards):
    """The arrays of an experiment's datasets, of flow or of its view; their indexes are in the same folder.

    The indexes are no inputs, because Snakemake compares each input with all inputs of the job that makes it: a file per subject.
    """
    or_exit(plan.check_fold, wildcards.experiment, wildcards.dataset, wildcards.subject)
    return plan.packs(wildcards.experiment)


def gates_of(wildcards):
    """The files which say that the clips of an experiment's datasets can be used or are dropped."""
    return plan.packs(wildcards.experiment, ".checked")


def pretrained_of(wildcards):
    """The file of weights that an experiment starts from, if any. It is the user's file, so it gets no prefix."""
    path = settings_of(wildcards)["model"].get("pretrained")
    return local(path) if path else []


def model_file_of(wildcards):
    """The user's file with the class of an experiment's model, if any."""
    return [local(path) for path in plan.model_files([wildcards.experiment])]


def shown_subjects(wildcards):
    """The stages' files of the subjects on a page of a contact sheet."""
    dataset, subjects = wildcards.dataset, plan.contact_sheets.subjects(*wildcards)
    return {
        "faces": expand(f"results/faces/{dataset}/{{s}}.parquet", s=subjects),
        "apex": expand(f"results/apex/{dataset}/{{s}}.parquet", s=subjects),
        "flow": expand(f"results/flow/{dataset}/{{s}}.npz", s=subjects),
    }


def view_of(wildcards):
    """The settings of a view."""
    return or_exit(plan.views.settings, wildcards.view)


def encoder_of(wildcards):
    """The weights of the encoder that makes a view's tokens, if it keeps any. It is the user's file, so it gets no prefix."""
    return [local(path) for path in or_exit(plan.views.encoder, wildcards.view)]


def first_subject(wildcards):
    """Faces and apexes of the subject that a view's figure shows."""
    subject = plan.subjects(wildcards.dataset)[0]
    return {
        "faces": f"results/faces/{wildcards.dataset}/{subject}.parquet",
        "apex": f"results/apex/{wildcards.dataset}/{subject}.parquet",
    }


def in_table(wildcards):
    """The experiments with rows in a table: a plain run's, or every method's."""
    return plan.in_table(wildcards.table, every_method=bool(wildcards.every))


# The confusion matrices of all experiments, by name.
CONFUSIONS = plan.confusions(plan.experiments)


def confused(wildcards):
    """The experiment of a confusion matrix."""
    return CONFUSIONS[wildcards.matrix]["experiment"]
