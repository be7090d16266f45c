"""Configurations: defaults, inheritance, and errors that name the key."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from merba.config import (
    changed_by_experiments,
    complete,
    expects_gpu,
    experiment_settings,
    fold_settings,
    library,
    load_config,
    origin_of,
    plain_values,
    runnable_experiments,
    schema,
)
from merba.config.last_run import configuration_name, others_results, sign
from merba.config.method_names import method_name
from merba.config.reference import reference
from merba.errors import MerbaError
from merba.models import check_model
from merba.preprocessing.apex import ApexSettings
from merba.preprocessing.faces import FaceSettings
from merba.preprocessing.flow import FlowSettings
from merba.preprocessing.head_warning import LIMIT
from merba.preprocessing.views.settings import ViewSettings
from merba.training.settings import TrainingSettings

CONFIG = Path(__file__).parents[2] / "config"


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


@pytest.mark.parametrize(("experiment", "windows"), [("merba", [16, 4, 1]), ("merba_single_window", [1, 1, 1])])
def test_the_public_flow_has_the_papers_counts_of_windows(experiment, windows):
    settings = load_config(CONFIG / "public_flow.yaml")["experiments"][experiment]
    model = check_model(settings["model"], 3)
    assert [stage.paths.shape[1] for stage in (model.stage2, model.stage3, model.stage4)] == windows


def test_defaults_fill_what_is_left_out_and_the_argument_is_left_alone():
    given = minimal()
    config = complete(given)
    assert (config["seed"], config["on_problem"], config["training"]["epochs"]) == (1, "stop", 70)
    assert config["experiments"]["a"]["stopping"] == "validation"
    assert given == minimal()


def test_the_order_of_keys_in_a_file_changes_nothing():
    """Snakemake would rerun jobs with parameters that print differently."""

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
        ({"flow": {"warps": 2.0}}, "flow.warps: 2.0 is not of type integer"),
        ({"flow": {"tau": float("inf")}}, "flow.tau: inf is not of type number"),
        ({"training": {"rate": float("nan")}}, "training.rate: nan is not of type number"),
        ({"training": {"rate": "1e-3"}}, "training.rate: '1e-3' is not of type number; write it as 0.001"),
        ({"faces": {"weights": ["my"]}}, "faces.weights: ['my'] is not of type string or null"),
        ({"datasets": {"Mine": {"adapter": "clips"}}}, "'Mine' has other characters than lower-case letters, digits and"),
        ({"experiments": {"a": {"folds": 3}}}, "experiments.a.folds: 3 doesn't fit: "),
        ({"training": {"rates": 1}}, "training: unknown key 'rates' (did you mean 'rate'?)"),
        ({"on_problem": "dorp"}, "on_problem: 'dorp' is unknown (did you mean 'drop'?); choose one of stop, drop"),
        ({"datasets": {"a": {"root": "x"}}}, "datasets.a: missing key 'adapter'"),
        ({"demo": {}}, "`demo` and `data: demo` go together"),
    ],
)
def test_a_fault_is_named_with_its_path(change, message):
    with pytest.raises(MerbaError) as caught:
        complete(minimal(**change), origin="mine.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")


def test_every_description_is_one_text():
    """An unquoted comma ends a description, and the rest becomes a key of the schema without a value."""

    def keys_without_value(node, path=""):
        if isinstance(node, list):
            return [found for one in node for found in keys_without_value(one, path)]
        if not isinstance(node, dict):
            return []
        empty = [f"{path}.{key}" for key, value in node.items() if value is None and key != "default"]
        return empty + [found for key, value in node.items() for found in keys_without_value(value, f"{path}.{key}")]

    assert not [found for name in ("config", "samples") for found in keys_without_value(schema(name))]


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"data: \xff\xfe")
    with pytest.raises(MerbaError, match="mine.yaml: the configuration is not UTF-8"):
        load_config(tmp_path / "mine.yaml")


def test_a_key_that_is_given_twice_is_named_with_both_lines(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: own\nexperiments:\n  a: {seeds: [1]}\n  b: {}\n  a:\n    seeds: [2]\n")
    with pytest.raises(MerbaError, match="mine.yaml: a key is given twice: 'a' in lines 3 and 5; rename or remove"):
        load_config(path)


def test_an_experiment_on_a_dataset_that_is_not_there_names_the_nearest():
    config = complete(minimal())
    config["experiments"]["a"]["datasets"] = ["smic"]
    with pytest.raises(MerbaError, match="no dataset 'smic' \\(did you mean 'smic_hs'\\?\\); it has casme2, smic_hs"):
        experiment_settings(config, "a", ["smic_hs", "casme2"])


def inherited(**experiments):
    return complete(minimal(experiments=experiments), origin="mine.yaml")["experiments"]


def test_an_experiment_takes_from_its_parent_what_it_does_not_give():
    parent = {"method": "A", "stopping": "none", "model": {"name": "merba_nano", "dim": 8}, "training": {"rate": 0.1}}
    made = inherited(a=parent, b={"inherit": "a", "method": "B", "model": {"window": 5}, "training": {"epochs": 3}})
    assert made["b"]["model"] == {"name": "merba_nano", "dim": 8, "window": 5}
    assert made["b"]["training"] == {"epochs": 3, "rate": 0.1}
    assert (made["b"]["method"], made["b"]["stopping"], "inherit" in made["b"]) == ("B", "none", False)
    assert made["a"]["model"] == parent["model"]


def test_another_model_starts_from_its_own_defaults():
    parent = {"method": "A", "model": {"name": "merba_nano", "dim": 8}}
    assert inherited(a=parent, b={"inherit": "a", "model": {"name": "htnet"}})["b"]["model"] == {"name": "htnet"}


def test_an_experiment_may_inherit_from_the_librarys_of_its_own_name():
    made = inherited(merba={"inherit": "merba", "model": {"name": "merba_nano"}}, x={"inherit": "merba", "method": "X"})
    assert made["merba"]["datasets"] == library()["merba"]["datasets"]
    assert made["x"]["model"] == {"name": "merba_nano"}, "the file's own comes before the library's"


def test_a_row_is_named_after_its_own_model_unless_it_has_a_name():
    made = inherited(
        nano={"inherit": "merba", "model": {"name": "merba_nano"}},
        same={"inherit": "nano", "training": {"epochs": 3}},
        titled={"inherit": "nano", "method": "Mine"},
        longer={"inherit": "titled", "training": {"epochs": 3}},
        other={"inherit": "titled", "model": {"name": "merba_small"}},
        wide={"inherit": "titled", "model": {"dim": 40}},
        vision={"inherit": "mambavision", "model": {"name": "mambavision_tiny2"}},
        small_dgcm={"inherit": "merba_dgcm", "model": {"name": "merba_nano", "head": "dgcm", "in_channels": 2}},
    )
    assert {name: experiment["method"] for name, experiment in made.items()} == {
        "nano": "MERba-nano",
        "same": "MERba-nano",
        "titled": "Mine",
        "longer": "Mine",
        "other": "MERba-S",
        "wide": "MERba-nano (dim 40)",
        "vision": "MambaVision-T2",
        "small_dgcm": "MERba-nano-DGCM",
    }


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"name": "merba_base", "in_channels": 2, "pretrained": "x.pth.tar"}, "MERba-B (pretrained)"),
        ({"name": "merba_nano", "depths": [1, 1, 3, 1], "stem_stride": 1}, "MERba-nano (depths 1 1 3 1, stem stride 1)"),
        ({"name": "mambavision_base", "layer_scale": None}, "MambaVision-B (layer scale none)"),
        ({"name": "merba_base", "head": "dgcm", "directions": "hr vr"}, "MERba-B-DGCM (directions hr vr)"),
        ({"name": "htnet"}, "HTNet"),
        ({"name": "meplan_small", "support": 1, "pretrained": "x.pth"}, "ME-PLAN-S, our reading (pretrained, support 1)"),
        ({"name": "mfdan_small", "drop_key": 0.5}, "MFDAN-S, our reading (drop key 0.5)"),
        ({"name": "tiny_cnn", "width": 8}, "tiny_cnn (width 8)"),
    ],
)
def test_a_models_name_says_its_size_and_what_was_changed(model, name):
    assert method_name(model) == name


def test_every_size_of_the_registered_models_has_a_name_of_its_own():
    from merba.models import MODELS

    names = {method_name({"name": name}) for name in MODELS}
    assert len(names) == len(MODELS)
    assert not names & {"MERba", "MambaVision", *MODELS}


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"a": {"inherit": "merbo"}}, "experiments.a.inherit: 'merbo' is unknown (did you mean 'merba'?)"),
        ({"a": {"inherit": "b"}, "b": {"inherit": "a"}}, "experiments.b.inherit: 'a' inherits from itself"),
        ({"a": {"method": "A"}}, "experiments.a: missing key 'model'"),
        (
            {"a": {"method": "A", "model": {"dim": 8}}},
            "experiments.a.model: give either `name`, a registered model, or `file` and",
        ),
    ],
)
def test_a_faulty_inheritance_is_named(experiments, message):
    with pytest.raises(MerbaError, match=re.escape(f"mine.yaml: {message}")):
        inherited(**experiments)


def shipped(*datasets):
    config = complete({"data": "own", "datasets": {name: {"adapter": "clips", "root": "x"} for name in datasets}})
    return runnable_experiments(config, datasets)


def test_without_experiments_the_papers_run_whose_data_is_there():
    settings, left_out = shipped("smic_hs", "casme2", "samm")
    methods = {experiment["method"] for experiment in settings.values()}
    assert methods == {"MERba-B", "MambaVision-B", "HTNet", "STSTNet", "FeatRef, our reading", "Bi-WOOF"} | {
        "LBP-TOP",
        "SLSTT-S",
        "ME-PLAN, our reading",
        "ME-PLAN-S, our reading",
        "MFDAN, our reading",
        "MFDAN-S, our reading",
        "MERSiamC3D, our reading",
        "MERSiamC3D-S, our reading",
    }
    added = {"meplan", "meplan_small", "mfdan", "mfdan_small", "mersiamc3d", "mersiamc3d_small"}
    optional = {"lbp_top", "slstt_small"} | added
    assert {name for name, experiment in settings.items() if experiment.get("optional")} == optional
    assert left_out["slstt"] == "views.lof11.pretrained names no file of weights"
    assert left_out["merba_dgcm"] == "the configuration has no dataset dfme"
    settings, left_out = shipped("dfme")
    tables = [table for one in settings.values() for table in one["tables"]]
    counts = {name: tables.count(name) for name in set(tables)}
    assert counts == {"table_4_dfme": 5, "table_6_lgfi": 3, "table_7_scanning": 6}
    assert left_out["merba"] == "the configuration has no dataset smic_hs, casme2, samm"


def test_the_shipped_experiments_views_have_the_shapes_of_their_models():
    from merba.models import check_model

    experiments = shipped("smic_hs", "casme2", "samm")[0].values()
    seeing = [experiment for experiment in experiments if "view" in experiment]
    for experiment in seeing:
        shape = check_model(experiment["model"], 3).input_shape
        ViewSettings(**experiment["view"]).check_model(experiment["method"], shape)
    assert len(seeing) >= 6


def test_a_view_is_the_shipped_one_with_what_the_configuration_changes(tmp_path):
    weights = tmp_path / "vit.safetensors"
    weights.touch()
    views = {"lof11": {"pretrained": str(weights)}}
    config = complete(minimal(views=views, experiments={"a": {"inherit": "slstt", "datasets": ["mine"], "against": None}}))
    settings, left_out = runnable_experiments(config, ["mine"])
    assert left_out == {}
    shown = {"frames": "around_apex", "length": 11, "size": 224, "keep": "tokens"}
    assert settings["a"]["view"] == {"name": "lof11"} | shown | {"pretrained": str(weights)}
    assert settings["a"]["model"] == {"name": "slstt", "pretrained": str(weights)}
    assert fold_settings(settings["a"])["view"] == settings["a"]["view"]
    assert "optional" not in settings["a"], "who names an experiment wants it"


@pytest.mark.parametrize(
    ("view", "settings", "message"),
    [
        ("lof11", {}, "training.flip is for flow, but the view lof11 keeps tokens: set `flip: false`"),
        ("lof11", {"training": {"flip": False}}, "training.normalise is for flow"),
        ("lof11", {"training": {"flip": False, "normalise": False, "mirror_average": True}}, "training.mirror_average"),
        ("key16", {"training": {"shift": 2}}, "training.shift is for flow, but the view key16 keeps grey: set `shift: 0`"),
        ("key16", {"decode": "signed"}, "experiments.a.decode is for flow"),
    ],
)
def test_settings_that_a_view_cannot_have_are_refused(view, settings, message):
    experiment = {"method": "A", "model": {"name": "slstt"}, "view": view} | settings
    with pytest.raises(MerbaError) as error:
        experiment_settings(complete(minimal(experiments={"a": experiment})), "a", ["mine"])
    assert message in str(error.value)


def test_an_experiment_without_a_view_has_no_such_key():
    settings = shipped("smic_hs", "casme2", "samm")[0]["merba"]
    assert not {"view", "optional"} & (settings.keys() | fold_settings(settings).keys())


def test_the_schema_describes_exactly_the_settings_of_a_view():
    described = schema("config")["properties"]["views"]["additionalProperties"]["properties"]
    assert ["name", *described] == [field.name for field in fields(ViewSettings)]


def test_nothing_to_run_is_an_error_that_says_why():
    with pytest.raises(MerbaError, match="no experiment can run with the datasets mine:\n  merba: the configuration has no"):
        shipped("mine")


def test_a_rival_that_does_not_exist_is_named():
    experiment = {"method": "A", "against": "b", "model": {"name": "merba_nano"}}
    with pytest.raises(MerbaError, match="experiments.a.against: no experiment 'b'"):
        runnable_experiments(complete(minimal(experiments={"a": experiment})), ["mine"])


@pytest.mark.parametrize("settings", [TrainingSettings, FaceSettings, ApexSettings, FlowSettings])
def test_the_schema_describes_exactly_the_settings_of_the_code(settings):
    known = schema("config")["properties"][settings.section]["properties"]
    assert vars(settings.of()) == {key: node["default"] for key, node in known.items()}


def test_workflow_and_prediction_warn_of_the_same_head_motion():
    assert schema("config")["properties"]["head_motion_warning"]["default"] == LIMIT


@pytest.mark.parametrize(
    ("device", "driver", "torch", "expected"),
    [
        ("auto", None, "2.13.0", False),
        ("auto", "/usr/bin/nvidia-smi", "2.13.0", True),
        ("auto", "/usr/bin/nvidia-smi", "2.13.0+cpu", False),
        ("cpu", "/usr/bin/nvidia-smi", "2.13.0", False),
        ("cuda", None, "2.13.0+cpu", True),  # the training says what is missing
    ],
)
def test_trainings_ask_for_a_gpu_where_driver_and_build_have_cuda(monkeypatch, device, driver, torch, expected):
    monkeypatch.setattr("shutil.which", lambda program: driver)
    monkeypatch.setattr("merba.config.version", lambda package: torch)
    assert expects_gpu(device) == expected


def test_the_configuration_reference_is_that_of_the_schema():
    assert (CONFIG.parent / "docs" / "configuration.md").read_text() == reference(), "the file's head says how to renew it"


def test_how_flow_is_decoded_decides_a_folds_result_where_it_is_not_the_default():
    config = complete(minimal())
    raw = fold_settings(experiment_settings(config, "a", ["mine"]))
    assert "decode" not in raw, "folds of before there was this setting stay valid"
    config["experiments"]["a"]["decode"] = "signed"
    assert fold_settings(experiment_settings(config, "a", ["mine"])) == raw | {"decode": "signed"}


def test_whose_results_they_are_is_said_by_file_and_by_what_differs_from_the_defaults():
    given = {
        "data": "own",
        "datasets": {"d": {"adapter": "clips", "root": "secret"}},
        "seed": 3,
        "training": {"epochs": 9, "shift": 0},
    }
    experiment = {"method": "A", "model": {"name": "ststnet"}, "stopping": "none", "training": {"epochs": 9, "rate": 0.5}}
    config = complete(given | {"experiments": {"a": experiment}})
    assert origin_of(config, "mine.yaml") == {"file": "mine.yaml", "changed": {"seed": 3, "training.epochs": 9}}
    assert changed_by_experiments(config) == {
        "experiments.a.stopping": "none",
        "experiments.a.model": {"name": "ststnet"},
        "experiments.a.training.rate": 0.5,
    }


def test_a_configuration_is_named_from_the_checkout_so_that_both_can_move(tmp_path):
    assert configuration_name(tmp_path / "checkout" / "config" / "a.yaml", tmp_path / "checkout") == "config/a.yaml"
    run, checkout = tmp_path / "run", tmp_path / "checkout"
    assert configuration_name(run / "b.yaml", run, checkout) == "b.yaml"
    assert configuration_name(checkout / "b.yaml", run, checkout) == "b.yaml"
    assert configuration_name(tmp_path / "b.yaml", run, checkout) == str(tmp_path / "b.yaml")


def test_another_configurations_results_are_noticed_and_ones_own_are_not(tmp_path):
    assert others_results(tmp_path, "a.yaml") is None
    sign(tmp_path, "a.yaml")
    assert others_results(tmp_path, "a.yaml") is None
    sign(tmp_path, "b.yaml")
    sign(tmp_path, "b.yaml")
    assert "holds results of a.yaml, but this run is of b.yaml" in others_results(tmp_path, "b.yaml")
    sign(tmp_path, "c.yaml")
    assert "holds results of a.yaml, b.yaml, but this run is of c.yaml" in others_results(tmp_path, "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["keep_weights=true"], {"keep_weights": True}),
        (["keep_weights=False", "seed=7"], {"keep_weights": False, "seed": 7}),
        (["training={epochs: 1, rate: 0.5}"], {"training": {"epochs": 1, "rate": 0.5}}),
        (["flow={channels: [u, v]}", "device=cpu"], {"flow": {"channels": ["u", "v"]}, "device": "cpu"}),
        (["faces={weights: null}", "data=null"], {"faces": {"weights": None}, "data": None}),
    ],
)
def test_values_of_the_command_line_are_what_yaml_reads(arguments, expected):
    from snakemake.cli import parse_config

    values = plain_values(parse_config(arguments))
    assert values == expected
    assert repr(values) == repr(expected), "1 is not True"
