"""The embedded demo: clips of three datasets, rendered from one real photograph with known movement."""

from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render

__all__ = ["plan", "render"]
