# The configuration, the sample sheet, and what the rules ask of them. Nothing is written here.
import shutil
from functools import cache

from merba.config import complete, experiment_settings
from merba.counts import dfme_datasets
from merba.protocols import loso_subjects
from merba.sheet import (
    KEY,
    PREPROCESSING,
    class_names,
    digest,
    plan_sheet,
    safe_id,
    subject_rows,
)
from merba.sources import file_states

config.update(complete(dict(config)))
sheet = plan_sheet(config)

DATASETS = list(sheet["dataset"].unique())
DFME = dfme_datasets(config)
EXPERIMENTS = {
    name: experiment_settings(config, name, DATASETS) for name in config["experiments"]
}
# The package asks PyTorch; looking for the driver's tool spares planning its two seconds.
ON_GPU = config["device"] == "cuda" or (
    config["device"] == "auto" and shutil.which("nvidia-smi") is not None
)


wildcard_constraints:
    dataset="[a-z0-9_]+",
    experiment="[a-z0-9_]+",
    subject="[A-Za-z0-9_-]+",


def subjects(dataset):
    """Safe ids of a dataset's subjects, in sheet order."""
    return [safe_id(name) for name in rows_of(dataset)["subject"].unique()]


def rows_of(dataset):
    return sheet[sheet["dataset"] == dataset]


def subject_digest(wildcards):
    """Changes when a row or a file of this subject does: one new or mended clip reruns its subject and nobody else."""
    # Files that the workflow makes itself have a rule, whose output `frames_of` is.
    users_own = not frames_of(wildcards)
    return rows_digest(wildcards.dataset, wildcards.subject, with_files=users_own)


@cache
def rows_digest(dataset, subject, with_files):
    rows = subject_rows(sheet, dataset, subject)
    files = file_states(rows) if with_files else ""
    return digest(rows.assign(files=files), [*PREPROCESSING, "files"])


def needs_faces(dataset):
    return (rows_of(dataset)["kind"] != "flow").any()


def frames_of(wildcards):
    """What must exist before a dataset's clips can be read: rendered or cloned files, or nothing of ours."""
    if config["data"] == "demo":
        return f"results/demo/{wildcards.dataset}.rendered"
    return f"results/public_flow/{CLONED}.cloned" if CLONED else []


def faces_and_apex(wildcards):
    """Ready-made flow needs neither."""
    if not needs_faces(wildcards.dataset):
        return {}
    return {
        "faces": "results/faces/{dataset}/{subject}.parquet",
        "apex": "results/apex/{dataset}/{subject}.parquet",
    }


def folds(experiment):
    """(dataset, subject id) of every fold of an experiment."""
    settings = EXPERIMENTS[experiment]
    most = None if settings["folds"] == "all" else settings["folds"]["most_clips"]
    return [
        (dataset, safe_id(subject))
        for dataset, subject in loso_subjects(sheet, settings["datasets"], most)
    ]


def predictions(experiment):
    return [
        f"results/folds/{experiment}/{dataset}/{subject}/predictions.parquet"
        for dataset, subject in folds(experiment)
    ]


def every_prediction():
    return [path for experiment in EXPERIMENTS for path in predictions(experiment)]


def trained_models():
    """(name, arguments, classes) of the experiments' models, each once."""
    models = []
    for settings in EXPERIMENTS.values():
        arguments = {
            k: v
            for k, v in settings["model"].items()
            if k not in ("name", "pretrained")
        }
        classes = len(class_names(sheet, settings["datasets"]))
        if (model := (settings["model"]["name"], arguments, classes)) not in models:
            models.append(model)
    return models


def tables():
    counts = ["results/table_2_dfme_counts.csv"] if DFME else []
    if set(DATASETS) - set(DFME):
        counts.append("results/table_3_3db_counts.csv")
    return ["results/table_1_architecture.csv", *counts, "results/table_5_3db.csv"]


def figures():
    confusion = expand(
        "results/figures/confusion_{experiment}.{kind}",
        experiment=EXPERIMENTS,
        kind=["csv", "png"],
    )
    with_faces = [dataset for dataset in DATASETS if needs_faces(dataset)]
    return confusion + expand(
        "results/figures/samples_{dataset}.png", dataset=with_faces
    )


def first_subject(wildcards):
    """The stages' files of the subject that a dataset's sample figure shows."""
    subject = subjects(wildcards.dataset)[0]
    return {
        "faces": f"results/faces/{wildcards.dataset}/{subject}.parquet",
        "apex": f"results/apex/{wildcards.dataset}/{subject}.parquet",
        "flow": f"results/flow/{wildcards.dataset}/{subject}.npz",
    }


def rendered():
    demo = config["data"] == "demo"
    return expand(
        "results/demo/{dataset}.rendered", dataset=config["datasets"] if demo else []
    )
