"""What datasets that an experiment joins must not share, and what they must."""

import pytest

from merba.datasets.composites import check_composites
from merba.errors import MerbaError
from merba.sheet import sample_rows


def check(*rows, adapters=None, composites=(("a", "b"),)):
    keys = ("dataset", "subject", "label")
    named = [dict(zip(keys, row, strict=True)) | {"clip": str(k), "source": str(k)} for k, row in enumerate(rows)]
    settings = {name: {"adapter": adapter} for name, adapter in (adapters or {"a": "clips", "b": "clips"}).items()}
    check_composites(sample_rows(named), settings, composites)


def test_datasets_of_different_tasks_are_refused_with_their_classes():
    """Else "anger" and "negative" would be two classes: the adapters' usual tasks differ."""
    mixed = [("a", "1", "negative"), ("a", "1", "surprise"), ("b", "2", "anger"), ("b", "2", "surprise")]
    with pytest.raises(MerbaError, match="joins a and b, of different tasks: a the classes negative, surprise"):
        check(*mixed)
    check(*mixed, composites=[["a"], ["b"]])
    check(("a", "1", "negative"), ("b", "2", "surprise"))
    check(("a", "1", "anger"), ("b", "2", "surprise"), ("b", "2", "fear"))
    check(("a", "1", "calm"), ("b", "2", "fear"))  # classes of a dataset from elsewhere


def test_two_datasets_of_one_release_that_share_a_subject_are_refused():
    """Raw and cropped frames of CASME II: other files, the same faces. Of own clips nothing is known."""
    rows = [("a", "sub01", "negative"), ("a", "sub02", "negative"), ("b", "sub02", "negative")]
    with pytest.raises(MerbaError, match=r"joins a and b, of one release \(casme2\), and subject sub02 is in both"):
        check(*rows, adapters={"a": "casme2", "b": "casme2"})
    check(*rows, adapters={"a": "casme2", "b": "casme2"}, composites=[["a"], ["b"]])
    check(*rows[:1], *rows[2:], adapters={"a": "casme2", "b": "casme2"})
    check(*rows, adapters={"a": "casme2", "b": "samm"})
    check(*rows)
