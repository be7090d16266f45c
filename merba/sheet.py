"""The sample sheet: one row per clip, its checks, safe ids for paths, and digests that decide what reruns."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from merba.config.validation import schema
from merba.errors import MerbaError

NUMBERS = {"onset": "Int64", "apex": "Int64", "offset": "Int64", "fps": "float64", "bits": "Int64"}
"""The columns that hold numbers; the others are text."""
KEY = ["dataset", "subject", "clip"]
FRAMES = ["dataset", "subject", "source", "onset", "apex", "offset"]
"""Columns in which two clips must differ; where subjects do, see `merba.datasets.shared_frames`."""
PREPROCESSING = [*KEY, "source", "kind", "onset", "apex", "offset", "bits"]
"""Columns that faces, apex and flow depend on; a new label reruns training only."""


@cache
def columns() -> tuple[str, ...]:
    """All columns of the sample sheet, in order: those of its schema."""
    return tuple(schema("samples")["properties"])


def sample_rows(rows: pd.DataFrame | Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The rows as a sample sheet, sorted by dataset, subject and clip.

    A missing column is null (apex, fps, …); emotion and split default to "" and "all".
    """
    given = pd.DataFrame(rows)
    defaults = {column: value for column, value in (("emotion", ""), ("split", "all")) if column not in given}
    sheet = given.assign(**defaults).reindex(columns=list(columns()))
    sheet = sheet.astype({column: NUMBERS.get(column, "str") for column in columns()})
    return sheet.sort_values(["dataset", "subject", "clip"], ignore_index=True)


def make_sheet(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` as a checked sample sheet: columns in order, integers nullable, sorted by dataset and subject.

    Raises MerbaError that lists every faulty row (see `check_sheet`).
    """
    missing = [column for column in columns() if column not in rows]
    if missing:
        raise MerbaError(f"sample sheet: missing column {', '.join(missing)}; it has {', '.join(rows.columns)}")
    sheet = rows.loc[:, list(columns())].astype(NUMBERS)
    sheet = sheet.sort_values(["dataset", "subject"], kind="stable", ignore_index=True)
    check_sheet(sheet)
    return sheet


def check_sheet(sheet: pd.DataFrame) -> None:
    """Raise MerbaError that names every row which breaks the schema, repeats a clip or its frames, or has frames out of order."""
    faults = [*_schema_faults(sheet)]
    for index in sheet.index[sheet.duplicated(KEY, keep="first")]:
        faults.append(f"{_name(sheet, index)}: this clip is listed twice; remove one of its rows")
    named = sheet.drop_duplicates(KEY)
    for index in named.index[named.duplicated(FRAMES)]:
        faults.append(f"{_name(sheet, index)}: another clip has the same onset, apex and offset there; remove one of the rows")
    for index in sheet.index[sheet["apex"].notna() & sheet["onset"].isna()]:
        faults.append(f"{_name(sheet, index)}: it has an apex but no onset; give both, or empty the apex to have it detected")
    for first, last in (("onset", "apex"), ("apex", "offset"), ("onset", "offset")):
        wrong = sheet[first] >= sheet[last] if first == "onset" else sheet[first] > sheet[last]
        for index in sheet.index[wrong.fillna(False).astype(bool)]:
            a, b = sheet.at[index, first], sheet.at[index, last]
            faults.append(f"{_name(sheet, index)}: {first} {a} is not before {last} {b}; correct the row in the annotation table")
    for name, group in sheet.groupby("dataset")["subject"]:
        faults += [
            f"dataset {name}: the subjects {first!r} and {second!r} differ only in case, zeros or spaces; write a person's name "
            "always in the same way, or give two people names that differ in more"
            for first, second in alike(group.unique())
        ]
    if sheet.empty:
        faults.append("it has no clips; check `datasets` in the configuration")
    report_faults(faults)


def report_faults(faults: Sequence[str]) -> None:
    """Raise MerbaError that lists the faults of a sample sheet, if there are any."""
    if faults:
        shown = [*faults[:50], *([f"… and {len(faults) - 50} more"] if len(faults) > 50 else [])]
        raise MerbaError("sample sheet:\n  " + "\n  ".join(shown))


def _schema_faults(sheet: pd.DataFrame) -> Iterable[str]:
    import fastjsonschema

    for index, record in zip(sheet.index, plain_rows(sheet, sheet.columns), strict=True):
        try:
            _row_validator()(record)
        except fastjsonschema.JsonSchemaValueException as error:
            yield f"{_name(sheet, index)}: {error.message.removeprefix('data.')}, not {error.value!r}"


@cache
def _row_validator():
    import fastjsonschema

    return fastjsonschema.compile({k: v for k, v in schema("samples").items() if k != "$schema"})


def _name(sheet: pd.DataFrame, index: int) -> str:
    row = sheet.loc[index]
    return f"row {index + 1} ({row['dataset']} {row['subject']} {row['clip']}, source {row['source']})"


@cache
def safe_id(name: str) -> str:
    """`name` as one path component: letters, digits, `_` and `-` stay, anything else adds a short hash.

    Different names give different ids: only a name that is its own id has no hash.
    """
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,60}", name):
        return name
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40]
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def loose(name: str) -> str:
    """A name in lower case, without zero padding, with accents in one form: `s1` for `S01`, `ep2_1f` for `EP02_01f`."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", unicodedata.normalize("NFC", name).casefold())


def alike(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Pairs of names that differ only in case, zeros, spaces and invisible characters.

    They are probably one person, who would be both trained on and tested, and some file systems ignore case. A space between
    two numbers counts: `1 12` and `11 2` are different names.
    """
    seen: dict[str, str] = {}
    for name in names:
        visible = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf")
        spaced = loose(" ".join(visible.split()))
        other = seen.setdefault(re.sub(r"(?<!\d) | (?!\d)", "", spaced), name)
        if other != name:
            yield other, name


def class_names(sheet: pd.DataFrame, datasets: Sequence[str]) -> list[str]:
    """The classes of the datasets' clips, in alphabetical order, which is the order of the models' outputs."""
    return sorted(sheet.loc[sheet["dataset"].isin(datasets), "label"].unique())


def subject_rows(sheet: pd.DataFrame, dataset: str, subject_id: str) -> pd.DataFrame:
    """The rows of one subject, given by its safe id, in sheet order. Raises MerbaError if there are none."""
    of_dataset = sheet[sheet["dataset"] == dataset]
    rows = of_dataset[of_dataset["subject"].map(safe_id) == subject_id].reset_index(drop=True)
    if rows.empty:
        raise MerbaError(f"the sample sheet has no subject {subject_id!r} in dataset {dataset!r}")
    return rows


def plain_rows(rows: pd.DataFrame, columns: Iterable[str]) -> list[dict[str, Any]]:
    """Some columns of the sheet's rows as plain values, null as None, which a job's parameters can hold."""
    names = list(columns)
    chosen = rows.loc[:, names].astype(object)
    # Column by column: `to_dict("records")` takes several times as long, too long for planning 100,000 clips.
    values = zip(*(column.tolist() for _, column in chosen.where(chosen.notna(), None).items()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def rows_by_subject(sheet: pd.DataFrame, columns: Iterable[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The `plain_rows` of every subject, by dataset and the subject's safe id, in sheet order."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in plain_rows(sheet, columns):
        grouped.setdefault((row["dataset"], safe_id(row["subject"])), []).append(row)
    return grouped


def from_plain_rows(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The table that `plain_rows` was made from, with the sheet's types."""
    sheet = pd.DataFrame(rows)
    return sheet.astype({column: "Int64" for column in ("onset", "apex", "offset", "bits") if column in sheet})


def digest(rows: pd.DataFrame, columns: Iterable[str]) -> str:
    """A short hash of the content of `columns`, independent of the index."""
    hashes = pd.util.hash_pandas_object(rows.loc[:, list(columns)].astype("string"), index=False)
    return hashlib.sha256(hashes.to_numpy().tobytes()).hexdigest()[:16]
