"""The contact sheets of all clips: their pages, and which clips each page shows. Imports no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from merba.errors import MerbaError
from merba.sheet import KEY, plain_rows, safe_id

CLIPS = 48
"""Clips on a page of a contact sheet."""


class ContactSheets:
    """The contact sheets of datasets with frames. `rows` are the datasets' parts of the sample sheet, by name.

    Pages are numbered from 1; methods take the number as text.
    """

    def __init__(self, rows: Mapping[str, pd.DataFrame]) -> None:
        self._rows = rows

    def files(self) -> list[str]:
        """The files of all pages."""
        return [
            f"results/figures/samples_{dataset}_{page:03}.jpg"
            for dataset in self._rows
            for page in range(1, self._pages(dataset) + 1)
        ]

    def clips(self, dataset: str, page: str) -> list[dict[str, Any]]:
        """The rows on a page. Raises MerbaError if there is no such page."""
        if not 1 <= int(page) <= self._pages(dataset):
            raise MerbaError(f"there is no page {page} of the samples of {dataset}: it has {self._pages(dataset)}")
        return self._plain_rows[dataset][(int(page) - 1) * CLIPS : int(page) * CLIPS]

    def subjects(self, dataset: str, page: str) -> list[str]:
        """Safe ids of the subjects with clips on a page, in its order."""
        return [safe_id(subject) for subject in dict.fromkeys(row["subject"] for row in self.clips(dataset, page))]

    def title(self, dataset: str, page: str) -> str:
        """The title of a page."""
        first, clips = (int(page) - 1) * CLIPS, len(self._rows[dataset])
        return (
            f"{dataset}, page {int(page)} of {self._pages(dataset)}: clips {first + 1} to {min(first + CLIPS, clips)} of {clips}"
        )

    def _pages(self, dataset: str) -> int:
        return math.ceil(len(self._rows.get(dataset, ())) / CLIPS)

    @cached_property
    def _plain_rows(self) -> dict[str, list[dict[str, Any]]]:
        return {dataset: plain_rows(rows, [*KEY, "source", "kind", "bits", "label"]) for dataset, rows in self._rows.items()}
