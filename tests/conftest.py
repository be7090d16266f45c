"""Fixtures that several test files share."""

import pytest

from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render

DEMO = {"seed": 0}


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """The whole demo, rendered once: a folder with smic_hs, casme2 and samm in it (half a minute)."""
    root = tmp_path_factory.mktemp("demo")
    for dataset in ("smic_hs", "casme2", "samm"):
        render(DEMO, dataset, root)
    return root


@pytest.fixture(scope="session")
def demo_sheet(demo_root):
    """The sample sheet of `demo_root`."""
    return plan(DEMO, demo_root)
