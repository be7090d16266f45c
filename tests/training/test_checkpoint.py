"""Checkpoints: what is saved is loaded, and what can't be used is refused with file, value and remedy."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from checkpoints import CLASSES, CONFIG, checkpoint, member
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import merba
from merba.errors import MerbaError
from merba.models import create_model
from merba.preprocessing.packs import RELEASED, FlowFormat
from merba.training.checkpoint import Member, describe_model, join_checkpoints, load_checkpoint, save_checkpoint


def rewritten(path, **changes):
    """The file at `path` with keys of its metadata replaced; a key of None is left out."""
    with safe_open(path, "pt") as file:
        found = json.loads(file.metadata()["merba"]) | changes
    kept = {key: value for key, value in found.items() if value is not None or key not in changes}
    save_file(load_file(path), path, {"merba": json.dumps(kept)})
    return path


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, checkpoint())
    return path


def same(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_what_is_saved_is_loaded(tmp_path):
    made = checkpoint(member(1), member(2, None), mirror_average=True)
    save_checkpoint(tmp_path / "deep" / "model.safetensors", made)
    loaded = load_checkpoint(tmp_path / "deep" / "model.safetensors")
    assert json.dumps(loaded.description) == json.dumps(made.description)
    assert [one.left_out for one in loaded.members] == [("samm", "006"), None]
    assert all(same(one.weights, other.weights) for one, other in zip(loaded.members, made.members, strict=True))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.safetensors"]


def test_how_flow_images_are_made_is_saved(tmp_path):
    made = checkpoint(
        data="public_flow",
        form=FlowFormat(("u", "v"), "image"),
        image=replace(RELEASED, size=56),
        error={"all": {"n": 3, "subjects": 1, "uf1": 0.5, "uar": 0.25}},
    )
    save_checkpoint(tmp_path / "model.safetensors", made)
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.image == made.image
    assert loaded.measured == "leave-one-subject-out UF1 / UAR: all 0.500 / 0.250"


@pytest.mark.parametrize(
    ("data", "left_out", "text"),
    [
        ("public_flow", None, "442 real micro-expressions (public flow)"),
        ("demo", ("samm", "006"), "442 rendered clips (demo), without samm 006"),
        ("own", None, "442 clips (own)"),
    ],
)
def test_a_checkpoint_says_in_words_what_it_was_trained_on(data, left_out, text):
    made = checkpoint(member(left_out=left_out), data=data, clips={"smic_hs": 164, "casme2": 145, "samm": 133})
    assert made.trained_on == text


def test_one_model_keeps_the_names_of_its_state_dict_and_members_are_numbered(saved, tmp_path):
    names = member().weights.keys()
    assert load_file(saved).keys() == names
    save_checkpoint(tmp_path / "both.safetensors", checkpoint(member(1), member(2)))
    assert load_file(tmp_path / "both.safetensors").keys() == {f"{i}.{name}" for i in (0, 1) for name in names}


def test_a_built_model_computes_what_the_trained_one_did(saved):
    torch.manual_seed(0)
    trained = create_model("merba_nano", 3).eval()
    loaded = load_checkpoint(saved)
    x = torch.randn(2, *loaded.input_shape)
    with torch.no_grad():
        assert torch.equal(loaded.build(loaded.members[0])(x), trained(x))


def test_the_folder_of_the_detectors_weights_stays_on_its_machine(tmp_path):
    save_checkpoint(tmp_path / "model.safetensors", checkpoint(faces=CONFIG["faces"] | {"weights": "/some/folder"}))
    assert b"/some/folder" not in (tmp_path / "model.safetensors").read_bytes()
    assert load_checkpoint(tmp_path / "model.safetensors").faces == {k: v for k, v in CONFIG["faces"].items() if k != "weights"}


def of_kernel(clips, left_out=("samm", "006")):
    """A member of the kernel method that was fitted to `clips` clips."""
    model = create_model("kernel", 3, in_channels=2)
    flow = torch.randn(clips, 2, 28, 28)
    model.fit(model.features(flow), torch.arange(clips) % 3, torch.arange(clips))
    return Member(model.state_dict(), [0, 0], [1, 1], left_out)


def test_members_that_hold_their_clips_may_hold_different_numbers_of_them(tmp_path):
    made = checkpoint(of_kernel(5), of_kernel(8), model={"name": "kernel", "in_channels": 2}, decode="signed")
    save_checkpoint(tmp_path / "model.safetensors", made)
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.decode == "signed"
    assert loaded.holds_clips and not checkpoint().holds_clips
    x = torch.randn(2, 2, 28, 28)
    for one, other in zip(loaded.members, made.members, strict=True):
        assert torch.equal(loaded.build(one)(x), made.build(other)(x))


def test_a_member_whose_clips_and_coefficients_differ_in_number_is_refused(tmp_path):
    one = of_kernel(5)
    one.weights["clips"] = one.weights["clips"][:4]
    with pytest.raises(MerbaError, match=r"don't fit kernel: coefficients is \(10, 5, 3\), the model has \(10, 4, 3\)"):
        save_checkpoint(tmp_path / "model.safetensors", checkpoint(one, model={"name": "kernel", "in_channels": 2}))


def test_weights_in_another_memory_layout_are_saved(tmp_path):
    weights = create_model("merba_nano", 3).to(memory_format=torch.channels_last).state_dict()
    save_checkpoint(tmp_path / "model.safetensors", checkpoint(Member(weights, [0, 0], [1, 1])))
    assert same(load_checkpoint(tmp_path / "model.safetensors").members[0].weights, weights)


def test_the_layer_scale_that_pretrained_weights_brought_is_described():
    weights = create_model("merba_nano", 3, layer_scale=1e-5).state_dict()
    settings = {"name": "merba_nano", "pretrained": "mambavision.safetensors"}
    described = describe_model(settings, weights)
    assert described == {"name": "merba_nano", "layer_scale": 1e-5}
    assert create_model("merba_nano", 3, layer_scale=1e-5).state_dict().keys() == weights.keys()
    assert describe_model({**settings, "layer_scale": 0.1}, weights)["layer_scale"] == 0.1
    assert describe_model({"name": "merba_nano"}, member().weights) == {"name": "merba_nano"}


def test_folds_are_joined_to_an_ensemble(tmp_path):
    folds = {tmp_path / str(i): checkpoint(member(i, ("samm", f"00{i}"))) for i in range(3)}
    joined = join_checkpoints(folds)
    assert [one.left_out[1] for one in joined.members] == ["000", "001", "002"]
    assert joined.model == {"name": "merba_nano"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"name": "merba_nano", "dropout": 0.3}}, "model is"),
        ({"classes": CLASSES[::-1]}, "classes is"),
        ({"flow": CONFIG["flow"] | {"tau": 0.2}}, "flow is"),
        ({"data": "3db"}, "data is 3db, but demo"),
        ({"mirror_average": True}, "mirror_average is True"),
        ({"decode": "signed"}, "decode is signed, but raw"),
        ({"version": "0.0.9"}, "version is 0.0.9"),
    ],
)
def test_folds_that_differ_in_more_than_weights_are_not_joined(tmp_path, changes, named):
    with pytest.raises(MerbaError, match=named) as caught:
        join_checkpoints({tmp_path / "a": checkpoint(), tmp_path / "b": checkpoint(**changes)})
    assert str(tmp_path / "b") in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MerbaError, match=r"absent\.safetensors: there is no such file; give a checkpoint"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("name", "message"), [("a.pth", r"a \.pth file"), ("a.safetensors", "cut short, damaged or not safetensors")]
)
def test_a_pytorch_file_is_refused(tmp_path, name, message):
    torch.save(member().weights, tmp_path / name)
    with pytest.raises(MerbaError, match=f"{name}: {message}.* or give a model.safetensors"):
        load_checkpoint(tmp_path / name)


def test_a_file_that_is_cut_short_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(MerbaError, match="cut short, .*; copy it again"):
        load_checkpoint(saved)


def test_safetensors_of_others_are_refused(tmp_path):
    save_file(dict(member().weights), tmp_path / "other.safetensors")
    with pytest.raises(MerbaError, match=r"other\.safetensors: a safetensors file without merba's metadata"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": 3, "version": "9.9"},
            f"format 3, written by merba 9.9; this merba .{merba.__version__}. reads 2: update it",
        ),
        ({"format": 1}, "format 1, .* reads 2: train or export again"),
        ({"unit": "image"}, "the unit of its flow and its settings of flow images don't fit each other: train again"),
        (
            {"unit": "image", "image": asdict(RELEASED) | {"scaling": "z-score"}},
            "unknown flow images, area and z-score: update merba",
        ),
        ({"model": {"name": "merba_huge"}}, "unknown model 'merba_huge'; known: merba_base"),
        ({"model": {"name": "merba_nano", "depht": 3}}, "has no argument 'depht'"),
        ({"model": {"name": "merba_nano", "pretrained": "x.pth"}}, "names a `pretrained` file"),
        ({"model": {}}, "neither a `name`, nor"),
        ({"channels": ["u", "w"]}, "unknown flow channel 'w'; this merba makes u, v, strain, magnitude"),
        ({"channels": ["u"]}, "needs 2 input channels, the flow has 1"),
        ({"decode": "squared"}, "unknown decode 'squared'; known: raw, signed"),
        ({"unit": "mm"}, "unknown unit of flow 'mm'"),
        ({"classes": CLASSES[:2]}, r"2 tensors of member 0 don't fit merba_nano: head\.bias is \(3,\), the model has \(2,\)"),
        ({"model": {"name": "merba_nano", "layer_scale": 0.1}}, r"gamma_1 is missing"),
        ({"flow": {"tua": 0.2}}, "settings of flow: .*unknown key 'tua'"),
        ({"classes": None}, "'classes' is missing: the metadata is damaged"),
        ({"members": []}, "no members: the metadata is damaged"),
        ({"members": [{"mean": [0], "std": [1], "left_out": None}]}, "1 means and 1 deviations for 2 channels"),
    ],
)
def test_what_does_not_fit_is_refused(saved, changes, message):
    with pytest.raises(MerbaError, match=message) as caught:
        load_checkpoint(rewritten(saved, **changes))
    assert str(saved) in str(caught.value)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    with pytest.raises(MerbaError, match="don't fit merba_nano"):
        save_checkpoint(tmp_path / "model.safetensors", checkpoint(member(classes=4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "form", "keep"),
    [
        ({"name": "slstt", "length": 3, "width": 24, "hidden": 8}, FlowFormat(("token",), "token"), "tokens"),
        ({"name": "lbp_top", "image_size": 32}, FlowFormat(("grey",), "grey"), "grey"),
    ],
)
def test_a_model_that_takes_a_view_is_saved_with_the_views_settings(tmp_path, model, form, keep):
    arguments = {key: value for key, value in model.items() if key != "name"}
    trained = create_model(model["name"], 3, **arguments).eval()
    view = {"name": "v", "keep": keep}
    made = replace(checkpoint(Member(trained.state_dict(), [0.0], [1.0])), model=model, form=form, view=view)
    save_checkpoint(tmp_path / "model.safetensors", made)
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert (loaded.view, loaded.form, loaded.input_shape) == (view, form, trained.input_shape)
    x = torch.randn(2, *trained.input_shape)
    with torch.no_grad():
        assert torch.equal(loaded.build(loaded.members[0])(x), trained(x))
