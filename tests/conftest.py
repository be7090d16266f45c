"""Fixtures that several test files share."""

import shutil
from pathlib import Path

import pytest
from releases import WRITERS, write_release
from workflow_runs import snakemake

from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render
from merba.frames import open_clip

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


@pytest.fixture(scope="session")
def micro_demo(tmp_path_factory):
    """A folder in which the micro-demo ran, with Snakemake's output in output.txt. Tests that change the folder copy it."""
    folder = tmp_path_factory.mktemp("micro") / "run"
    output = snakemake(folder)
    (folder.parent / "output.txt").write_text(output)
    return folder


@pytest.fixture
def finished(micro_demo, tmp_path):
    """A copy of the finished micro-demo, with its files' times, for a test to change."""
    return Path(shutil.copytree(micro_demo, tmp_path / "run"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """One unchanged copy of every layout, by adapter."""
    root = tmp_path_factory.mktemp("releases")
    return {adapter: write_release(adapter, root / adapter) for adapter in WRITERS}


@pytest.fixture
def copied(releases, tmp_path):
    """Copies a layout, for a test to change."""
    return lambda adapter: Path(shutil.copytree(releases[adapter], tmp_path / adapter))


@pytest.fixture(scope="session")
def photograph():
    """A real face, BGR uint8 (512, 512, 3)."""
    from skimage.data import astronaut

    return astronaut()[:, :, ::-1].copy()


@pytest.fixture(scope="session")
def samm_clips(tmp_path_factory):
    """The sheet of one subject's three rendered clips, as a release of SAMM."""
    root, settings = tmp_path_factory.mktemp("samm_clips"), {"subjects": 1, "clips": 3, "size": 0.5, "datasets": ["samm"]}
    render(settings, "samm", root)
    return plan(settings, root)


@pytest.fixture(scope="session")
def movement(samm_clips):
    """Frames of a demo clip from onset to offset, and the index of the apex among them."""
    row = samm_clips.iloc[2]
    images = [image for _, image in open_clip(row["source"], "frames").frames(row["onset"], row["offset"])]
    return images, row["apex"] - row["onset"]
