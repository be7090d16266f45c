"""`merba plan`: its jobs compared with those that Snakemake plans, and its warnings."""

import re

import yaml
from releases import write_release
from workflow_runs import MICRO, ROOT, planned, snakemake

from merba.cli import main
from merba.plan import Plan

STAGES = {"table_1": "table", "table_2": "table", "table_3": "table", "results_table": "table"}


def printed(capsys, config):
    assert main(["plan", "--config", str(config)]) == 0
    return capsys.readouterr().out


def test_jobs_are_those_that_snakemake_plans(tmp_path, capsys):
    said = {stage: int(jobs) for stage, jobs in re.findall(r"^ *(\w+) +(\d+) +[\d.]+$", printed(capsys, MICRO), re.M)}
    runs = {}
    for rule, jobs in planned(snakemake(tmp_path / "run", "-n")).items():
        if rule not in ("all", "total"):
            runs[STAGES.get(rule, rule)] = runs.get(STAGES.get(rule, rule), 0) + jobs
    assert said == runs


def test_the_public_flow_takes_a_day_of_two_cores_at_most(capsys):
    text = printed(capsys, ROOT / "config" / "public_flow.yaml")
    hours = float(re.search(r"^ *fold +1088 +([\d.]+)$", text, re.M)[1])
    assert 5 < hours < 48
    assert "Warning" not in text


def plan_of(tmp_path, device, model):
    root = write_release("flow_images", tmp_path / f"{device}_{model}")
    experiments = {"large": {"method": "M", "model": {"name": model}}}
    datasets = {"mine": {"adapter": "flow_images", "root": str(root)}}
    return Plan({"data": "own", "device": device, "datasets": datasets, "experiments": experiments})


def test_a_model_for_gpus_is_warned_of_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("merba.plan.LONG_HOURS", 0.05)  # the release has a few clips only
    (warning,) = plan_of(tmp_path, "cpu", "merba_base").warnings(ablations=True)
    assert "experiment large trains 93.8 million parameters without a GPU" in warning
    assert plan_of(tmp_path, "cuda", "merba_base").warnings(ablations=True) == []
    assert plan_of(tmp_path, "cpu", "ststnet").warnings(ablations=True) == []


def test_a_larger_network_asks_for_more_memory_and_time_without_a_gpu(tmp_path):
    on_cpu, on_gpu = (plan_of(tmp_path, device, "merba_base") for device in ("cpu", "cuda"))
    assert on_cpu.fold_memory("large") > on_gpu.fold_memory("large") + 1000
    assert on_cpu.fold_hours("large") > 10 * on_gpu.fold_hours("large")
    assert on_gpu.fold_minutes("large") == 240


def test_a_configuration_of_small_models_keeps_weights_and_its_report_names_no_change(tmp_path):
    plan = plan_of(tmp_path, "cpu", "ststnet")
    assert plan.config["keep_weights"] is True
    assert "weights" in plan.fold_files()
    assert plan.origin["changed"] == {"device": "cpu"}
    assert "weights" not in plan_of(tmp_path, "cuda", "merba_base").fold_files()


def test_every_attempt_asks_for_more(tmp_path):
    """Of memory and time, in every rule."""
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    asked = re.findall(r"^ +(?:mem_mb|runtime)=(.*)$", rules, re.M)
    assert len(asked) > 30
    assert all(value.startswith("retried(") or "attempt" in value for value in asked)
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert not {"mem_mb", "runtime"} & {key for rule in profile["set-resources"].values() for key in rule}
