"""The report's page: it contains all that it shows, agrees with the tables, never mixes data, and works in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from browser import opened
from workflow_runs import snakemake

from merba.evaluation import report
from merba.evaluation.paper_tables import confusion_table, table_5
from merba.evaluation.report import _contact_sheets, write_report
from merba.evaluation.report_cells import plain_table, score_tables
from merba.evaluation.runs import Run, fold_table, stage_times, subject_scores
from merba.figures import flow_colours

ROOT = Path(__file__).parents[2]
CLASSES = ["negative", "positive", "surprise"]
SETTINGS = {
    "method": "MERba-nano",
    "backbone": "SSM+ViT",
    "protocol": "loso",
    "stopping": "validation",
    "control": "none",
    "against": None,
    "datasets": ["casme2", "samm"],
    "seeds": [0],
}


def write_fold(folder: Path, dataset: str, subject: str, wrong: int) -> None:
    """A fold of six test clips, two per class; the honest choice gets `wrong` of them wrong, the oracle none."""
    folder.mkdir(parents=True)
    parts = []
    for selection, misses in (("validation", wrong), ("oracle", 0)):
        true = CLASSES * 2
        predicted = ["surprise" if i < misses and name == "negative" else name for i, name in enumerate(true)]
        rows = {"clip": [f"c{i}" for i in range(6)], "true": true, "predicted": predicted}
        part = pd.DataFrame(rows).assign(dataset=dataset, subject=subject, split="all", seed=0, selection=selection, epoch=2)
        parts.append(part.assign(**{f"p_{name}": 1 / 3 for name in CLASSES}))
    pd.concat(parts).to_parquet(folder / "predictions.parquet", index=False)
    epochs = {"seed": 0, "epoch": [1, 2, 3], "train_loss": [1.0, 0.5, 0.4], "validation_uf1": [0.3, 0.6, 0.5]}
    pd.DataFrame(epochs | {"oracle_test_accuracy": [0.2, 0.5, 1.0]}).to_csv(folder / "history.csv", index=False)
    record = {
        "experiment": SETTINGS,
        "dataset": dataset,
        "subject": subject,
        "clips": {"train": 15, "validation": 3, "test": 6},
        "seeds": {"1": {"epoch": 2, "oracle_epoch": 3, "epochs": 3}},
        "inputs": {"samm.npy": "ab" * 32},
        "device": "cpu",
        "threads": 1,
        "versions": {"merba": "0.1.0", "torch": "2.13.0"},
        "seconds": 12.34,
        "peak_memory_mb": 700,
    }
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished experiment of four folds."""
    results = tmp_path_factory.mktemp("run") / "results"
    subjects = [("casme2", "sub01", 1), ("casme2", "sub02", 4), ("samm", "006", 0), ("samm", "007", 4)]
    folders = [results / "folds" / "merba" / dataset / subject for dataset, subject, _ in subjects]
    for folder, (dataset, subject, wrong) in zip(folders, subjects, strict=True):
        write_fold(folder, dataset, subject, wrong)
    return Run("merba", SETTINGS, folders)


@pytest.fixture(scope="module")
def page(run):
    """The report of `run`, written."""
    return write_page(run, "demo")


def write_page(run: Run, data: str) -> Path:
    results = run.folders[0].parents[3]
    times = [results / "times" / "faces" / "samm" / f"{subject}.tsv" for subject in ("006", "007")]
    times[0].parent.mkdir(parents=True, exist_ok=True)
    for path, seconds in zip(times, (3.0, 5.5), strict=True):
        path.write_text(f"s\th:m:s\n{seconds}\t0:00:03\n")
    honest = run.predictions[run.predictions["selection"] == "validation"]
    sheet = honest[["dataset", "subject", "clip", "split"]].assign(label=honest["true"]).reset_index(drop=True)
    table = results / "table_5_3db.csv"
    table_5([run], sheet, data).round(4).to_csv(table, index=False)
    matrix = results / "confusion.csv"
    confusion_table(run.predictions, "validation").to_csv(matrix)
    problems, preprocessing = results / "problems.csv", results / "preprocessing.csv"
    pd.DataFrame({"dataset": ["samm"], "subject": ["006"], "clip": ["c9"], "problem": ["no face <here>"]}).to_csv(
        problems, index=False
    )
    warnings = results / "warnings.csv"
    pd.DataFrame({"dataset": ["samm"], "subject": ["006"], "clip": ["c1"], "warning": ["the head moves"]}).to_csv(
        warnings, index=False
    )
    pd.DataFrame({"dataset": ["samm"], "clips": [12], "head_motion_median": [0.5]}).to_csv(preprocessing, index=False)
    samples = results / "figures" / "samples_samm_001.jpg"
    samples.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(samples), flow_colours(np.ones((2, 40, 60)), 2.0))
    path = results / f"summary_{data}.html"
    write_report(
        path,
        data=data,
        configuration={"file": "mine.yaml", "changed": {"training.epochs": 7}},
        tables=[table],
        runs=[run],
        matrices={matrix: "MERba-nano"},
        samples=[samples],
        problems=problems,
        warnings=warnings,
        preprocessing=preprocessing,
        sheet=sheet,
        times=times,
    )
    return path


class Rows(HTMLParser):
    """The rows of every table of a page: label → rows of (text, value to sort by or None)."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.images: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.rows = self.tables.setdefault(attributes["aria-label"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append(["", attributes.get("data-value")])
        elif tag == "img":
            self.images.append(attributes["src"])

    def handle_data(self, data):
        if getattr(self, "rows", None) and self.rows[-1] and self.lasttag in ("td", "small"):
            self.rows[-1][-1][0] += data


def test_the_page_needs_nothing_beside_itself(page):
    text = page.read_text()
    images = Rows(page).images
    assert len(images) == 4  # scores, subjects, curves, samples
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/webp;base64,")) for source in images)
    outside = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.findall(r"https?://", outside)
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"(?!data:)", outside)


def test_contact_sheets_that_have_no_room_in_the_page_are_read_from_beside_it(monkeypatch, tmp_path):
    pages = [tmp_path / "figures" / f"samples_casme2_{page:03}.jpg" for page in (1, 2, 3)]
    pages[0].parent.mkdir()
    for path in pages:
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))
    embedded = len(_contact_sheets(pages[:1], tmp_path)[0].source)
    monkeypatch.setattr(report, "SHEETS", embedded + 1)
    first, *others = _contact_sheets(pages, tmp_path)
    assert first.source.startswith("data:image/webp;base64,")
    assert [figure.source for figure in others] == ["figures/samples_casme2_002.jpg", "figures/samples_casme2_003.jpg"]
    assert [figure.caption for figure in (first, *others)] == [f"CASME II, page {page}" for page in (1, 2, 3)]


def test_the_page_shows_the_numbers_of_the_table(page, run):
    table = pd.read_csv(page.parent / "table_5_3db.csv")
    ours = table[table["source"] == "reproduced"]
    shown = [row for row in Rows(page).tables["Table V: leave-one-subject-out"] if row]
    for row, cells in zip(ours.to_dict("records"), shown, strict=True):
        values = [float(value) for value in (value or text for text, value in cells) if re.fullmatch(r"[\d.]+", value)]
        for column in ("combined_uf1", "combined_uar", "combined_n", "casme2_uf1", "samm_uar", "samm_n"):
            assert row[column] in values
        assert f"{row['combined_uf1_low']:.3f}–{row['combined_uf1_high']:.3f}" in "".join(text for text, _ in cells)


def test_the_page_shows_the_counts_of_the_matrix(page):
    counts = pd.read_csv(page.parent / "confusion.csv", index_col="true")
    _, *rows = Rows(page).tables["Confusion matrix of MERba-nano"]
    assert [[int(text.split()[0]) for text, _ in row] for row in rows] == counts.to_numpy().tolist()


def test_leaking_rows_are_marked_and_others_are_not(page):
    rows = re.findall(r'<tr class="(\w+)">(.*)', page.read_text())
    assert [kind for kind, _ in rows] == ["ours", "leaks", "leaks", "leaks"]
    (_, honest), (_, oracle), (_, slstt), (_, htnet) = rows
    assert "on the test clips: leaks" in oracle and "leaks" not in honest
    assert "SLSTT" in slstt and "HTNet" in htnet  # published, by authors whose code leaks


@pytest.mark.parametrize(("data", "parts"), [("demo", [["demo"], ["3db"]]), ("3db", [["3db"]])])
def test_a_part_of_a_table_holds_one_data_alone(data, parts):
    rows = [
        {"method": "A", "source": "published", "data": "3db", "combined_uf1": 0.5, "leaks": "unknown"},
        {"method": "B", "source": "reproduced", "data": data, "combined_uf1": 0.6, "leaks": "no", "selection": "last"},
    ]
    found = score_tables(pd.DataFrame(rows), data)
    assert [[clips] for _, clips, _ in found] == parts
    assert sum(len(table.rows) for _, _, table in found) == 2
    assert found[0][0]


def test_numbers_of_a_column_have_equally_many_decimals():
    table = plain_table(pd.DataFrame({"stage": ["a", "b"], "jobs": [12, 3], "total": [53.0, 1.25], "n": [4.0, np.nan]}))
    assert [[cell.text for cell in row] for row in table.rows] == [["a", "12", "53.00", "4"], ["b", "3", "1.25", "–"]]


def test_a_problem_is_shown_as_text(page):
    assert "no face &lt;here&gt;" in page.read_text()


def test_a_warning_is_shown_with_its_clip(page):
    (_, row) = Rows(page).tables["Warnings"]
    assert [text.strip() for text, _ in row] == ["samm", "006", "c1", "the head moves"]


def test_headings_name_ones_own_data(run, tmp_path):
    mine = Run("merba", SETTINGS, [Path(shutil.copytree(path, tmp_path / "/".join(path.parts[-5:]))) for path in run.folders])
    headings = re.findall(r"<h[1-3][^>]*>(.*)</h", write_page(mine, "own").read_text())
    assert headings[0] == "Report of a run on CASME II, SAMM"
    assert not [heading for heading in headings if re.search("3DB|DFME|composite|demo", heading)]


def test_folds_count_what_was_right(run):
    folds = fold_table(run)
    assert folds[["subject", "right", "oracle_right", "epoch", "epochs", "test"]].to_numpy().tolist() == [
        ["sub01", 5, 6, 2, 3, 6],
        ["sub02", 4, 6, 2, 3, 6],
        ["006", 6, 6, 2, 3, 6],
        ["007", 4, 6, 2, 3, 6],
    ]


def test_a_fitted_method_has_no_oracle(run, tmp_path):
    folders = [Path(shutil.copytree(path, tmp_path / "/".join(path.parts[-5:]))) for path in run.folders]
    for folder in folders:
        rows = pd.read_parquet(folder / "predictions.parquet")
        rows[rows["selection"] != "oracle"].to_parquet(folder / "predictions.parquet", index=False)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | {"seeds": {"1": {"epoch": 1, "epochs": 1}}}))
        pd.DataFrame({"seed": [0], "epoch": [1]}).to_csv(folder / "history.csv", index=False)
    fitted = Run("lda", SETTINGS, folders)
    assert fold_table(fitted)["oracle_right"].isna().all()
    assert "oracle" not in subject_scores(fitted.predictions)
    assert "on the test clips: leaks" not in write_page(fitted, "demo").read_text()


def test_the_page_names_the_configuration_and_what_differs_from_the_defaults(page):
    assert "<code>mine.yaml</code>" in page.read_text()
    assert '<th scope="row">training.epochs</th><td><code>7</code></td>' in page.read_text()


def test_a_subjects_uf1_is_of_its_own_clips(run):
    scores = subject_scores(run.predictions).set_index("subject")
    # Two of two negative clips taken for surprise: F1 of 0, 1 and 2·2 / (2 + 4).
    assert scores.loc["sub02", "honest"] == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert scores.loc["006", "honest"] == 1
    assert set(scores["oracle"]) == {1}
    assert set(scores["n"]) == {6}


def test_stage_times_are_of_the_named_files_that_exist_and_of_the_folds_records(run, tmp_path):
    for name, seconds in (("a/x/1", 2.5), ("a/y", 4.0), ("gone/z", 9.0), ("b", 0.5)):
        path = tmp_path / "times" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t-\n")
    files = [tmp_path / "times" / f"{name}.tsv" for name in ("a/x/1", "a/y", "b", "absent")]
    assert stage_times(files, [run]).to_dict("records") == [
        {"stage": "fold", "jobs": 4, "total": 49.36, "median": 12.34, "longest": 12.34, "longest_job": "merba casme2 sub01"},
        {"stage": "a", "jobs": 2, "total": 6.5, "median": 3.25, "longest": 4.0, "longest_job": "y"},
        {"stage": "b", "jobs": 1, "total": 0.5, "median": 0.5, "longest": 0.5, "longest_job": ""},
    ]


LOOK = """
    const figures = [...document.querySelectorAll("figure img")];
    const button = [...document.querySelectorAll("th button")].find((one) => one.textContent === "right");
    const table = button.closest("table"), column = button.parentElement.cellIndex;
    const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].textContent));
    const sorted = () => { button.click(); return values(); };
    const orders = [sorted(), sorted()];
    figures[0].click();
    const large = document.querySelector("dialog[open] img");
    await large.decode();
    return {loaded: figures.map((image) => image.naturalWidth > 0), orders, large: [large.width, large.naturalWidth]};
"""


@pytest.mark.slow
def test_the_page_works_in_a_browser(page, tmp_path):
    console, found = opened(page, LOOK, tmp_path)
    assert console == []
    assert found["loaded"] == [True] * 4
    assert found["orders"] == [[4, 4, 5, 6], [6, 5, 4, 4]]
    assert found["large"][0] == found["large"][1]


OPEN_SUMMARY = """
    const links = (wanted) => [...document.querySelectorAll("a")].filter(wanted);
    const wait = () => new Promise((resolve) => setTimeout(resolve, 1000));
    await wait();
    links((one) => one.textContent.trim() === "Summary")[0].click();
    await wait();
    const listed = document.body.innerText;
    links((one) => one.className.includes("inline-block"))[0].click();
    await wait();
    return {listed, shown: document.querySelector("iframe")?.src.length};
"""


@pytest.mark.slow
def test_snakemakes_report_shows_the_summary(micro_demo, tmp_path):
    report = tmp_path / "report.html"
    snakemake(micro_demo, "--report", report)
    console, found = opened(report, OPEN_SUMMARY, tmp_path)
    # Snakemake's own notice about the style sheet that it embeds.
    assert [line for line in console if "cdn.tailwindcss.com" not in line] == []
    assert "results/summary.html" in found["listed"]
    # Chromium doesn't show a longer data: URL in a frame.
    assert 0 < found["shown"] < 2 * 2**20
