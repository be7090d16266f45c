"""Selective scan on the CPU: the Numba backend against the reference loop and mambapy's parallel scan.

    python bench/scan.py [--rounds 15] [--threads 1 2]

Forward and backward at batch 256, 128 channels, 49 tokens, 8 states, with softplus, bias and skip, as a mixer calls
it. Implementations take turns, and a ratio is the median over rounds of the ratio of both times in the same round, so
that other work on the machine slows all of them alike. Writes bench/results/scan.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from machine import machine, write
from mambapy.pscan import pscan
from torch import Tensor
from torch.nn import functional as F

from merba.scan import selective_scan

BATCH, LENGTH, CHANNELS, STATES = 256, 49, 128, 8
GOALS = {"reference": 25, "pscan": 8}  # times as fast


def problem() -> tuple[list[Tensor], Tensor]:
    """Inputs u, delta, A, B, C, D, delta_bias that require gradients, and the gradient of the output."""
    torch.manual_seed(0)
    tokens = (BATCH, LENGTH)
    inputs = [
        torch.randn(*tokens, CHANNELS), torch.randn(*tokens, CHANNELS), -8 * torch.rand(CHANNELS, STATES),
        torch.randn(*tokens, STATES), torch.randn(*tokens, STATES), torch.randn(CHANNELS), torch.randn(CHANNELS),
    ]  # fmt: skip
    return [x.requires_grad_() for x in inputs], torch.randn(*tokens, CHANNELS)


def merba_scan(backend: str) -> Callable[..., Tensor]:
    def scan(u, delta, A, B, C, D, bias):
        return selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True, backend=backend)

    return scan


def mambapy_scan(u, delta, A, B, C, D, bias) -> Tensor:
    """The scan as mambapy's Mamba block does it around its pscan."""
    delta = F.softplus(delta + bias)
    states = pscan(torch.exp(delta[..., None] * A), delta[..., None] * B[:, :, None] * u[..., None])
    return (states @ C[..., None]).squeeze(-1) + D * u


# Implementation → (function, runs per round). A fast one runs more often, so that all are measured for about as long.
IMPLEMENTATIONS = {
    "numba": (merba_scan("numba"), 15),
    "reference": (merba_scan("reference"), 1),
    "pscan": (mambapy_scan, 1),
}


def run(scan: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> tuple[float, float, list[Tensor]]:
    """Seconds of the forward and of the backward pass; output and gradients."""
    start = perf_counter()
    y = scan(*inputs)
    between = perf_counter()
    gradients = torch.autograd.grad(y, inputs, gradient)
    return between - start, perf_counter() - between, [y.detach(), *gradients]


def measure(threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every implementation, and how many times as long as numba's it takes."""
    torch.set_num_threads(threads)
    inputs, gradient = problem()
    results = {name: run(scan, inputs, gradient)[2] for name, (scan, _) in IMPLEMENTATIONS.items()}  # warm up
    for name, values in results.items():
        for value, expected in zip(values, results["reference"], strict=True):
            error = ((value - expected).abs().max() / expected.abs().max()).item()
            assert error < 1e-4, f"{name} differs from the reference by {error:.1e}"

    times = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(rounds):
        for name, (scan, runs) in IMPLEMENTATIONS.items():
            passes = [run(scan, inputs, gradient)[:2] for _ in range(runs)]
            times[name].append([median(column) for column in zip(*passes, strict=True)])
    totals = {name: [sum(passes) for passes in columns] for name, columns in times.items()}
    return {
        name: {
            "forward_ms": 1e3 * median(forward for forward, _ in times[name]),
            "backward_ms": 1e3 * median(backward for _, backward in times[name]),
            "times_numba": median(a / b for a, b in zip(totals[name], totals["numba"], strict=True)),
        }
        for name in IMPLEMENTATIONS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()

    sizes = {"batch": BATCH, "length": LENGTH, "channels": CHANNELS, "states": STATES}
    figures = {"machine": machine("numba", "mambapy"), "problem": sizes, "rounds": options.rounds, "goals": GOALS}
    figures["threads"] = {}
    print(f"{figures['machine']['processor']}: {sizes}")
    print(f"{'threads':>7} {'':10} {'forward':>9} {'backward':>9} {'× numba':>8}  goal")
    for threads in options.threads:
        figures["threads"][threads] = measured = measure(threads, options.rounds)
        for name, row in measured.items():
            print(
                f"{threads:7} {name:10} {row['forward_ms']:6.1f} ms {row['backward_ms']:6.1f} ms "
                f"{row['times_numba']:8.1f}  {GOALS.get(name, '')}"
            )
    print("written:", write("scan.json", figures).name)


if __name__ == "__main__":
    main()
