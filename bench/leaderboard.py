"""Every method on the public flow as a table and a figure: docs/results.md, docs/results.png and the CSVs of the same folder.

python bench/leaderboard.py      (after every `merba collect` that adds to merba/evaluation/predictions)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from merba.config import experiment_settings, load_config
from merba.datasets.tasks import DATASETS_3DB, composite
from merba.evaluation import paper_tables
from merba.evaluation.comparison import shipped_predictions
from merba.evaluation.figures import plot_scores
from merba.evaluation.runs import Run
from merba.evaluation.scoring import complete_seeds, read_predictions

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "public_flow.yaml"
PAGE = ROOT / "docs" / "results.md"
MARKS = "<!-- bench/leaderboard.py -->\n\n", "\n\n<!-- end -->"
TABLES = {
    "table_6_lgfi": ["extractor", "self_attention"],
    "table_7_scanning": ["directions"],
}
"""The tables of ablations, and the columns in which their rows differ."""


@dataclass(frozen=True)
class CollectedRun(Run):
    """A run of which only the predictions are available, in a file of `merba collect`."""

    file: Path

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The predictions of all finished seeds."""
        return complete_seeds(read_predictions(self.file))


def shipped_runs(table: str) -> list[CollectedRun]:
    """The experiments that belong to a table, such as table_5_3db, and have shipped predictions."""
    config, files = load_config(CONFIG), shipped_predictions()
    settings = {name: experiment_settings(config, name, DATASETS_3DB) for name in config["experiments"] if name in files}
    return [CollectedRun(name, its, [], files[name]) for name, its in settings.items() if table in its["tables"]]


def results(table: str) -> pd.DataFrame:
    """Our rows of a table, such as table_5_3db."""
    rows = getattr(paper_tables, table[:7])(shipped_runs(table), composite(), load_config(CONFIG)["data"])
    return rows[rows["source"] == "reproduced"].dropna(axis=1, how="all")


def markdown(rows: pd.DataFrame, about: dict[str, str], prefix: str = "") -> str:
    """One row per method, best first: the columns `about` by their headings, scores by the honest choice, UF1 by the oracle.

    A method without an oracle row has no epochs. `prefix` is that of the composite's scores; scores of single datasets and
    differences follow if there are any.
    """
    honest, oracle = (rows[rows["leaks"] == leaks].set_index("experiment") for leaks in ("no", "yes"))
    lines = []
    for name, row in honest.sort_values(f"{prefix}uf1", ascending=False).iterrows():
        cells = {heading: str(row[column]) for column, heading in about.items()}
        if "epoch" in cells and name not in oracle.index:
            cells["epoch"] = "–"
        cells |= {"folds": row["folds"], "seeds": row["seeds"], "UF1 (95 % interval)": _interval(row, f"{prefix}uf1")}
        cells["UAR"] = f"{row[f'{prefix}uar']:.3f}"
        for dataset, heading in zip(DATASETS_3DB, ("SMIC-HS UF1", "CASME II UF1", "SAMM UF1"), strict=True):
            if f"{dataset}_uf1" in row:
                cells[heading] = f"{row[f'{dataset}_uf1']:.3f}"
        if "difference" in rows:
            (rival,) = rows["against"].dropna().unique()
            differs = pd.notna(row["difference"])
            cells[f"UF1 minus that of {honest.at[rival, 'method']}"] = _interval(row, "difference", "+") if differs else "–"
        cells["*oracle UF1 (leaks)*"] = f"*{oracle.at[name, f'{prefix}uf1']:.3f}*" if name in oracle.index else "–"
        lines.append(cells)
    head = list(lines[0])
    body = [list(map(str, cells.values())) for cells in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


def _interval(row: pd.Series, name: str, sign: str = "") -> str:
    middle, low, high = (f"{row[column]:{sign}.3f}" for column in (name, f"{name}_low", f"{name}_high"))
    return re.sub(r"[+-](0\.000)", r"\1", f"{middle} ({low} to {high})").replace("-", "−")


def draw(rows: pd.DataFrame, path: Path) -> None:
    """The figure of UF1 with its interval, honest and oracle, methods from the best honest one down."""
    order = rows[rows["leaks"] == "no"].sort_values("combined_uf1", ascending=False)["experiment"].tolist()
    rows = rows.sort_values("experiment", key=lambda names: names.map(order.index), kind="stable")
    scores = rows[["method", "combined_uf1", "combined_uf1_low", "combined_uf1_high", "leaks"]]
    plot_scores(scores.set_axis(["label", "uf1", "low", "high", "leaks"], axis=1), path=path)


def page(text: str, tables: dict[str, pd.DataFrame]) -> str:
    """The page `text` with the tables between its marks."""
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    parts = [markdown(tables["table_5_3db"], {"method": "method", "selection": "epoch"}, "combined_")]
    for name, columns in TABLES.items():
        if tables[name]["experiment"].nunique() > 1:
            title = f"Table {'VI' if '_6_' in name else 'VII'} on these clips:"
            parts += [title, markdown(tables[name], {column: column.replace("_", "-") for column in columns})]
    return before + MARKS[0] + "\n\n".join(parts) + MARKS[1] + after


def main() -> None:
    """Write the page, its figure, and the tables' CSVs."""
    tables = {name: results(name) for name in ("table_5_3db", *TABLES)}
    for name, rows in tables.items():
        if len(rows):
            rows.round(4).to_csv(ROOT / "docs" / "results" / f"public_flow_{name}.csv", index=False)
    draw(tables["table_5_3db"], PAGE.with_suffix(".png"))
    PAGE.write_text(page(PAGE.read_text(), tables))


if __name__ == "__main__":
    main()
