"""The same frames for two subjects, as copies or links, stop the run before it trains on test frames."""

import numpy as np
import pytest

from merba.errors import MerbaError
from merba.preprocessing.packs import ClipFlow, FlowFormat, pack, save_subject
from merba.preprocessing.same_flow import check_flow_differs
from merba.sheet import sample_rows


def packed(folder, flow_of):
    """A pack of one clip, "c", for each subject of a dataset with the folder's name."""
    folder.mkdir()
    files = []
    for subject, flow in flow_of.items():
        rows = sample_rows([{"dataset": folder.name, "subject": subject, "clip": "c"}])
        files.append(folder / f"{subject}.npz")
        save_subject(files[-1], rows, [ClipFlow(flow, np.zeros((5, 2)), 0.0, None)], flow.shape, FlowFormat(("u", "v"), "px"))
    pack(files, folder / "flow.npy", folder / "flow.parquet")
    return folder / "flow.npy", folder / "flow.parquet"


@pytest.fixture
def flows():
    return np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float16)


def test_the_same_flow_of_two_subjects_is_refused_with_both_named(tmp_path, flows):
    with pytest.raises(MerbaError, match="exactly the same flow.*\n  own ann c and own ben c\n.*a copy"):
        check_flow_differs([packed(tmp_path / "own", {"ann": flows[0], "ben": flows[0], "cleo": flows[1]})])


def test_the_same_flow_in_two_datasets_of_an_experiment_is_refused(tmp_path, flows):
    packs = [packed(tmp_path / name, {"ann": flow}) for name, flow in zip("ab", flows[[0, 0]], strict=True)]
    with pytest.raises(MerbaError, match="a ann c and b ann c"):
        check_flow_differs(packs)


def test_flow_that_differs_and_clips_in_which_nothing_moves_are_let_through(tmp_path, flows):
    still = np.zeros_like(flows[0])
    check_flow_differs([packed(tmp_path / "own", {"a": flows[0], "b": flows[1], "c": still, "d": still})])
