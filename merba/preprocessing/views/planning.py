"""The views that a configuration's experiments use, and what the jobs of these views depend on. Imports no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from merba.code import code_digest
from merba.config import view_settings
from merba.errors import MerbaError
from merba.preprocessing.flow_settings import with_solver
from merba.preprocessing.views.settings import ViewSettings

ENCODER = "slstt"
"""The model of the frozen encoder that makes tokens."""


class PlannedViews:
    """The views of a complete configuration. `experiments` are those that can run: name → settings.

    `framed` are the datasets that have frames. Raises MerbaError if a view that they use can't be made: its settings don't fit
    each other, or its file of weights isn't a ViT's.
    """

    def __init__(self, config: Mapping[str, Any], experiments: Mapping[str, Mapping[str, Any]], framed: Collection[str]) -> None:
        self._config, self._experiments, self._framed = config, experiments, framed
        for view in self.taken_by(experiments):
            self.values(view)

    def settings(self, view: str) -> dict[str, Any]:
        """The settings of a view; MerbaError if there is no view of this name."""
        return view_settings(self._config, view)

    def flow(self, view: str) -> dict[str, Any] | None:
        """The settings of flow, on the CPU, if the view keeps flow besides grey levels."""
        keep = self.settings(view)["keep"]
        return with_solver(self._config["flow"], on_gpu=False) if keep == "grey_flow" else None

    def encoder(self, view: str) -> list[str]:
        """The weights file of the encoder that makes a view's tokens; MerbaError if none is named."""
        settings = self.settings(view)
        if settings["keep"] != "tokens":
            return []
        if not settings.get("pretrained"):
            raise MerbaError(f"views.{view}.pretrained names no file of weights; the view's tokens need one")
        return [settings["pretrained"]]

    def values(self, view: str) -> int:
        """The number of values that a view keeps per clip."""
        return math.prod(ViewSettings(**self.settings(view)).shape)

    def code(self, view: str) -> str:
        """A hash of the code of a view's jobs, including the encoder if the view has tokens."""
        return code_digest("merba.jobs.view", [ENCODER] if self.encoder(view) else [])

    def taken_by(self, experiments: Iterable[str]) -> dict[str, list[str]]:
        """The views that these experiments use, with the datasets of each."""
        taken: dict[str, set[str]] = {}
        for settings in (self._experiments[name] for name in experiments):
            if "view" in settings:
                taken.setdefault(settings["view"]["name"], set()).update(settings["datasets"])
        return {view: sorted(datasets) for view, datasets in sorted(taken.items())}

    def datasets(self, view: str) -> list[str]:
        """The datasets of a view; if no experiment uses it, all datasets with frames."""
        return self.taken_by(self._experiments).get(view) or sorted(self._framed)

    def packs_of(self, experiments: Iterable[str]) -> list[tuple[str, str]]:
        """(view, dataset) of the packs that these experiments use."""
        return [(view, dataset) for view, datasets in self.taken_by(experiments).items() for dataset in datasets]

    def timed(self, experiments: Iterable[str], subjects: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
        """The names of the view jobs that these experiments need, by stage; `subjects` gives the subjects of a dataset."""
        packs = self.packs_of(experiments)
        if not packs:
            return {}
        views = [f"{view}/{dataset}/{subject}" for view, dataset in packs for subject in subjects(dataset)]
        return {"view": views} | {f"view_{stage}": list(map("/".join, packs)) for stage in ("pack", "gate", "figure")}

    def figures(self, experiments: Iterable[str]) -> list[str]:
        """The figure files of the views that these experiments use."""
        return [f"results/figures/views/{view}/{dataset}.png" for view, dataset in self.packs_of(experiments)]
