# The configuration, the sample sheet, and what the rules ask of them. Nothing is written here.
from functools import cache

from merba.config import complete, expects_gpu, fold_settings, runnable_experiments
from merba.evaluation.clip_counts import dfme_datasets
from merba.datasets.layout import nearest
from merba.errors import MerbaError
from merba.files import FOLD_FILES, WEIGHTS
from merba.protocols import TESTS
from merba.protocols import folds as folds_of
from merba.sheet import (
    KEY,
    PREPROCESSING,
    class_names,
    digest,
    plain_rows,
    plan_sheet,
    rows_by_subject,
    safe_id,
)
from merba.sources import file_state

config.update(complete(dict(config), " and ".join(map(str, workflow.configfiles))))
sheet = plan_sheet(config)

DATASETS = list(sheet["dataset"].unique())
DFME = dfme_datasets(config)
EXPERIMENTS, LEFT_OUT = runnable_experiments(config, DATASETS)
ON_GPU = expects_gpu(config["device"])


wildcard_constraints:
    dataset="[a-z0-9_]+",
    experiment="[a-z0-9_]+",
    subject="[A-Za-z0-9_-]+",
    table="table_[4-7]_[a-z0-9]+",
    matrix="[a-z0-9_]+",
    ablations="(_ablations)?",


def subjects(dataset):
    """Safe ids of a dataset's subjects, in sheet order."""
    return [safe_id(name) for name in rows_of(dataset)["subject"].unique()]


@cache
def rows_of(dataset):
    return sheet[sheet["dataset"] == dataset]


# A job gets its rows as a parameter: one new or mended clip reruns its own subject, and nobody else. With the sheet's
# file as an input it would rerun everybody, and with an `ancient` one nobody until the run after.
CLIPS = rows_by_subject(sheet, PREPROCESSING)


def clips_of(wildcards):
    """The rows of a subject, as preprocessing needs them."""
    key = wildcards.dataset, wildcards.subject
    if key not in CLIPS:
        raise MerbaError(f"the sample sheet has no subject {key[1]} in {key[0]}")
    return CLIPS[key]


def files_of(wildcards):
    """Changes when a frame of this subject does, unless the workflow has a rule that makes it."""
    return None if FRAMES else files_digest(wildcards.dataset, wildcards.subject)


@cache
def files_digest(dataset, subject):
    return file_state(CLIPS[dataset, subject])


def labels_of(experiment):
    """The rows of an experiment's datasets, as training needs them."""
    rows = sheet[sheet["dataset"].isin(EXPERIMENTS[experiment]["datasets"])]
    return plain_rows(rows, [*KEY, "label", "split"])


@cache
def needs_faces(dataset):
    return (rows_of(dataset)["kind"] != "flow").any()


def faces_and_apex(wildcards):
    """Ready-made flow needs neither."""
    if not needs_faces(wildcards.dataset):
        return {}
    return {
        "faces": "results/faces/{dataset}/{subject}.parquet",
        "apex": "results/apex/{dataset}/{subject}.parquet",
    }


@cache
def folds(experiment):
    """(dataset, subject id) of every fold of an experiment."""
    return [
        (dataset, safe_id(subject))
        for dataset, subject in folds_of(sheet, EXPERIMENTS[experiment])
    ]


@cache
def fold_keys(experiment):
    return frozenset(folds(experiment))


def fold_outputs():
    """The files of a fold, by what they are."""
    names = FOLD_FILES | ({"weights": WEIGHTS} if config["keep_weights"] else {})
    return {
        kind: f"results/folds/{{experiment}}/{{dataset}}/{{subject}}/{name}"
        for kind, name in names.items()
    }


def check_fold(wildcards):
    """MerbaError for a fold that is named on the command line, but isn't one."""
    name, fold = wildcards.experiment, f"{wildcards.dataset}/{wildcards.subject}"
    if name not in EXPERIMENTS:
        hint = (
            f"{nearest(name, EXPERIMENTS)}; those that run are {', '.join(EXPERIMENTS)}"
        )
        raise MerbaError(f"there is no experiment {name!r}{hint}")
    if (wildcards.dataset, wildcards.subject) not in fold_keys(name):
        known = [f"{dataset}/{subject}" for dataset, subject in folds(name)]
        hint = f"{nearest(fold, known)}; it has {len(known)}, such as {known[0]}"
        raise MerbaError(f"experiment {name} has no fold {fold!r}{hint}")


@cache
def packs_of(experiment):
    """The arrays of an experiment's datasets; their indexes lie beside them.

    For each file that a fold names, Snakemake compares it with every input of the job that makes it, here a file a subject.
    """
    datasets = EXPERIMENTS[experiment]["datasets"]
    return expand("results/packed/{dataset}.npy", dataset=datasets)


def pretrained_of(experiment):
    """The file of weights that an experiment starts from, if any."""
    return EXPERIMENTS[experiment]["model"].get("pretrained") or []


@cache
def predictions(experiment):
    return [
        f"results/folds/{experiment}/{dataset}/{subject}/predictions.parquet"
        for dataset, subject in folds(experiment)
    ]


# Tables of ablations; `all` makes them too unless the configuration has `ablations: false`.
ABLATIONS = ["table_6_lgfi", "table_7_scanning"]


def in_table(table):
    """The experiments with rows in a table."""
    return [name for name in EXPERIMENTS if table in EXPERIMENTS[name]["tables"]]


def result_tables(ablations):
    """Tables IV to VII, those that any experiment has rows in."""
    names = sorted(
        {table for name in EXPERIMENTS for table in EXPERIMENTS[name]["tables"]}
    )
    return [name for name in names if ablations or name not in ABLATIONS]


def trained(ablations):
    """The experiments behind those tables."""
    tables = set(result_tables(ablations))
    return [name for name in EXPERIMENTS if tables & set(EXPERIMENTS[name]["tables"])]


def every_prediction(ablations):
    return [path for name in trained(ablations) for path in predictions(name)]


def confusions(names):
    """The confusion matrices of experiments, by name: of the whole composite, or one a test set."""
    matrices = {}
    for name in names:
        if EXPERIMENTS[name]["protocol"] == "loso":
            matrices[name] = {"experiment": name, "split": None}
            continue
        rows = sheet[sheet["dataset"].isin(EXPERIMENTS[name]["datasets"])]
        for split in sorted(set(rows["split"]) & set(TESTS)):
            matrices[f"{name}_{split}"] = {"experiment": name, "split": split}
    return matrices


CONFUSIONS = confusions(EXPERIMENTS)


def trained_models():
    """(name, arguments, classes) of the experiments' models, each once."""
    models = []
    for settings in (EXPERIMENTS[name] for name in trained(ablations=False)):
        arguments = {
            k: v
            for k, v in settings["model"].items()
            if k not in ("name", "pretrained")
        }
        classes = len(class_names(sheet, settings["datasets"]))
        if (model := (settings["model"]["name"], arguments, classes)) not in models:
            models.append(model)
    return models


def tables(ablations):
    counts = ["results/table_2_dfme_counts.csv"] if DFME else []
    if set(DATASETS) - set(DFME):
        counts.append("results/table_3_3db_counts.csv")
    return [
        "results/table_1_architecture.csv",
        *counts,
        *(f"results/{name}.csv" for name in result_tables(ablations)),
    ]


def matrices(ablations, kind="csv"):
    """The files of the confusion matrices."""
    names = confusions(trained(ablations))
    return expand(
        "results/figures/figure_3_confusion_{matrix}.{kind}", matrix=names, kind=kind
    )


def sample_figures():
    with_faces = [dataset for dataset in DATASETS if needs_faces(dataset)]
    return expand("results/figures/samples_{dataset}.png", dataset=with_faces)


def figures(ablations):
    return matrices(ablations, kind=["csv", "png"]) + sample_figures()


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
