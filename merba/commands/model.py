"""Print a model's blocks, sizes, parameters and FLOPs (the paper's Table I)."""

from __future__ import annotations

import argparse

EXAMPLE = "merba model merba_base --classes 7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a registered model, for example merba_base, merba_nano, mambavision_base, htnet, ststnet")
    parser.add_argument("--classes", type=int, default=7, help="number of classes (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    from merba.models import check_model
    from merba.models.summary import architecture

    model = check_model({"name": options.name}, options.classes)
    table = architecture(model, model.input_shape)
    if options.json:
        print(table.to_json(orient="records", indent=2, force_ascii=False))
        return 0
    table["parameters"] = table["parameters"].map("{:,}".format)
    unit, name = (1e9, "G") if (table["flops"] >= 1e8).any() else (1e6, "M")
    table["flops"] = (table["flops"] / unit).astype("Float64").map(f"{{:.3f}} {name}".format, na_action="ignore")
    print(table.astype(object).fillna("–").to_string(index=False))
    return 0
