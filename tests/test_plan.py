"""What runs for a configuration: the micro-demo's experiments, folds, tables and figures."""

from pathlib import Path

import pytest
import yaml
from releases import write_release
from workflow_runs import MICRO, ROOT

from merba.costs import LEAST_MB
from merba.errors import MerbaError
from merba.plan import Plan

SUBJECTS = {"smic_hs": ["s01", "s02"], "casme2": ["sub01", "sub02"], "samm": ["006", "007"]}


def planned(**changes):
    return Plan(yaml.safe_load(MICRO.read_text()) | changes)


@pytest.fixture(scope="module")
def plan():
    return planned()


def test_an_experiment_by_loso_has_a_fold_for_each_subject_and_holdout_has_one(plan):
    assert sorted(plan.folds("merba")) == sorted((name, subject) for name, ids in SUBJECTS.items() for subject in ids)
    assert plan.folds("merba_dgcm") == [("dfme", "holdout")]
    assert {name: plan.subjects(name) for name in SUBJECTS} == SUBJECTS


@pytest.mark.parametrize(
    ("device", "solver", "runs"), [("cuda", "auto", "cuda"), ("cpu", "auto", "numba"), ("cuda", "numba", "numba")]
)
def test_flow_runs_on_the_gpu_where_training_does_and_it_is_asked_for(device, solver, runs):
    plan = planned(device=device, flow={"solver": solver})
    assert plan.flow["solver"] == runs
    assert plan.flow_on_gpu("samm") == (runs == "cuda")


def test_the_files_of_predictions_are_those_of_the_folds(plan):
    assert plan.predictions("merba_dgcm") == ["results/folds/merba_dgcm/dfme/holdout/predictions.parquet"]
    assert "results/folds/merba/samm/007/predictions.parquet" in plan.predictions("merba")


def test_ablations_are_left_out_unless_they_are_asked_for(plan):
    assert plan.result_tables(ablations=False) == ["table_4_dfme", "table_5_3db"]
    assert plan.trained(ablations=False) == ["merba", "ststnet", "merba_dgcm"]
    assert "scan_hr" in plan.trained(ablations=True)
    assert "results/table_7_scanning.csv" in plan.tables(ablations=True)
    assert len(plan.every_prediction(ablations=True)) == len(plan.every_prediction(ablations=False)) + 1


def test_tables_ii_and_iii_are_counted_where_their_datasets_are():
    without = {
        "datasets": {"samm": {"adapter": "samm", "root": "x"}},
        "experiments": {"a": {"inherit": "merba", "datasets": ["samm"]}},
    }
    assert "results/table_2_dfme_counts.csv" in planned().tables(ablations=False)
    tables = planned(**without).tables(ablations=False)
    assert "results/table_3_3db_counts.csv" in tables
    assert "results/table_2_dfme_counts.csv" not in tables


def test_an_experiment_without_its_datasets_is_left_out_and_says_which():
    dfme = {"datasets": {"dfme": {"adapter": "dfme", "root": "x"}}}
    plan = planned(**dfme)
    assert list(plan.experiments) == ["merba_dgcm", "scan_hr"]
    assert plan.left_out["merba"] == "the configuration has no dataset smic_hs, casme2, samm"


def test_a_composite_has_one_confusion_matrix_and_a_division_one_a_test_set(plan):
    matrices = plan.confusions(plan.trained(ablations=False))
    assert set(matrices) == {"merba", "ststnet", "merba_dgcm_test_a", "merba_dgcm_test_b"}
    assert matrices["merba_dgcm_test_b"] == {"experiment": "merba_dgcm", "split": "test_b"}
    assert "results/figures/figure_3_confusion_merba_dgcm_test_a.png" in plan.figures(ablations=False)


def test_a_contact_sheet_has_every_clip_once_on_pages_that_name_their_subjects(monkeypatch, plan):
    monkeypatch.setattr("merba.preprocessing.contact_sheets.CLIPS", 3)
    rows, sheets = plan.sheet[plan.sheet["dataset"] == "casme2"], plan.contact_sheets
    files = [path for path in sheets.files() if "casme2" in path]
    assert len(rows) > 3
    assert files == [f"results/figures/samples_casme2_{page:03}.jpg" for page in range(1, -(-len(rows) // 3) + 1)]
    pages = [sheets.clips("casme2", path[-7:-4]) for path in files]
    assert [clip["clip"] for page in pages for clip in page] == rows["clip"].tolist()
    assert max(map(len, pages)) == 3
    assert sheets.subjects("casme2", "001") == list(dict.fromkeys(clip["subject"] for clip in pages[0]))
    assert sheets.title("casme2", "002") == f"casme2, page 2 of {len(pages)}: clips 4 to {min(6, len(rows))} of {len(rows)}"
    for page in ("000", str(len(pages) + 1)):
        with pytest.raises(MerbaError, match=f"no page {page} of the samples of casme2: it has {len(pages)}"):
            sheets.clips("casme2", page)


def test_every_method_of_table_v_is_there_or_what_is_missing_is_named():
    methods = yaml.safe_load((ROOT / "config" / "methods.yaml").read_text())
    assert Plan(methods).every_method() == "results/table_5_3db.csv"
    del methods["experiments"]["htnet"]
    with pytest.raises(MerbaError, match="no experiment of the configuration trains htnet, so it can't make Table V with every"):
        Plan(methods).every_method()


@pytest.mark.parametrize("rate", [1e-4, 2e-3])
def test_mersiamc3ds_second_half_has_a_tenth_of_the_rate_whatever_the_common_rate_is(rate):
    methods = yaml.safe_load((ROOT / "config" / "methods.yaml").read_text())
    methods["training"]["rate"] = rate
    methods["experiments"] |= {f"shipped_{name}": {"inherit": name} for name in ("mersiamc3d", "mersiamc3d_small")}
    experiments = Plan(methods).experiments.values()
    staged = [own["training"] for own in experiments if own["model"]["name"].startswith("mersiamc3d")]
    assert len(staged) == 3
    for training in staged:
        assert training["min_rate"] == pytest.approx(training["rate"] / 10)
        assert training["cooldown"] == training["epochs"] / 2


def test_table_i_has_each_model_once():
    experiments = {name: {"inherit": "merba", "method": name, "model": {"name": "merba_nano"}} for name in ("a", "b")}
    assert planned(experiments=experiments).models() == [("merba_nano", {}, 3)]


def test_a_clip_is_a_parameter_of_its_own_subject_and_its_label_is_not(plan):
    clips = plan.clips("samm", "006")
    assert [clip["clip"] for clip in clips] == ["006_1_1", "006_1_2", "006_1_3"]
    assert "label" not in clips[0]
    assert {"clip", "label", "split"} <= plan.labels("merba")[0].keys()


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (("mebra", "samm", "006"), "there is no experiment 'mebra' (did you mean 'merba'?); those that run are merba, ststnet"),
        (("merba", "samm", "06"), "experiment merba has no fold 'samm/06' (did you mean 'samm/006'?); it has 6"),
    ],
)
def test_a_fold_that_is_none_is_named_with_the_nearest(plan, fold, message):
    with pytest.raises(MerbaError) as error:
        plan.check_fold(*fold)
    assert message in str(error.value)


def test_a_subject_that_is_none_is_named(plan):
    with pytest.raises(MerbaError, match="the sample sheet has no subject 9 in samm"):
        plan.clips("samm", "9")


def test_one_folder_under_two_names_stops_the_experiment_that_would_train_on_what_it_tests(tmp_path):
    root = str(write_release("casme2", tmp_path / "casme2"))
    twice = {"data": "own", "datasets": {name: {"adapter": "casme2", "root": root} for name in ("casme2", "again")}}

    def plan(*datasets):
        experiments = {name: {"method": name, "model": {"name": "ststnet"}, "datasets": list(own)} for name, own in datasets}
        return Plan(twice | {"experiments": experiments})

    plan(("a", ["casme2"]), ("b", ["again"]))
    with pytest.raises(MerbaError, match=r"again sub01 EP01_01f and casme2 sub01 EP01_01f share frames"):
        plan(("a", ["casme2", "again"]))


LOSO, HOLDOUT = {"inherit": "merba"}, {"inherit": "merba_dgcm", "tables": ["table_6_lgfi"]}


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"a": LOSO | {"tables": ["table_4_dfme"]}}, "experiments.a.tables: table_4_dfme has rows of protocol holdout"),
        ({"a": HOLDOUT | {"tables": ["table_5_3db"]}}, "experiments.a.tables: table_5_3db has rows of protocol loso"),
        (
            {"a": LOSO | {"datasets": ["samm"], "against": "b"}, "b": LOSO | {"datasets": ["casme2"]}},
            "experiments.a.against: a and b test no clip in common; compare",
        ),
        (
            {
                "a": HOLDOUT | {"against": "b"},
                "b": LOSO | {"datasets": ["dfme"], "folds": {"most_clips": 1}, "tables": ["table_6_lgfi"]},
            },
            "experiments.a.against: a and b test no clip of test_a in common",
        ),
    ],
)
def test_a_table_or_comparison_that_cannot_be_is_refused_before_anything_runs(experiments, message):
    with pytest.raises(MerbaError) as error:
        planned(experiments=experiments)
    assert message in str(error.value)


def test_tables_of_ablations_take_either_protocol():
    tables = {"tables": ["table_6_lgfi", "table_7_scanning"]}
    assert planned(experiments={"a": LOSO | tables, "b": HOLDOUT | tables}).result_tables(ablations=True) == tables["tables"]


def test_a_training_asks_for_memory_by_its_clips_and_their_size(plan):
    pixels = 28 * 2 * 224**2  # DFME's clips, u and v
    assert plan.fold_memory("merba_dgcm") == LEAST_MB + pixels * (2 + 8) // 10**6
    larger = planned(demo=yaml.safe_load(MICRO.read_text())["demo"] | {"dfme_clips": 700})
    assert larger.fold_memory("merba_dgcm") == LEAST_MB + 100 * pixels * (2 + 8) // 10**6


def test_cloned_flow_makes_no_other_dataset_wait_and_hides_no_changed_frame(tmp_path):
    root = write_release("casme2", tmp_path / "casme2")
    clone = {"adapter": "flow_images", "repository": "r", "commit": "c"}
    both = {"cloned": clone, "own": {"adapter": "clips", "root": str(tmp_path)}}
    table = "subject,clip,source,onset,apex,offset,emotion,label\n"
    frames = next(path for path in sorted((root / "CASME2-RAW").glob("*/*")) if path.is_dir())
    (tmp_path / "clips.csv").write_text(f"{table}s,c,{frames.relative_to(tmp_path)},,,,happiness,positive\n")
    experiments = {"a": {"method": "A", "model": {"name": "ststnet"}}}

    def planned_now():
        return Plan({"data": "own", "datasets": both, "experiments": experiments})

    plan = planned_now()
    assert plan.made("samm") == ["results/public_flow/cloned"]
    assert plan.made("own") == []
    before = [plan.file_state(*subject) for subject in (("own", "s"), ("samm", "006"))]
    frame = sorted(frames.iterdir())[0]
    frame.write_bytes(frame.read_bytes() + b"x")
    after = [planned_now().file_state(*subject) for subject in (("own", "s"), ("samm", "006"))]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_a_module_reads_what_its_rules_make_behind_the_prefix():
    clone = {"adapter": "flow_images", "repository": "r", "commit": "c"}
    experiments = {"a": {"method": "A", "model": {"name": "ststnet"}}}
    for config, made in (
        ({"data": "own", "datasets": {"cloned": clone}, "experiments": experiments}, "results/public_flow/cloned"),
        (yaml.safe_load(MICRO.read_text()), "results/demo/samm"),
    ):
        plan = Plan(config, results=Path("faces/results"))
        assert plan.made("samm") == [made]  # as rules call it
        assert all(clip["source"].startswith(f"faces/{made}/") for clip in plan.clips("samm", "006"))
        (name,) = list(plan.experiments)[:1]
        assert plan.runs([name])[name]["predictions"][0].startswith(f"faces/results/folds/{name}/")
        assert plan.predictions(name)[0].startswith(f"results/folds/{name}/")


KEY_FRAMES = {"inherit": "merba", "method": "Key frames", "view": "key16", "model": {"name": "merba_nano"}}


def test_a_view_has_packs_gates_and_a_figure_where_an_experiment_takes_it():
    plan = planned(experiments={"merba": LOSO, "key": KEY_FRAMES | {"datasets": ["samm", "smic_hs"]}})
    assert plan.views.taken_by(plan.experiments) == {"key16": ["samm", "smic_hs"]}
    assert plan.packs("key") == ["results/views/key16/samm.npy", "results/views/key16/smic_hs.npy"]
    assert plan.packs("merba", ".checked")[0] == "results/packed/casme2.checked"
    assert "results/figures/views/key16/samm.png" in plan.figures(ablations=False)
    assert "results/times/view/key16/samm/006.tsv" in plan.times(ablations=False)
    assert plan.experiments["key"]["view"] == {"name": "key16", "frames": "key", "length": 16, "size": 112, "keep": "grey"}


def test_an_experiment_asks_for_the_memory_of_its_view():
    plan = planned(experiments={"key": KEY_FRAMES})
    assert plan.fold_memory("key") == LEAST_MB + 18 * 16 * 112**2 * 10 // 10**6


def test_views_that_nobody_takes_change_nothing_of_a_plan(plan):
    other = planned(views={"key16": {"length": 8}, "mine": {"frames": "apex", "length": 1, "size": 64, "keep": "grey"}})
    assert other.experiments == plan.experiments
    assert other.figures(ablations=True) == plan.figures(ablations=True)
    assert other.times(ablations=True) == plan.times(ablations=True)
    assert not any("view" in settings for settings in plan.experiments.values())
    assert other.views.settings("key16")["length"] == 8
    assert plan.views.datasets("tim10") == sorted(plan.datasets)


def test_the_encoder_counts_for_the_code_of_tokens_alone():
    plan = planned(views={"lof11": {"pretrained": "vit.safetensors"}})
    assert plan.views.encoder("lof11") == ["vit.safetensors"]
    assert plan.views.encoder("tim10") == []
    assert plan.views.code("tim10") == plan.views.code("key16") != plan.views.code("lof11")
    assert plan.views.flow("tim10") is None
    assert plan.views.flow("apex1") == plan.config["flow"] | {"solver": "numba"}
    with pytest.raises(MerbaError, match="views.lof11.pretrained names no file of weights"):
        planned().views.encoder("lof11")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experiments": {"a": KEY_FRAMES | {"view": "key15"}}},
            "experiments.a.view: 'key15' is unknown (did you mean 'key16'?); choose one of tim10, key16, key8",
        ),
        ({"views": {"b": {"length": 3}}, "experiments": {"a": KEY_FRAMES | {"view": "b"}}}, "views.b: missing key 'frames'"),
        ({"views": {"b": {"frames": "all"}}}, "views.b.frames: 'all' is unknown; choose one of tim, key"),
        (
            {"views": {"key16": {"length": 2}}, "experiments": {"a": KEY_FRAMES}},
            "views.key16.length is 2; key frames must be at least 3",
        ),
    ],
)
def test_a_view_that_cannot_be_is_refused_before_anything_runs(changes, message):
    with pytest.raises(MerbaError) as error:
        planned(**changes)
    assert message in str(error.value)


TOKENS = KEY_FRAMES | {"view": "lof11", "training": {"flip": False, "normalise": False}}


def test_a_file_that_holds_no_vit_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "vit.safetensors").write_bytes(b"<html>")
    with pytest.raises(MerbaError, match="vit.safetensors is not a .safetensors file of a ViT with timm's names"):
        planned(experiments={"a": TOKENS}, views={"lof11": {"pretrained": str(tmp_path / "vit.safetensors")}})


def test_an_experiment_whose_view_cannot_be_made_is_left_out_and_says_why():
    plan = planned(experiments={"merba": LOSO, "a": TOKENS})
    assert plan.left_out == {"a": "views.lof11.pretrained names no file of weights"}
    absent = planned(experiments={"merba": LOSO, "a": TOKENS}, views={"lof11": {"pretrained": "vit.safetensors"}})
    assert absent.left_out == {"a": "views.lof11.pretrained: no file vit.safetensors"}
    flow = {"data": "own", "datasets": {"flow": {"adapter": "flow_images", "repository": "r", "commit": "c"}}}
    experiments = {"b": {"method": "B", "model": {"name": "ststnet"}}, "a": KEY_FRAMES | {"datasets": ["samm"]}}
    plan = Plan(flow | {"experiments": experiments})
    assert plan.left_out == {"a": "its view key16 is of frames, but samm is ready-made flow"}


def test_an_optional_experiment_is_in_the_tables_of_every_method_alone():
    experiments = {"merba": LOSO, "more": LOSO | {"optional": True}}
    plan = planned(experiments=experiments)
    assert plan.trained(ablations=True) == ["merba"]
    assert plan.in_table("table_5_3db") == ["merba"]
    assert plan.in_table("table_5_3db", every_method=True) == ["merba", "more"]
    assert plan.whole_table("table_5_3db") == "results/table_5_3db_every_method.csv"
    assert not any("/more/" in path for path in plan.every_prediction(ablations=True))
    whole = planned(experiments=experiments, every_method=True)
    assert whole.trained(ablations=False) == ["merba", "more"]
    assert whole.whole_table("table_5_3db") == "results/table_5_3db.csv"
