"""What runs for a configuration: its experiments, their folds, and the tables and figures made from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from merba.code import code_digest, model_arguments
from merba.config import (
    changed_by_experiments,
    complete,
    expects_gpu,
    library,
    origin_of,
    pack_folder,
    runnable_experiments,
    usual_experiments,
)
from merba.costs import LEAST_MB, LEAST_MINUTES, LONG_HOURS, Network, keeps_weights, network, slow_without_gpu
from merba.datasets import DEMO_ROOT, RESULTS, plan_sheet
from merba.datasets.composites import check_composites
from merba.datasets.flow_images import ADAPTER as CLONED
from merba.datasets.flow_images import CLONES
from merba.datasets.tasks import dfme_datasets
from merba.errors import MerbaError, did_you_mean
from merba.evaluation.rivals import check_rivals
from merba.files import FOLD_FILES, WEIGHTS
from merba.frames import file_state
from merba.preprocessing.contact_sheets import ContactSheets
from merba.preprocessing.flow_settings import with_solver
from merba.preprocessing.views.planning import PlannedViews
from merba.protocols import TESTS, folds
from merba.sheet import KEY, PREPROCESSING, class_names, plain_rows, rows_by_subject, safe_id

ABLATIONS = ("table_6_lgfi", "table_7_scanning")
"""Tables of ablations, which a configuration with `ablations: false` leaves out."""
EVERY_METHOD = "_every_method"
"""The end of a table's name if it includes the experiments that a plain run leaves out."""
RELEASED_SIZE = 28
"""Side of the public release's flow images, px."""
PAPER_MODEL = "merba_base"
"""The published rows of Table VII have the costs of this model."""


class Plan:
    """What Snakemake is asked to make. Planning writes nothing, opens no frame and doesn't import PyTorch.

    `config` is the configuration with every default filled in, `origin` says which configuration the results come from (see
    `merba.config.origin_of`), and `sheet` is the sample sheet. By name, `experiments` has the settings of those that run, and
    `left_out` why the others can't. `flow` has the settings of flow, with the solver that runs; `views` and
    `contact_sheets` plan these. `results` is the folder of results, relative to the run's folder; the paths in rules always begin
    with `results/`, wherever it is.
    """

    def __init__(
        self, config: Mapping[str, Any], origin: str = "configuration", given: Collection[str] = (), results: Path = RESULTS
    ) -> None:
        """Raises MerbaError if the configuration, called `origin` in the message, or its data can't be used.

        `given` are the keys that the command line set; the message names them too.
        """
        self.config = complete(dict(config), f"{origin} with --config {', '.join(given)}" if given else origin)
        self.origin = origin_of(self.config, origin)
        self.config["keep_weights"] = keeps_weights(self.config)
        self.results = results
        self.sheet = plan_sheet(self.config, results)
        self.datasets = list(self.sheet["dataset"].unique())
        self.dfme = dfme_datasets(self.config)
        without_frames = set(self.datasets) - self._with_frames
        self.experiments, self.left_out = runnable_experiments(self.config, self.datasets, without_frames)
        self.views = PlannedViews(self.config, self.experiments, self._with_frames)
        framed = [dataset for dataset in self.datasets if self.needs_faces(dataset)]
        self.contact_sheets = ContactSheets({dataset: self._rows[dataset] for dataset in framed})
        check_composites(self.sheet, self.config["datasets"], [own["datasets"] for own in self.experiments.values()])
        check_rivals(self.experiments, self.sheet, self.folds)
        self.on_gpu = expects_gpu(self.config["device"])
        self.flow = with_solver(self.config["flow"], on_gpu=self.on_gpu)
        self._clips = rows_by_subject(self.sheet, PREPROCESSING)
        self._file_states: dict[tuple[str, str], str] = {}

    def code(self, job: str, experiments: Iterable[str] = (), *models: str) -> str:
        """A hash of the code that a rule's results depend on: of merba/jobs/`job`.py, `models` and the experiments' models."""
        own = {self.experiments[name]["model"].get("name", "") for name in experiments}
        return code_digest(f"merba.jobs.{job}", own | set(models))

    # Data

    def subjects(self, dataset: str) -> list[str]:
        """Safe ids of a dataset's subjects, in sheet order."""
        return self._subjects[dataset]

    @cached_property
    def _subjects(self) -> dict[str, list[str]]:
        return {name: [safe_id(subject) for subject in rows["subject"].unique()] for name, rows in self._rows.items()}

    @cached_property
    def _rows(self) -> dict[str, pd.DataFrame]:
        return {dataset: self.sheet[self.sheet["dataset"] == dataset] for dataset in self.datasets}

    def clips(self, dataset: str, subject: str) -> list[dict[str, Any]]:
        """A subject's rows, with the columns that preprocessing needs."""
        if (dataset, subject) not in self._clips:
            raise MerbaError(f"the sample sheet has no subject {subject} in {dataset}")
        return self._clips[dataset, subject]

    def file_state(self, dataset: str, subject: str) -> str:
        """A hash that changes when a file of the subject's clips changes; files that rules make don't count."""
        key = dataset, subject
        if key not in self._file_states:
            self._file_states[key] = file_state(clip for clip in self._clips[key] if self._maker(clip["source"]) is None)
        return self._file_states[key]

    def gate_refuses(self, pack: str) -> bool:
        """Whether the gate of a pack (packed/samm, views/tim10/samm) let clips be dropped before and must refuse them now."""
        checked = self.results / f"{pack}.checked"
        return self.config["on_problem"] == "stop" and checked.exists() and checked.stat().st_size > 0

    def made(self, dataset: str) -> list[str]:
        """The folders of a dataset's clips that rules make: the rendered demo, or clones of ready-made flow.

        Raises MerbaError for a dataset that isn't configured.
        """
        if dataset not in self._rows:
            raise MerbaError(f"the configuration has no dataset {dataset!r}{did_you_mean(dataset, self._rows)}")
        return sorted({folder for source in self._rows[dataset]["source"] if (folder := self._maker(source))})

    @cached_property
    def demo(self) -> list[str]:
        """The folders of the rendered demo, one per dataset; empty for other data."""
        return [str(DEMO_ROOT / name) for name in self.config["datasets"]] if self.config["data"] == "demo" else []

    def _maker(self, source: str) -> str | None:
        return next((folder for folder, placed in self._made.items() if source.startswith(f"{placed}/")), None)

    def _placed(self, path: str) -> Path:
        """Where a file or folder that rules call `path` is on disk."""
        return self.results / Path(path).relative_to(RESULTS)

    @cached_property
    def _made(self) -> dict[str, Path]:
        """The folders of the rendered demo, or of clones of ready-made flow, and where each is on disk."""
        settings = self.config["datasets"].items()
        clones = [str(CLONES / name) for name, own in settings if own["adapter"] == CLONED and not own.get("root")]
        return {folder: self._placed(folder) for folder in [*self.demo, *clones]}

    def needs_faces(self, dataset: str) -> bool:
        """Whether a dataset has frames; ready-made flow needs no face and no apex."""
        return dataset in self._with_frames

    def flow_on_gpu(self, dataset: str) -> bool:
        """Whether a dataset's flow is computed on CUDA."""
        return self.flow["solver"] == "cuda" and self.needs_faces(dataset)

    @cached_property
    def _with_frames(self) -> set[str]:
        return {dataset for dataset, rows in self._rows.items() if (rows["kind"] != "flow").any()}

    def network(self, experiment: str) -> Network | None:
        """The cost of an experiment's network; None if the package doesn't know the model."""
        settings = self.experiments[experiment]
        return network(settings["model"], len(class_names(self.sheet, settings["datasets"])))

    def fold_hours(self, experiment: str) -> float | None:
        """Estimated hours of a fold, all its seeds and epochs, on one core or GPU; None if the network is unknown."""
        settings, clips = self.experiments[experiment], len(self._composite(experiment))
        cost, epochs = self.network(experiment), settings["training"]["epochs"]
        return None if cost is None else cost.seconds(clips, epochs, on_gpu=self.on_gpu) * len(settings["seeds"]) / 3600

    def fold_minutes(self, experiment: str) -> int:
        """Minutes that a training job asks for: three times the estimate, because the machine may be slower."""
        return max(LEAST_MINUTES, int(180 * (self.fold_hours(experiment) or 0)))

    def warnings(self, *, ablations: bool) -> list[str]:
        """Warnings about experiments of a plan without a GPU that will take very long."""
        slow = []
        for name in [] if self.on_gpu else self.trained(ablations=ablations):
            cost, hours, folds = self.network(name), self.fold_hours(name) or 0, len(self.folds(name))
            if cost and hours * folds > LONG_HOURS:
                slow.append(slow_without_gpu(name, cost, hours * folds, folds))
        return slow

    def fold_memory(self, experiment: str) -> int:
        """Memory of a training, MB: the network and program, the packed flow, and the model's inputs in float32."""
        rows, settings = self._composite(experiment), self.config
        cost, batch = self.network(experiment), self.experiments[experiment]["training"]["batch_size"]
        program = LEAST_MB if cost is None or self.on_gpu else cost.job_memory_mb(min(batch, len(rows)))
        if view := self.experiments[experiment].get("view"):
            # float16 in the pack; float32 in the training, and once more for a model that settles on its training clips
            return program + len(rows) * self.views.values(view["name"]) * (2 + 2 * 4) // 10**6
        ready_made = (rows["kind"] == "flow").all()
        channels, side = (3, RELEASED_SIZE) if ready_made else (len(settings["flow"]["channels"]), settings["faces"]["size"])
        model_side = max(side, self.experiments[experiment]["model"].get("image_size", 0))
        pixels = len(rows) * channels
        return program + pixels * (2 * side**2 + 2 * 4 * model_side**2) // 10**6

    def packs(self, experiment: str, suffix: str = ".npy") -> list[str]:
        """The packs that an experiment's folds read, one file per dataset; with `.checked` as suffix, their gates' files."""
        settings = self.experiments[experiment]
        return [f"results/{pack_folder(settings)}/{dataset}{suffix}" for dataset in settings["datasets"]]

    # Folds

    def labels(self, experiment: str) -> list[dict[str, Any]]:
        """The rows of an experiment's datasets, with the columns that training needs."""
        return plain_rows(self._composite(experiment), [*KEY, "label", "split"])

    def _composite(self, experiment: str) -> pd.DataFrame:
        return self.sheet[self.sheet["dataset"].isin(self.experiments[experiment]["datasets"])]

    def folds(self, experiment: str) -> list[tuple[str, str]]:
        """(dataset, subject's safe id) of every fold of an experiment; the id is `holdout` if the protocol is."""
        return list(self._folds[experiment])

    @cached_property
    def _folds(self) -> dict[str, dict[tuple[str, str], None]]:
        return {
            name: {(dataset, safe_id(subject)): None for dataset, subject in folds(self.sheet, settings)}
            for name, settings in self.experiments.items()
        }

    def check_fold(self, experiment: str, dataset: str, subject: str) -> None:
        """Raise MerbaError if there is no such experiment or fold."""
        if experiment not in self.experiments:
            hint = f"{did_you_mean(experiment, self.experiments)}; those that run are {', '.join(self.experiments)}"
            raise MerbaError(f"there is no experiment {experiment!r}{hint}")
        if (dataset, subject) not in self._folds[experiment]:
            fold, known = f"{dataset}/{subject}", ["/".join(fold) for fold in self.folds(experiment)]
            hint = f"{did_you_mean(fold, known)}; it has {len(known)}, such as {known[0]}"
            raise MerbaError(f"experiment {experiment} has no fold {fold!r}{hint}")

    def fold_files(self) -> dict[str, str]:
        """The names of a fold's files, by what they hold."""
        return FOLD_FILES | ({"weights": WEIGHTS} if self.config["keep_weights"] else {})

    def predictions(self, experiment: str) -> list[str]:
        """The prediction files of an experiment's folds."""
        return self._predictions[experiment]

    @cached_property
    def _predictions(self) -> dict[str, list[str]]:
        name = FOLD_FILES["predictions"]
        return {
            experiment: [f"results/folds/{experiment}/{dataset}/{subject}/{name}" for dataset, subject in keys]
            for experiment, keys in self._folds.items()
        }

    def every_prediction(self, *, ablations: bool) -> list[str]:
        """The prediction files that the tables are made from."""
        return [path for experiment in self.trained(ablations=ablations) for path in self.predictions(experiment)]

    # Tables

    def in_table(self, table: str, *, every_method: bool = False) -> list[str]:
        """The experiments with rows in a table, such as `table_5_3db`; with `every_method` also those marked `optional`."""
        names = self.experiments if every_method else self._usual
        return [name for name in names if table in self.experiments[name]["tables"]]

    @cached_property
    def _usual(self) -> list[str]:
        return usual_experiments(self.config, self.experiments)

    def whole_table(self, table: str) -> str:
        """The file of a table with every method; this is a plain run's table if that has them all."""
        whole = self.in_table(table) == self.in_table(table, every_method=True)
        return f"results/{table}{'' if whole else EVERY_METHOD}.csv"

    def every_method(self) -> str:
        """The file of Table V. Raises MerbaError if no experiment has one of its methods, whatever the method's size."""
        papers, ours = (
            {model_arguments(own["model"]["name"])[0] for own in experiments.values() if "name" in own.get("model", {})}
            for experiments in (library(), self.experiments)
        )
        if missing := sorted(papers - ours):
            raise MerbaError(
                f"no experiment of the configuration trains {', '.join(missing)}, so it can't make Table V with every method; "
                "take config/methods.yaml: `snakemake --cores 2 methods --configfile config/methods.yaml`"
            )
        return self.whole_table("table_5_3db")

    def result_tables(self, *, ablations: bool) -> list[str]:
        """The names of those of Tables IV to VII that an experiment has rows in."""
        names = sorted({table for name in self._usual for table in self.experiments[name]["tables"]})
        return [name for name in names if ablations or name not in ABLATIONS]

    def trained(self, *, ablations: bool) -> list[str]:
        """The experiments with rows in `result_tables`."""
        tables = set(self.result_tables(ablations=ablations))
        return [name for name in self._usual if tables & set(self.experiments[name]["tables"])]

    def tables(self, *, ablations: bool) -> list[str]:
        """The files of all tables."""
        counts = ["table_2_dfme_counts"] if self.dfme else []
        if set(self.datasets) - set(self.dfme):
            counts.append("table_3_3db_counts")
        names = ["table_1_architecture", *counts, *self.result_tables(ablations=ablations)]
        return [f"results/{name}.csv" for name in names]

    def models(self) -> list[tuple[str | None, dict[str, Any], int]]:
        """(name, arguments, classes) of the experiments' models, each once, for Table I; name is None for a class in a file."""
        models: list[tuple[str | None, dict[str, Any], int]] = []
        for settings in (self.experiments[name] for name in self.trained(ablations=False)):
            arguments = {key: value for key, value in settings["model"].items() if key not in ("name", "pretrained")}
            model = settings["model"].get("name"), arguments, len(class_names(self.sheet, settings["datasets"]))
            if model not in models:
                models.append(model)
        return models

    def model_files(self, experiments: Iterable[str]) -> list[str]:
        """The users' files that define the experiments' models."""
        return sorted(
            {self.experiments[name]["model"]["file"] for name in experiments if "file" in self.experiments[name]["model"]}
        )

    def runs(self, experiments: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Settings and prediction files of experiments, by name: tables and the summary are made from these."""
        return {
            name: {
                "settings": self.experiments[name],
                "predictions": [str(self._placed(path)) for path in self.predictions(name)],
            }
            for name in experiments
        }

    def whose(self) -> dict[str, Any]:
        """`origin`, with the settings that experiments change."""
        return self.origin | {"changed": self.origin["changed"] | changed_by_experiments(self.config)}

    def times(self, *, ablations: bool) -> list[str]:
        """The files with the time of each job; trainings record theirs themselves."""
        alone = ["results/times/samples.tsv", "results/times/problems.tsv"]
        named = self._timed(ablations=ablations).items()
        return alone + [f"results/times/{stage}/{job}.tsv" for stage, jobs in named for job in jobs]

    def jobs(self, *, ablations: bool) -> dict[str, int]:
        """How many jobs each stage has if nothing is made yet, in the order of the stages."""
        counts = {stage: len(jobs) for stage, jobs in self._timed(ablations=ablations).items()}
        folds = len(self.every_prediction(ablations=ablations))
        after = {stage: counts.pop(stage) for stage in ("table", "confusion", "samples_figure")}
        return {"samples": 1, **counts, "problems": 1, "fold": folds, **after, "summary": 1}

    def _timed(self, *, ablations: bool) -> dict[str, list[str]]:
        """The jobs of each stage that Snakemake times, by name."""
        subjects = [(dataset, subject) for dataset in self.datasets for subject in self.subjects(dataset)]
        framed = [(dataset, subject) for dataset, subject in subjects if self.needs_faces(dataset)]
        trained = self.trained(ablations=ablations)
        stages: dict[str, Iterable[str]] = {
            "render" if self.demo else "clone_flow": (Path(folder).name for folder in self._made),
            "faces": map("/".join, framed),
            "apex": map("/".join, framed),
            "flow": map("/".join, subjects),
            "pack": self.datasets,
            "labels": trained,
            "gate": self.datasets,
            "table": (Path(table).stem for table in self.tables(ablations=ablations)),
            "confusion": self.confusions(trained),
            "samples_figure": (Path(page).stem.removeprefix("samples_") for page in self.contact_sheets.files()),
            **self.views.timed(trained, self.subjects),
        }
        return {stage: list(jobs) for stage, jobs in stages.items()}

    # Figures

    def confusions(self, experiments: Iterable[str]) -> dict[str, dict[str, Any]]:
        """`experiment` and `split` of their confusion matrices, by name: one for all clips, or one per test set."""
        matrices = {}
        for name in experiments:
            if self.experiments[name]["protocol"] == "loso":
                matrices[name] = {"experiment": name, "split": None}
                continue
            for split in sorted(set(self._composite(name)["split"]) & set(TESTS)):
                matrices[f"{name}_{split}"] = {"experiment": name, "split": split}
        return matrices

    def matrices(self, *, ablations: bool, kind: str = "csv") -> list[str]:
        """The files of the confusion matrices: tables, or pictures if `kind` is png."""
        names = self.confusions(self.trained(ablations=ablations))
        return [f"results/figures/figure_3_confusion_{name}.{kind}" for name in names]

    def matrix_titles(self, *, ablations: bool) -> dict[str, tuple[str, str | None]]:
        """The method and test set of each confusion matrix, by its table's file."""
        shown = self.confusions(self.trained(ablations=ablations)).values()
        titles = [(self.experiments[matrix["experiment"]]["method"], matrix["split"]) for matrix in shown]
        return dict(zip(self.matrices(ablations=ablations), titles, strict=True))

    def figures(self, *, ablations: bool) -> list[str]:
        """The files of all figures, and of the tables that they show."""
        matrices = [path for kind in ("csv", "png") for path in self.matrices(ablations=ablations, kind=kind)]
        return matrices + self.contact_sheets.files() + self.views.figures(self.trained(ablations=ablations))
