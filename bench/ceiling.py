"""How good any method can be on the public flow: a learning curve, the nearest neighbour's bound, clips that all get wrong.

snakemake --cores 2 --configfile config/public_flow.yaml packed
python bench/ceiling.py      (minutes on one core)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from leaderboard import shipped_runs

from merba.datasets.tasks import CLASSES, DATASETS_3DB, composite
from merba.evaluation.comparison import named_predictions
from merba.evaluation.metrics import confusion, scores
from merba.evaluation.scoring import complete_seeds
from merba.models import create_model
from merba.models.kernel import descriptions
from merba.preprocessing.packs import load_packs
from merba.sheet import KEY

SUBJECTS = (24, 36, 48, 67)
"""Numbers of training subjects in the curve; 67 are all but the test subject."""


def load(packed: Path) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The packed flow, float32 (n, 3, H, W), classes as numbers, int64 (n,), and subjects, "dataset/subject" (n,)."""
    flow, clips, _ = load_packs([(packed / f"{name}.npy", packed / f"{name}.parquet") for name in DATASETS_3DB])
    labels = clips.merge(composite(), on=KEY, how="left", validate="one_to_one")["label"]
    codes = torch.tensor([CLASSES.index(label) for label in labels])
    return torch.from_numpy(np.array(flow, np.float32)), codes, (clips["dataset"] + "/" + clips["subject"]).to_numpy(str)


def curve_point(
    features: torch.Tensor, labels: torch.Tensor, subjects: np.ndarray, number: int, random: np.random.Generator
) -> float:
    """UF1 of the kernel method by LOSO if each fold trains on `number` subjects, drawn from all others."""
    model = create_model("kernel", len(CLASSES))
    predicted = np.empty(len(labels), np.int64)
    for subject in (names := np.unique(subjects)):
        chosen = random.choice(names[names != subject], number, replace=False)
        model.fit(features, labels, torch.from_numpy(np.flatnonzero(np.isin(subjects, chosen))))
        test = subjects == subject
        predicted[test] = model.decide(features[torch.from_numpy(test)]).argmax(1).numpy()
    return scores(confusion(labels.numpy(), predicted, len(CLASSES))).uf1


def neighbour_accuracy(described: torch.Tensor, mirrored: torch.Tensor, labels: torch.Tensor, subjects: np.ndarray) -> float:
    """The share of clips with the class of the nearest clip of another subject; descriptions (n, d), also of mirrored clips."""
    distances = torch.minimum(torch.cdist(described, described), torch.cdist(mirrored, described))
    distances[torch.from_numpy(subjects[:, None] == subjects)] = torch.inf
    return float((labels[distances.argmin(1)] == labels).float().mean())


def bayes_accuracy(neighbour: float, classes: int) -> float:
    """The highest accuracy that any rule can have if the nearest neighbour's is `neighbour`, in the limit of many such clips.

    Cover & Hart, Nearest neighbor pattern classification (1967), their inequality R ≤ R* (2 − M R* / (M − 1)), solved for R*.
    """
    share = (classes - 1) / classes
    return 1 - share * (1 - math.sqrt(max(0.0, 1 - (1 - neighbour) / share)))


def hard_clips(methods: Sequence[str]) -> pd.DataFrame:
    """The clips that every method gets wrong, with their true class; `agreed` is the class that all predict, or empty.

    Of each method (see `named_predictions`), the honest choice of the epoch counts, with its first finished seed.
    """
    said = {}
    for name in methods:
        rows = complete_seeds(named_predictions(name))
        rows = rows[(rows["selection"] != "oracle") & (rows["seed"] == rows["seed"].min())]
        said[name] = rows.set_index(KEY)["predicted"]
    table = composite().set_index(KEY).join(pd.DataFrame(said), how="inner").dropna()
    votes = table[list(said)]
    wrong = table[votes.ne(table["label"], axis=0).all(axis=1)]
    agreed = wrong[list(said)].eq(wrong[next(iter(said))], axis=0).all(axis=1)
    return wrong[["label"]].assign(agreed=wrong[next(iter(said))].where(agreed, "")).reset_index()


def main() -> None:
    methods = [run.name for run in shipped_runs("table_5_3db")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the workflow's results (default: results)")
    parser.add_argument(
        "--methods", nargs="+", default=methods, help="prediction files or shipped names (default: those of the leaderboard)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="draws of the training subjects (default: 3)")
    options = parser.parse_args()

    flow, labels, subjects = load(options.results / "packed")
    features = create_model("kernel", len(CLASSES)).features(flow)
    for number in SUBJECTS:
        repeats = options.repeats if number < max(SUBJECTS) else 1
        points = [curve_point(features, labels, subjects, number, np.random.default_rng(repeat)) for repeat in range(repeats)]
        print(f"{number} training subjects: UF1 {np.mean(points):.3f} ({', '.join(f'{point:.3f}' for point in points)})")

    maps = features[:, 0]
    mirrored = maps.flip(-1) * maps.new_tensor([-1.0, 1.0])[:, None, None]
    nearest = [
        neighbour_accuracy(*pair, labels, subjects) for pair in zip(descriptions(maps), descriptions(mirrored), strict=True)
    ]
    bounds = [bayes_accuracy(accuracy, len(CLASSES)) for accuracy in nearest]
    print(f"nearest neighbour, five descriptions: accuracy {min(nearest):.3f} to {max(nearest):.3f}; ", end="")
    print(f"so of any rule that sees only such a description at most {min(bounds):.3f} to {max(bounds):.3f}")

    hard = hard_clips(options.methods)
    print(f"{', '.join(options.methods)}: none is right on {len(hard)} clips, on {(hard['agreed'] != '').sum()} all agree")
    print(hard.to_string(index=False))


if __name__ == "__main__":
    main()
