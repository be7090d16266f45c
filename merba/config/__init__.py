"""Reading a configuration: schema, defaults, and errors that name the key."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merba.config.validation import explain, faults, schema
from merba.errors import MerbaError, did_you_mean, unknown

# PyYAML, jsonschema and the names of methods are imported where they are used, because trainings need none of them.

LIBRARY = Path(__file__).with_name("experiments.yaml")
"""The paper's experiments, which a configuration without `experiments` runs and others may inherit from."""
VIEWS = Path(__file__).with_name("views.yaml")
"""The shipped views, which a configuration's `views` adds to."""
PROTOCOLS = {"table_4_dfme": "holdout", "table_5_3db": "loso"}
"""The tables that take experiments of one protocol only."""
DECIDING = ("datasets", "protocol", "stopping", "control", "seeds", "model", "training")
"""The settings of an experiment that decide a fold's result; `fold_settings` adds `decode` and `view`."""


def load_config(path: Path) -> dict[str, Any]:
    """The configuration in the YAML file `path`, validated and with every default filled in."""
    return complete(read_yaml(path), origin=str(path))


def read_yaml(path: Path) -> Any:
    """The content of the YAML file `path`. Raises MerbaError if it can't be read or has a key twice (YAML keeps the last)."""
    import yaml

    try:
        text = path.read_text()
        content, tree = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise MerbaError(f"{path}: the configuration can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MerbaError(f"{path}: the configuration is not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise MerbaError(f"{path}: not valid YAML: {error}") from error
    if twice := [f"{key!r} in lines {first} and {again}" for key, first, again in _repeated(tree)]:
        raise MerbaError(f"{path}: a key is given twice: {'; '.join(twice)}; rename or remove one of them")
    return content


def _repeated(node: Any) -> Iterator[tuple[str, int, int]]:
    """The keys that a mapping in a YAML tree has twice, with both lines."""
    if node is not None and isinstance(node.value, list):
        lines: dict[str, int] = {}
        for child in node.value:
            key, value = child if isinstance(child, tuple) else (None, child)
            if key is not None:
                line = key.start_mark.line + 1
                if (first := lines.setdefault(str(key.value), line)) != line:
                    yield key.value, first, line
            yield from _repeated(value)


def complete(config: Any, origin: str = "configuration") -> dict[str, Any]:
    """`config` validated against the schema, with every default filled in; the argument is not changed.

    Raises MerbaError that lists every fault with the key's full path; `origin` is the file's name in the message.
    """
    errors = sorted(faults(schema("config"), config), key=lambda e: list(map(str, e.path)))
    if errors:
        raise MerbaError("\n".join(f"{origin}: {explain(error)}" for error in errors))
    config = deepcopy(config)
    config["experiments"] = _inherited(config.get("experiments"), origin)
    config = _fill(schema("config"), config)
    if ("demo" in config) != (config["data"] == "demo"):
        raise MerbaError(
            f"{origin}: `demo` and `data: demo` go together; only one of them is given (a file without `datasets` is merged into "
            "the demo's configuration)"
        )
    return config


def plain_values(given: Any) -> Any:
    """Values given by `snakemake --config`, as YAML reads them.

    Snakemake passes on `true`, and every value in a mapping or list, as text.
    """
    import yaml

    if isinstance(given, Mapping):
        return {key: plain_values(value) for key, value in given.items()}
    if isinstance(given, list):
        return [plain_values(value) for value in given]
    if not isinstance(given, str):
        return given
    try:
        value = yaml.safe_load(given)
    except yaml.YAMLError:
        return given
    return value if value is None or isinstance(value, bool | int | float) else given


def library() -> dict[str, Any]:
    """The experiments of merba/config/experiments.yaml, unchanged."""
    return _shipped(LIBRARY)


@cache
def _shipped(file: Path) -> dict[str, Any]:
    import yaml

    try:
        return yaml.safe_load(file.read_text())
    except OSError as error:
        raise MerbaError(f"{file}: the shipped settings can't be read: {error.strerror}") from error


def view_settings(config: Mapping[str, Any], name: str, asked_by: str = "view: ") -> dict[str, Any]:
    """The settings of view `name`: those of the configuration, and for the rest those of the shipped view of this name.

    Raises MerbaError if there is no such view, or a setting is missing.
    """
    shipped, own = _shipped(VIEWS), config["views"]
    if name not in shipped and name not in own:
        raise MerbaError(f"{asked_by}{unknown(name, {**shipped, **own})}")
    settings = {"name": name, **shipped.get(name, {}), **own.get(name, {})}
    for key in ("frames", "length", "size", "keep"):
        if key not in settings:
            raise MerbaError(f"views.{name}: missing key {key!r}")
    return settings


def _inherited(experiments: Mapping[str, Any] | None, origin: str) -> dict[str, Any]:
    """The experiments (None: the library's), each with the settings that it inherits and the name of its row."""
    from merba.config.method_names import method_name

    source = library() if experiments is None else experiments
    resolved = {name: _resolved(name, source, origin) for name in source}
    for name, experiment in resolved.items():
        where = f"{origin}: experiments.{name}"
        if "model" not in experiment:
            raise MerbaError(f"{where}: missing key 'model'")
        if ("name" in experiment["model"]) == ({"file", "class"} <= set(experiment["model"])):
            raise MerbaError(
                f"{where}.model: give either `name`, a registered model, or `file` and `class`, a class in your own file"
            )
        experiment.setdefault("method", method_name(experiment["model"]))
    return resolved


def _resolved(name: str, source: Mapping[str, Any], origin: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Experiment `name` of `source` with what it inherits; `heirs` are those that inherit from it, the first one first."""
    own = dict(source[name])
    if (parent := own.pop("inherit", None)) is None:
        return own
    # The same file comes first; an experiment that has its parent's name inherits from the library's.
    home = source if parent in source and parent != name else library()
    where = f"{origin}: experiments.{name}.inherit"
    if home is source and parent in heirs:
        raise MerbaError(f"{where}: {parent!r} inherits from itself")
    if parent not in home:
        raise MerbaError(f"{where}: {unknown(parent, {**library(), **source})}")
    inherited = _resolved(parent, home, origin, (*heirs, name) if home is source else ())
    if "model" in own:
        inherited.pop("method", None)  # it names the parent's model
    inherited.pop("optional", None)  # an experiment that the user names is not optional
    merged = {**inherited, **own}
    if "model" in own and not {"name", "file"} & set(own["model"]):
        merged["model"] = {**inherited.get("model", {}), **own["model"]}
    if "training" in own:
        merged["training"] = {**inherited.get("training", {}), **own["training"]}
    return merged


def runnable_experiments(
    config: Mapping[str, Any], datasets: Collection[str], ready_made: Collection[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The settings (see `experiment_settings`) of the experiments that the sheet's `datasets` allow, and why others can't run.

    An experiment is left out if it needs a dataset of the paper that isn't configured, or a view that can't be made: of
    `ready_made` datasets, which are flow without frames, or by an encoder without weights. Raises MerbaError for an
    unknown dataset, and if no experiment is left.
    """
    papers = {dataset for experiment in library().values() for dataset in experiment.get("datasets", [])}
    settings, left_out = {}, {}
    for name, experiment in config["experiments"].items():
        absent = [d for d in experiment.get("datasets") or [] if d not in datasets and d in papers]
        if absent:
            left_out[name] = f"the configuration has no dataset {', '.join(absent)}"
            continue
        chosen = experiment_settings(config, name, datasets)
        if reason := _view_is_impossible(chosen, ready_made):
            left_out[name] = reason
        else:
            settings[name] = chosen
    if not settings:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in left_out.items())
        raise MerbaError(
            f"no experiment can run with the datasets {', '.join(datasets)}:{lines}\nAdd one of your own, such as "
            f"`experiments: {{merba: {{inherit: merba, datasets: [{', '.join(datasets)}]}}}}`, and set `data: own`"
        )
    for name, experiment in settings.items():
        if experiment["against"] is not None and experiment["against"] not in config["experiments"]:
            raise MerbaError(
                f"experiments.{name}.against: no experiment {experiment['against']!r}"
                f"{did_you_mean(experiment['against'], settings)}"
            )
    return settings, left_out


def usual_experiments(config: Mapping[str, Any], experiments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those `experiments` that a plain run trains: not the optional ones, unless `every_method` is set."""
    return [name for name, settings in experiments.items() if config["every_method"] or not settings.get("optional")]


def _view_is_impossible(settings: Mapping[str, Any], ready_made: Collection[str]) -> str | None:
    """Why an experiment's view can't be made; None if it can, or if there is no view."""
    if (view := settings.get("view")) is None:
        return None
    if without := [name for name in settings["datasets"] if name in ready_made]:
        return f"its view {view['name']} is of frames, but {', '.join(without)} is ready-made flow"
    if view["keep"] != "tokens":
        return None
    if not view.get("pretrained"):
        return f"views.{view['name']}.pretrained names no file of weights"
    return None if Path(view["pretrained"]).is_file() else f"views.{view['name']}.pretrained: no file {view['pretrained']}"


def experiment_settings(config: Mapping[str, Any], name: str, datasets: Collection[str]) -> dict[str, Any]:
    """Experiment `name` of a complete configuration, filled in: datasets (by default all `datasets`), training, tables, view.

    With a view of tokens, the model's `pretrained` is the view's. Raises MerbaError if the experiment names a dataset that the
    sheet doesn't have, a table of another protocol or an unknown view, or if its settings don't fit its view.
    """
    experiment = dict(config["experiments"][name])
    if "view" in experiment:
        experiment["view"] = view = view_settings(config, experiment["view"], f"experiments.{name}.view: ")
        if view["keep"] == "tokens":
            experiment["model"] = {**experiment["model"], "pretrained": view.get("pretrained")}
    experiment["datasets"] = sorted(experiment.get("datasets") or datasets)
    experiment["training"] = {**config["training"], **experiment.get("training", {})}
    _check_view(name, experiment)
    experiment.setdefault("tables", ["table_4_dfme" if experiment["protocol"] == "holdout" else "table_5_3db"])
    for table, protocol in PROTOCOLS.items():
        if table in experiment["tables"] and experiment["protocol"] != protocol:
            raise MerbaError(
                f"experiments.{name}.tables: {table} has rows of protocol {protocol}, but this experiment's is "
                f"{experiment['protocol']}; change one of the two"
            )
    for dataset in experiment["datasets"]:
        if dataset not in datasets:
            raise MerbaError(
                f"experiments.{name}.datasets: the configured data has no dataset {dataset!r}"
                f"{did_you_mean(dataset, datasets)}; it has {', '.join(sorted(datasets))}"
            )
    return experiment


def _check_view(name: str, experiment: Mapping[str, Any]) -> None:
    """Raise MerbaError if an experiment's settings don't fit what its view keeps."""
    if (view := experiment.get("view")) is None:
        return
    if experiment["decode"] != "raw":
        raise MerbaError(
            f"experiments.{name}.decode is for flow, but its model takes the view {view['name']}: leave one of them out"
        )
    wanted = {"shift": 0}
    if view["keep"] == "tokens":
        wanted |= {"flip": False, "mirror_average": False, "normalise": False}
    for key, value in wanted.items():
        if experiment["training"][key] != value:
            raise MerbaError(
                f"experiments.{name}: training.{key} is for flow, but the view {view['name']} keeps {view['keep']}: set "
                f"`{key}: {str(value).lower()}` in the experiment's `training`"
            )


def fold_settings(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `experiment_settings` that decides a fold's result; names of table rows and comparisons don't."""
    # Only if it isn't the default, so that folds trained before this setting existed stay valid.
    decode = {} if experiment["decode"] == "raw" else {"decode": experiment["decode"]}
    view = {"view": experiment["view"]} if "view" in experiment else {}
    return {key: experiment[key] for key in DECIDING} | decode | view


def pack_folder(experiment: Mapping[str, Any]) -> str:
    """The folder in `results` with the packs of an experiment: of flow, or of its view."""
    return f"views/{experiment['view']['name']}" if "view" in experiment else "packed"


def origin_of(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The origin of results: the complete configuration's `file`, and its settings that differ from the defaults.

    `changed` has them by path, for example `training.epochs`. It leaves out the paths of the data and the settings of
    experiments.
    """
    changed = {}
    for key, node in schema("config")["properties"].items():
        if key in config and node.get("properties"):
            defaults = {child: about["default"] for child, about in node["properties"].items()}
            changed |= {f"{key}.{child}": value for child, value in config[key].items() if value != defaults[child]}
        elif "default" in node and config[key] != node["default"]:
            changed[key] = config[key]
    return {"file": file, "changed": changed}


def changed_by_experiments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What experiments of a complete configuration set, by path: their models, and changes of defaults and of `training`."""
    known = schema("config")["properties"]["experiments"]["additionalProperties"]["properties"]
    defaults = {key: known[key]["default"] for key in (*DECIDING, "decode") if "default" in known[key]}
    changed = {}
    for name, experiment in config["experiments"].items():
        own = {key: experiment[key] for key, default in defaults.items() if experiment[key] != default}
        own["model"] = experiment["model"]
        own |= {"view": experiment["view"]} if "view" in experiment else {}
        training = experiment.get("training", {}).items()
        own |= {f"training.{key}": value for key, value in training if value != config["training"][key]}
        changed |= {f"experiments.{name}.{key}": value for key, value in own.items()}
    return changed


def _fill(node: Mapping[str, Any], value: Any) -> Any:
    """`value` with the defaults of the schema `node`, and its keys in the schema's order, then others by name.

    Snakemake compares parameters as text: a file with its keys in another order must not rerun a job.
    Names that the user gives (of datasets, of experiments) keep their order; `$ref`s, inherited settings, are left as given.
    """
    if not isinstance(value, dict):
        return value
    known = node.get("properties", {})
    filled = {}
    for key, child in known.items():
        if key in value or "default" in child:
            filled[key] = _fill(child, value.get(key, deepcopy(child.get("default"))))
    extra = node.get("additionalProperties")
    others = [key for key in value if key not in known]
    for key in others if isinstance(extra, Mapping) else sorted(others):
        filled[key] = _fill(extra, value[key]) if isinstance(extra, Mapping) else value[key]
    return filled


def expects_gpu(device: str) -> bool:
    """Whether trainings will run on CUDA, by the setting `device`; found without importing PyTorch, which takes two seconds."""
    if device == "auto":
        return shutil.which("nvidia-smi") is not None and not version("torch").endswith("+cpu")
    return device == "cuda"
