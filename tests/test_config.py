"""Configurations: defaults, inheritance, and errors that name the key."""

from pathlib import Path

import pytest

from merba.apex import ApexSettings
from merba.config import complete, experiment_settings, load_config, reference, schema
from merba.errors import MerbaError
from merba.faces import FaceSettings
from merba.flow import FlowSettings
from merba.training import TrainingSettings

CONFIG = Path(__file__).parents[1] / "config"


def minimal(**extra):
    return {
        "data": "own",
        "datasets": {"mine": {"adapter": "clips", "root": "x"}},
        "experiments": {"a": {"method": "A", "model": {"name": "merba_nano"}}},
        **extra,
    }


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path):
    assert load_config(path)["experiments"]


def test_defaults_fill_what_is_left_out_and_the_argument_is_left_alone():
    given = minimal()
    config = complete(given)
    assert (config["seed"], config["on_problem"], config["training"]["epochs"]) == (1, "stop", 70)
    assert config["experiments"]["a"]["stopping"] == "validation"
    assert given == minimal()


def test_the_order_of_keys_in_a_file_changes_nothing():
    """Snakemake would rerun jobs whose parameters print differently."""

    def turned(value):
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    given = minimal(flow={"theta": 0.2, "tau": 0.1}, training={"epochs": 3, "rate": 0.1})
    given["datasets"]["mine"] |= {"task": "emotion", "annotations": "a.csv"}
    given["experiments"]["a"]["model"] |= {"in_channels": 3, "dropout": 0.0}
    assert repr(complete(given)) == repr(complete(turned(given)))


def test_experiments_inherit_training_and_override_it():
    config = complete(minimal(training={"rate": 0.5}))
    config["experiments"]["a"]["training"] = {"epochs": 3}
    training = experiment_settings(config, "a", ["mine"])["training"]
    assert (training["rate"], training["epochs"], training["batch_size"]) == (0.5, 3, 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 3}, "unknown key 'sed' (did you mean 'seed'?)"),
        ({"seed": "one"}, "seed: 'one' is not of type integer"),
        ({"training": {"rates": 1}}, "training: unknown key 'rates' (did you mean 'rate'?)"),
        ({"on_problem": "dorp"}, "on_problem: 'dorp' is none of stop, drop (did you mean 'drop'?)"),
        ({"datasets": {"a": {"root": "x"}}}, "datasets.a: missing key 'adapter'"),
        ({"demo": {}}, "`demo` and `data: demo` go together"),
    ],
)
def test_a_fault_is_named_with_its_path(change, message):
    with pytest.raises(MerbaError) as caught:
        complete(minimal(**change), origin="mine.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")


def test_an_experiment_on_a_dataset_that_is_not_there_names_the_nearest():
    config = complete(minimal())
    config["experiments"]["a"]["datasets"] = ["smic"]
    with pytest.raises(MerbaError, match="no dataset 'smic' \\(did you mean 'smic_hs'\\?\\); it has casme2, smic_hs"):
        experiment_settings(config, "a", ["smic_hs", "casme2"])


@pytest.mark.parametrize(
    ("section", "settings"),
    [("training", TrainingSettings), ("faces", FaceSettings), ("apex", ApexSettings), ("flow", FlowSettings)],
)
def test_the_schema_describes_exactly_the_settings_of_the_code(section, settings):
    described = {key: node["default"] for key, node in schema("config")["properties"][section]["properties"].items()}
    made = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(settings()).items()}
    assert described == made


def test_the_configuration_reference_is_that_of_the_schema():
    assert (CONFIG.parent / "docs" / "configuration.md").read_text() == reference(), "the file's head says how to renew it"
