"""The report: one HTML page that says what a run found, from its tables, folds, figures and logs.

The page needs nothing beside itself: figures are embedded, and the little script in it is our own.
"""

from __future__ import annotations

import base64
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

import merba
from merba.result_plots import DPI, plot_curves, plot_scores, plot_subjects
from merba.runs import Run, fold_table, stage_times, subject_scores

log = logging.getLogger(__name__)

LARGEST = 1_500_000
"""Bytes of a page that Snakemake's report can show: Chromium opens no data: URL of more than 2 MB in a frame."""
LOSSLESS, PHOTOGRAPHS = 101, 75
"""Qualities of WebP as OpenCV counts them."""
SCREEN = 96
"""Pixels an inch of a page."""
TEMPLATE = Path(__file__).with_name("report.html.j2")
DATA = {
    "demo": "rendered clips with known movements, whose scores mean nothing for real faces",
    "public_flow": "ready-made flow of the MEGC2019 composite; the paper computes its own flow from the raw clips",
    "3db": "the MEGC2019 composite from raw clips, as in the paper",
    "dfme": "DFME from raw clips, as in the paper",
    "own": "your own clips",
}
CHOSEN = {"validation": "on validation subjects", "last": "the last", "oracle": "on the test clips: leaks"}
NAMES = {
    "smic_hs": "SMIC-HS",
    "casme2": "CASME II",
    "samm": "SAMM",
    "dfme": "DFME",
    "selection": "epoch chosen",
    "table_1": "Table I: sizes of the models",
    "table_2": "Table II: DFME's clips by split and class",
    "table_3": "Table III: clips by class",
    "table_4": "Table IV: DFME, test sets A and B",
    "table_5": "Table V: leave-one-subject-out on the composite",
    "table_6": "Table VI: where extractors and attention look",
    "table_7": "Table VII: directions of the scan",
}
ABOUT = ("row", "method", "directions", "extractor", "self_attention", "test_set", "year", "selection", "control", "seeds")
"""Columns of a results table that stand in front of the scores, where any row has them; then folds and clips."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the value it sorts by (empty where there is none), the small print below, whether it is a number."""

    text: str
    value: str
    small: str = ""
    number: bool = False


@dataclass(frozen=True)
class Table:
    """An HTML table: headings, the groups of columns above them (name, width), rows of cells, and a class for each row."""

    headings: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]]
    classes: list[str]


@dataclass(frozen=True)
class Figure:
    """A figure, embedded: `source` is a data URI, `caption` what it shows, `width` its width on the page (px), if not its own."""

    source: str
    caption: str
    width: int | None = None


def write_report(
    path: Path,
    *,
    data: str,
    tables: Sequence[Path],
    runs: Sequence[Run],
    matrices: Mapping[Path, str],
    samples: Mapping[str, Path],
    problems: Path,
    preprocessing: Path,
    sheet: pd.DataFrame,
    logs: Path,
) -> None:
    """Write the report of a run to the HTML file `path`.

    `data` is the configuration's; `tables` are the files of Tables I to VII; `matrices` are confusion matrices (CSV) with
    their titles; `samples` are the sample figures (PNG) by dataset; `problems` and `preprocessing` are the stages' tables
    of these names, `sheet` is the sample sheet, and `logs` the folder whose logs tell how long each job took.
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
    page = environment.get_template(TEMPLATE.name).render(
        data=data,
        data_meaning=DATA[data],
        version=merba.__version__,
        clips=len(sheet),
        subjects=sheet.groupby(["dataset", "subject"]).ngroups,
        datasets=[NAMES.get(name, name) for name in sheet["dataset"].unique()],
        results=[_result(table, rows, data) for table, rows in scored.items()],
        others=[(_title(table), table.name, plain_table(rows)) for table, rows in results.items() if table not in scored],
        matrices=[_matrix(title, pd.read_csv(table, index_col="true")) for table, title in matrices.items()],
        subjects_figures=[_subjects(run) for run in runs],
        curves=[_curves(run) for run in runs],
        folds=[(run, plain_table(fold_table(run))) for run in runs],
        samples=[_photograph(file, NAMES.get(name, name)) for name, file in samples.items()],
        problems=plain_table(pd.read_csv(problems, dtype=str)),
        preprocessing=plain_table(pd.read_csv(preprocessing)),
        times=plain_table(stage_times(logs).round(1)),
        versions=_versions(runs),
    )
    path.write_text(page)
    if path.stat().st_size > LARGEST:
        log.warning("%s: over %.1f MB, which Snakemake's report can't show; open the file itself", path, LARGEST / 1e6)


def score_tables(rows: pd.DataFrame, data: str) -> list[tuple[bool, str, Table]]:
    """A results table in parts that never mix data: (whether they hold rows of this run, whose clips, table).

    Where this run's `data` is the paper's, the published rows stand in the same part.
    """
    parts = []
    for clips, part in rows.groupby("data", sort=False):
        parts.append((bool((part["source"] == "reproduced").any()), str(clips), _score_table(part)))
    return sorted(parts, key=lambda part: part[1] != data)


def _score_table(rows: pd.DataFrame) -> Table:
    rows = rows.dropna(axis=1, how="all")
    about = [
        name for name in (*ABOUT, "folds", "clips") if name in rows and not (name == "control" and set(rows[name]) <= {"none"})
    ]
    prefixes = [column.removesuffix("uf1") for column in rows if column == "uf1" or column.endswith("_uf1")]
    groups, headings = [("", len(about) + 1)], ["rows of", *(NAMES.get(name, name.replace("_", " ")) for name in about)]
    scores: list[Callable[[pd.Series], Cell]] = []
    for prefix in prefixes:
        shown = [score for score in ("uf1", "uar", "acc") if f"{prefix}{score}" in rows and (score != "acc" or not prefix)]
        scores += [lambda row, name=f"{prefix}{score}": _score(row, name) for score in shown]
        headings += [score.upper() for score in shown]
        if f"{prefix}n" in rows:
            scores.append(lambda row, name=f"{prefix}n": _plain(row[name]))
            headings.append("n")
            shown.append("n")
        name = prefix.removesuffix("_")
        groups.append((NAMES.get(name, name), len(shown)))
    if "difference" in rows:
        scores.append(_difference)
        headings.append("ΔUF1")
        groups.append(("against", 1))
    cells, classes = [], []
    for _, row in rows.iterrows():
        ours = row["source"] == "reproduced"
        leaks = ours and bool(row["leaks"])
        classes.append("leaks" if leaks else "ours" if ours else "")
        cells.append(
            [_plain("this run" if ours else "paper"), *(_about(row, name) for name in about), *(one(row) for one in scores)]
        )
    return Table(headings, cells, groups if any(name for name, _ in groups) else [], classes)


def _about(row: pd.Series, name: str) -> Cell:
    if name == "selection" and row[name] in CHOSEN:
        return _plain(CHOSEN[row[name]])
    return _plain(row[name])


def _score(row: pd.Series, name: str) -> Cell:
    """A score to four digits, as the CSV has it, with its interval and spread where there are any."""
    if pd.isna(row[name]):
        return _plain(None)
    small = ""
    if pd.notna(row.get(f"{name}_low")):
        small = f"{row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f}"
    if pd.notna(row.get(f"{name}_seed_sd")):
        small += f", ±{row[f'{name}_seed_sd']:.3f} over seeds"
    return Cell(f"{row[name]:.4f}", f"{row[name]:.4f}", small, True)


def _difference(row: pd.Series) -> Cell:
    if pd.isna(row["difference"]):
        return _plain(None)
    interval = f"{row['difference_low']:+.3f} to {row['difference_high']:+.3f}"
    return Cell(
        f"{row['difference']:+.4f}",
        float(row["difference"]),
        f"{interval}, to {row['against']}, n = {row['against_n']:.0f}",
        True,
    )


def plain_table(rows: pd.DataFrame) -> Table:
    """Any table, as it is."""
    cells = [[_plain(value) for value in record] for record in rows.itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in rows], cells, [], [""] * len(cells))


def _plain(value: Any) -> Cell:
    """A value as text; whole numbers without a point, thousands apart from five digits on."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return Cell("–", "")
    if isinstance(value, str | bool):
        return Cell(str(value), str(value))
    number = float(value)
    whole = math.isfinite(number) and number == int(number)
    text = (f"{int(number):,}" if abs(number) >= 10_000 else str(int(number))) if whole else f"{number:g}"
    return Cell(text, f"{number:g}", number=True)


def _title(table: Path) -> str:
    return NAMES.get(table.stem[:7], table.stem)


def _result(table: Path, rows: pd.DataFrame, data: str) -> dict[str, Any]:
    ours = rows[rows["source"] == "reproduced"]
    labels = ours["method"] + (" " + ours["test_set"].str.replace("_", " ") if "test_set" in ours else "")
    prefix = "combined_" if "combined_uf1" in ours else ""
    scores = pd.DataFrame(
        {
            "label": labels,
            "uf1": ours[f"{prefix}uf1"],
            "low": ours[f"{prefix}uf1_low"],
            "high": ours[f"{prefix}uf1_high"],
            "leaks": ours["leaks"].astype(bool),
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
    scores = subject_scores(run.predictions)
    return _drawn(lambda path: plot_subjects(scores, title=title, path=path), f"{title} ({run.name})", "png")


def _curves(run: Run) -> Figure:
    title = run.settings["method"]
    return _drawn(lambda path: plot_curves(run.history, title=title, path=path), f"{title}: learning curves ({run.name})", "png")


def _drawn(draw: Callable[[Path], None], caption: str, kind: str = "svg") -> Figure:
    """A figure as SVG; of many lines, where that would be megabytes, as `kind` png."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"figure.{kind}"
        draw(path)
        if kind == "svg":
            return Figure(_embedded("svg+xml", path.read_bytes()), caption)
        source, width = _webp(path, LOSSLESS)
        return Figure(source, caption, round(width * SCREEN / DPI))


def _photograph(path: Path, caption: str) -> Figure:
    return Figure(_webp(path, PHOTOGRAPHS)[0], caption)


def _webp(path: Path, quality: int) -> tuple[str, int]:
    """A PNG as a data URI of WebP, which takes a fraction of the bytes, and its width in px."""
    import cv2

    image = cv2.imread(str(path))
    _, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return _embedded("webp", encoded.tobytes()), image.shape[1]


def _embedded(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _versions(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, int]]]]:
    """What the folds were made with: each of versions, device, threads, seeds, inputs with its values and their folds."""
    found: dict[str, Counter[str]] = {}
    for record in (record for run in runs for record in run.records):
        entries = record["versions"] | {"device": record["device"], "CPU threads": record["threads"]}
        entries |= {"seeds": ", ".join(record["seeds"])}
        entries |= {f"SHA-256 of {name}": value for name, value in record["inputs"].items()}
        for name, value in entries.items():
            found.setdefault(name, Counter())[str(value)] += 1
    return [(name, values.most_common()) for name, values in found.items()]
