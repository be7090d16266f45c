"""The report: one HTML page that says what a run found, from its tables, folds, figures and logs.

The page is one file: figures are embedded, and its small script is our own. With many clips, further contact sheets are
read from the folder of figures.
"""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

import merba
from merba.evaluation.figures import plot_curves, plot_scores, plot_subjects
from merba.evaluation.report_cells import NAMES, WORDS, named, plain_table, score_tables
from merba.evaluation.runs import Run, fold_table, stage_times, subject_scores
from merba.figures import DPI

log = logging.getLogger(__name__)

LARGEST = 1_500_000
"""The most bytes of a page that Snakemake's report can show: Chromium opens no data: URL of more than 2 MB in a frame."""
LOSSLESS, PHOTOGRAPHS = 101, 75
"""Qualities of WebP as OpenCV counts them."""
SHEETS = 700_000
"""The most bytes that contact sheets may take of a page."""
SCREEN = 96
"""Pixels per inch of a page."""
TEMPLATE = Path(__file__).with_name("report.html.j2")
DATA = {
    "demo": "rendered clips with known movements, whose scores mean nothing for real faces",
    "public_flow": "ready-made flow of the MEGC2019 composite; the paper computes its own flow from the raw clips",
    "3db": "the MEGC2019 composite from raw clips, as in the paper",
    "dfme": "DFME from raw clips, as in the paper",
    "own": "your own clips",
}
TABLES = {
    "table_1": "Table I: sizes of the models",
    "table_2": "Table II: clips by split and class",
    "table_3": "Table III: clips by class and dataset",
    "table_4": "Table IV: one training, test sets A and B",
    "table_5": "Table V: leave-one-subject-out",
    "table_6": "Table VI: local or global extractors and attention",
    "table_7": "Table VII: directions of the scan",
}


@dataclass(frozen=True)
class Figure:
    """A figure: `source` is a data URI or a file next to the page, `caption` what it shows, `width` its width there (px).

    Without a width, the figure's own is used.
    """

    source: str
    caption: str
    width: int | None = None


def write_report(
    path: Path,
    *,
    data: str,
    configuration: Mapping[str, Any],
    tables: Sequence[Path],
    runs: Sequence[Run],
    matrices: Mapping[Path, str],
    samples: Sequence[Path],
    problems: Path,
    warnings: Path,
    preprocessing: Path,
    sheet: pd.DataFrame,
    times: Sequence[Path],
) -> None:
    """Write the report of a run to the HTML file `path`.

    `data` is the configuration's, and `configuration` has its `file` and the settings `changed` from the defaults; `tables`
    are the files of Tables I to VII; `matrices` are confusion matrices (CSV) with their titles; `samples` are the pages of the
    contact sheets; `problems`, `warnings` and `preprocessing` are the stages' tables of these names, `sheet` is the sample sheet,
    and `times` the files that say how long jobs took (see `stage_times`).
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    results = {table: pd.read_csv(table) for table in tables}
    scored = {table: rows for table, rows in results.items() if "selection" in rows}
    datasets = [named(name) for name in sheet["dataset"].unique()]
    page = environment.get_template(TEMPLATE.name).render(
        data=data,
        about=", ".join(datasets) if data == "own" else data,
        data_meaning=DATA[data],
        version=merba.__version__,
        clips=len(sheet),
        subjects=sheet.groupby(["dataset", "subject"]).ngroups,
        datasets=datasets,
        results=[_result(table, rows, data) for table, rows in scored.items()],
        others=[(_title(table), table.name, plain_table(rows)) for table, rows in results.items() if table not in scored],
        matrices=[_matrix(title, pd.read_csv(table, index_col="true")) for table, title in matrices.items()],
        subjects_figures=[_subjects(run) for run in runs],
        curves=[_curves(run) for run in runs if run.history["epoch"].max() > 1],  # fitted methods have none
        folds=[(run, plain_table(fold_table(run))) for run in runs],
        samples=_contact_sheets(samples, path.parent),
        problems=plain_table(pd.read_csv(problems, dtype=str, keep_default_na=False)),
        warnings=plain_table(pd.read_csv(warnings, dtype=str, keep_default_na=False)),
        preprocessing=plain_table(pd.read_csv(preprocessing)),
        times=plain_table(stage_times(times, runs).round(1)),
        configuration=configuration,
        versions=_versions(runs),
    )
    path.write_text(page)
    if path.stat().st_size > LARGEST:
        log.warning("%s is larger than %.1f MB, so Snakemake's report can't show it; open the file itself", path, LARGEST / 1e6)


def _title(table: Path) -> str:
    return TABLES.get(table.stem[:7], table.stem)


def _result(table: Path, rows: pd.DataFrame, data: str) -> dict[str, Any]:
    ours = rows[rows["source"] == "reproduced"]
    labels = ours["method"] + " (" + ours["experiment"] + ")"
    if "test_set" in ours:
        labels += ", test set " + ours["test_set"].map(WORDS)
    prefix = "combined_" if "combined_uf1" in ours else ""
    scores = pd.DataFrame(
        {
            "label": labels,
            "uf1": ours[f"{prefix}uf1"],
            "low": ours[f"{prefix}uf1_low"],
            "high": ours[f"{prefix}uf1_high"],
            "leaks": ours["leaks"],
        }
    )
    return {
        "title": _title(table),
        "file": table.name,
        "parts": score_tables(rows, data),
        "figure": _drawn(lambda path: plot_scores(scores, path=path), "UF1 of this run's rows, honest choice against oracle"),
    }


def _matrix(title: str, counts: pd.DataFrame) -> dict[str, Any]:
    """A confusion matrix: title, n, predicted classes, and the rows (true class, [(clips, share of the true class)])."""
    shares = counts.div(counts.sum(axis=1).replace(0, 1), axis=0)
    rows = [(name, list(zip(counts.loc[name], shares.loc[name], strict=True))) for name in counts.index]
    return {"title": title, "n": int(counts.to_numpy().sum()), "classes": list(counts), "rows": rows}


def _subjects(run: Run) -> Figure:
    title = f"{run.settings['method']}: UF1 by subject"
    scores = subject_scores(run.predictions).replace({"dataset": NAMES, "split": WORDS})
    return _drawn(lambda path: plot_subjects(scores, title=title, path=path), f"{title} ({run.name})", "png")


def _curves(run: Run) -> Figure:
    title = run.settings["method"]
    return _drawn(lambda path: plot_curves(run.history, title=title, path=path), f"{title}: learning curves ({run.name})", "png")


def _drawn(draw: Callable[[Path], None], caption: str, kind: str = "svg") -> Figure:
    """A figure as SVG; with many lines, which would take megabytes, as `kind` png."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"figure.{kind}"
        draw(path)
        if kind == "svg":
            return Figure(_embedded("svg+xml", path.read_bytes()), caption)
        source, width = _webp(path, LOSSLESS)
        return Figure(source, caption, round(width * SCREEN / DPI))


def _contact_sheets(pages: Sequence[Path], folder: Path) -> list[Figure]:
    """The pages, embedded while there is room; the others are files in `folder`, next to the report."""
    figures, room = [], SHEETS
    for page in pages:
        name, number = page.stem.removeprefix("samples_").rsplit("_", 1)
        embedded = _webp(page, PHOTOGRAPHS)[0] if room > 0 else ""
        room -= len(embedded)
        source = embedded if room > 0 else page.relative_to(folder).as_posix()
        figures.append(Figure(source, f"{named(name)}, page {int(number)}"))
    return figures


def _webp(path: Path, quality: int) -> tuple[str, int]:
    """An image file as a data URI of WebP, which takes a fraction of the bytes, and its width in px."""
    import cv2

    image = cv2.imread(str(path))
    _, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return _embedded("webp", encoded.tobytes()), image.shape[1]


def _embedded(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _versions(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, int]]]]:
    """What the folds were made with: for versions, device, threads, seeds and inputs, the values and their numbers of folds."""
    values_of: dict[str, Counter[str]] = {}
    for record in (record for run in runs for record in run.records):
        entries = record["versions"] | {"device": record["device"], "CPU threads": record["threads"]}
        entries |= {"seeds": ", ".join(record["seeds"])}
        entries |= {f"SHA-256 of {name}": value for name, value in record["inputs"].items()}
        for name, value in entries.items():
            values_of.setdefault(name, Counter())[str(value)] += 1
    return [(name, values.most_common()) for name, values in values_of.items()]
