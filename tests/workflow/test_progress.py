"""Progress of a run: stages by name and count on the terminal, what is done and left in the logs of long jobs."""

import logging
import re
from itertools import count

import numpy as np
import pytest
from checkpoints import CONFIG
from moving_faces import opened_clip
from small_folds import clips, fold, split
from workflow_runs import planned

from merba.errors import ClipProblem
from merba.prediction.spotting import search
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.flow import flow_of_subject

STAGES = {
    "faces": "faces: ",
    "apex": "apexes: ",
    "flow": "flow: ",
    "pack": "pack: ",
    "fold": "training: ",
    "results_table": "table: table_",
}


@pytest.mark.long
def test_a_run_names_every_stage_and_counts_its_steps(micro_demo):
    output = (micro_demo.parent / "output.txt").read_text()
    jobs = planned(output)
    for rule, message in STAGES.items():
        assert len(re.findall(rf"\b{message}\w", output)) == jobs[rule] > 0
    steps = [(int(done), int(total)) for done, total in re.findall(r"(\d+) of (\d+) steps \(\d+%\) done", output)]
    assert steps == [(done, jobs["total"]) for done in range(1, jobs["total"] + 1)]


@pytest.fixture
def slow(monkeypatch, caplog):
    """A clock that advances by 20 s at each reading, as if each clip took that long; and the log."""
    clock = count(0, 20)
    monkeypatch.setattr("merba.joblog.time.monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    return caplog


def said(log, of):
    return [message for message in log.messages if re.match(rf"\d+ of {of}, [\d.e-]+ a second, about \d+ s left$", message)]


def test_long_preprocessing_says_what_is_done_and_left(samm_clips, slow):
    faces = faces_of_subject(samm_clips, CONFIG["faces"])
    assert len(said(slow, "3 clips searched")) == 2
    apexes = apexes_of_subject(samm_clips, faces, CONFIG["apex"], CONFIG["faces"])
    assert len(said(slow, "3 clips")) == 2
    flow_of_subject(samm_clips, faces, apexes, CONFIG["flow"], CONFIG["faces"])
    assert len(said(slow, "3 clips")) == 4


def test_a_long_search_says_what_is_done_and_left(tmp_path, slow):
    clip = opened_clip(tmp_path / "a", [np.zeros((100, 100, 3), np.uint8)] * 40)
    with pytest.raises(ClipProblem, match="no face"):
        search(clip, 60, {}, {})
    assert len(said(slow, "40 frames of a")) == 39


def test_a_long_training_says_what_is_done_and_left(slow):
    flow, labels = clips()
    fold(flow, labels, split())
    assert len(said(slow, "12 epochs at most")) == 11
