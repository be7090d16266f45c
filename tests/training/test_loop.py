"""Training a fold: schedule, honest choice of the epoch, and no leak from the test subject."""

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_folds import CPU, PIXELS, QUICK, Small, clips, fold, split
from torch.optim.optimizer import register_optimizer_step_post_hook

from merba.errors import MerbaError
from merba.models.heads import classification_loss
from merba.training import epoch, loop, resume
from merba.training.inputs import FoldData, prepare, shifted
from merba.training.loop import train_fold, train_without_test, weights_digest
from merba.training.settings import rate_at


def test_the_rate_warms_up_decays_as_a_cosine_and_cools_down():
    settings = replace(QUICK, epochs=70, rate=1e-4, min_rate=1e-6, warmup=5, cooldown=10)
    assert rate_at(0, settings) == pytest.approx(1e-6)
    assert rate_at(2.5, settings) == pytest.approx((1e-4 + 1e-6) / 2)
    assert rate_at(5, settings) == pytest.approx(1e-4)
    assert rate_at(5 + 55 / 2, settings) == pytest.approx((1e-4 + 1e-6) / 2)
    assert rate_at(5 + 55 / 3, settings) == pytest.approx(1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi / 3)) / 2)
    assert all(rate_at(epoch, settings) == pytest.approx(1e-6) for epoch in (60, 65.3, 70))


def test_a_constant_rate_is_constant():
    settings = replace(QUICK, schedule="constant", rate=0.3)
    assert {rate_at(epoch, settings) for epoch in (0, 1, 33, 70)} == {0.3}


def test_every_training_clip_is_shifted_by_up_to_the_setting_each_way(monkeypatch):
    flow, labels = clips()
    drawn = []
    monkeypatch.setattr(epoch, "shifted", lambda x, by: drawn.append(by) or shifted(x, by))
    result = fold(flow, labels, split(), replace(QUICK, epochs=2, shift=1))
    assert len(torch.cat(drawn)) == 2 * len(split().train)
    assert torch.cat(drawn).unique().tolist() == [-1, 0, 1]
    assert result.weights_sha256 != fold(flow, labels, split(), replace(QUICK, epochs=2)).weights_sha256


def test_the_average_of_the_weights_is_that_of_every_step():
    flow, labels = clips()
    parts = split(validation=False)
    settings = replace(QUICK, epochs=1, warmup=0, cooldown=0)
    data = prepare(flow, labels, parts.train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)

    steps = []  # weight and bias after each of the 6

    def record(optimizer, *_):
        steps.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])

    hook = register_optimizer_step_post_hook(record)
    result = train_fold(Small, data, parts, 3, replace(settings, weight_average=0.5), seed=1)
    hook.remove()
    assert len(steps) == 6
    weight, bias = steps[0]
    for after in steps[1:]:
        weight, bias = (weight + after[0]) / 2, (bias + after[1]) / 2
    torch.testing.assert_close(result.weights, {"layers.2.weight": weight, "layers.2.bias": bias})
    logits = data.inputs[parts.test].flatten(1) @ weight.T + bias
    assert result.honest.probabilities == pytest.approx(logits.softmax(1).numpy(), abs=1e-5)


def test_predictions_are_averaged_over_a_clip_and_its_mirror_image():
    flow, labels = clips(seed=4)
    parts = split(validation=False)
    data = prepare(flow, labels, parts.train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    plain, averaged = (
        train_fold(Small, data, parts, 3, replace(QUICK, epochs=2, mirror_average=mirror), seed=1) for mirror in (False, True)
    )
    assert averaged.weights_sha256 == plain.weights_sha256
    mirror_images = data.inputs.flip(3) * torch.tensor([-1.0, 1.0])[:, None, None]
    mirror_images[:, 0] -= 2 * data.mean[0] / data.std[0]  # the mean that normalising took off u changes its sign too
    weight, bias = (averaged.weights[f"layers.2.{name}"] for name in ("weight", "bias"))
    logits = [view[parts.test].flatten(1) @ weight.T + bias for view in (data.inputs, mirror_images)]
    assert averaged.honest.probabilities == pytest.approx((sum(logits) / 2).softmax(1).numpy(), abs=1e-5)
    assert np.abs(averaged.honest.probabilities - plain.honest.probabilities).max() > 1e-3


def test_a_models_own_loss_gets_the_outputs_the_labels_the_progress_and_the_settings():
    flow, labels = clips()
    parts = split(validation=False)
    seen = []

    class Doubled(Small):
        def forward(self, x):
            logits = super().forward(x)
            return (logits, "of training") if self.training else logits

        def loss(self, outputs, labels, **options):
            seen.append((outputs[1], len(labels), options))
            return 2 * classification_loss(outputs[0], labels, **options)

    settings = replace(QUICK, epochs=4, batch_size=100, class_weights="balanced", label_smoothing=0.1)
    doubled, plain = (fold(flow, labels, parts, settings, build=build) for build in (Doubled, Small))
    assert doubled.history[0]["train_loss"] == pytest.approx(2 * plain.history[0]["train_loss"])
    assert [(said, n, options["progress"]) for said, n, options in seen] == [("of training", 42, i / 4) for i in (1, 2, 3, 4)]
    assert seen[0][2]["label_smoothing"] == 0.1
    torch.testing.assert_close(seen[0][2]["class_weights"], torch.ones(3))


def test_dgcms_loss_is_convex_where_the_setting_says_so(monkeypatch):
    flow, labels = clips()
    seen = []
    monkeypatch.setattr(loop, "classification_loss", lambda *args, **options: seen.append(options) or classification_loss(*args))
    for convex in (False, True):
        fold(flow, labels, split(validation=False), replace(QUICK, epochs=1, batch_size=100, convex_loss=convex))
    assert [options["convex"] for options in seen] == [False, True]


def test_a_plain_flip_leaves_u_as_it_is(monkeypatch):
    flow, labels = clips()
    seen = []
    mirrored = FoldData.mirrored
    monkeypatch.setattr(FoldData, "mirrored", lambda *args, **options: seen.append(options) or mirrored(*args, **options))
    weights = {
        plain: fold(flow, labels, split(), replace(QUICK, epochs=2, plain_flip=plain)).weights_sha256 for plain in (False, True)
    }
    assert {options["plain"] for options in seen} == {False, True}
    assert weights[False] != weights[True]


def test_separable_classes_are_learned():
    flow, labels = clips()
    result = fold(flow, labels, split())
    assert (result.honest.predicted == labels[-6:]).all()
    assert result.honest.probabilities.sum(1) == pytest.approx(np.ones(6), abs=1e-5)


@pytest.mark.parametrize("validation", [True, False])
def test_training_without_a_test_gives_the_weights_that_a_fold_of_the_same_clips_chose(validation):
    flow, labels = clips(seed=4)
    labels = np.random.default_rng(0).permutation(labels)
    parts = split(validation=validation)
    result = fold(flow, labels, parts)
    assert (result.honest.epoch < QUICK.epochs) == validation
    data = prepare(flow, labels, parts.train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    weights = train_without_test(Small, data, parts.train, 3, QUICK, epochs=result.honest.epoch, seed=1)
    assert weights_digest(weights) == result.weights_sha256


def test_the_honest_epoch_is_the_best_on_validation_ties_by_loss():
    flow, labels = clips(seed=4)
    random = np.random.default_rng(0)
    result = fold(flow, random.permutation(labels), split())
    best = max(result.history, key=lambda row: (row["validation_uf1"], -row["validation_loss"], -row["epoch"]))
    assert result.honest.epoch == best["epoch"]


def test_without_validation_the_last_epoch_is_chosen():
    flow, labels = clips()
    result = fold(flow, labels, split(validation=False))
    assert result.honest.epoch == QUICK.epochs == len(result.history)


def test_training_stops_when_validation_has_not_improved_for_the_patience_after_the_warmup():
    flow, labels = clips()
    settings = replace(QUICK, epochs=60, batch_size=8, rate=1e-12, min_rate=0, warmup=3, cooldown=0, patience=4)

    class Fixed(Small):
        """Constant logits: nothing ever improves after the first epoch."""

        def forward(self, x):
            return super().forward(x) * 0

    result = fold(flow, labels, split(), settings, build=Fixed)
    assert result.honest.epoch == 1
    assert len(result.history) == 3 + 4


def test_the_oracle_is_the_best_epoch_on_the_test_clips():
    flow, labels = clips(seed=5)
    result = fold(flow, np.random.default_rng(1).permutation(labels), split())
    accuracies = [row["oracle_test_accuracy"] for row in result.history]
    assert accuracies[result.oracle.epoch - 1] == max(accuracies)


def test_a_fold_without_test_clips_is_trained_and_has_no_test_accuracy():
    flow, labels = clips()
    result = fold(flow, labels, replace(split(), test=np.empty(0, np.int64)))
    assert result.weights_sha256 == fold(flow, labels, split()).weights_sha256
    assert result.every_epoch.shape == (12, 0)
    assert result.honest.probabilities.shape == (0, 3)
    assert all(math.isnan(row["oracle_test_accuracy"]) for row in result.history)


def test_the_same_seed_gives_the_same_bits_and_another_other_ones():
    flow, labels = clips()
    runs = [fold(flow, labels, split(), seed=seed) for seed in (1, 1, 2)]
    assert runs[0].weights_sha256 == runs[1].weights_sha256
    assert (runs[0].honest.probabilities == runs[1].honest.probabilities).all()
    assert runs[0].weights_sha256 != runs[2].weights_sha256


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("poison", ["labels", "pixels"])
def test_nothing_of_the_test_subject_reaches_the_weights_or_the_choice(validation, poison):
    flow, labels = clips()
    parts = split(validation=validation)
    poisoned_flow, poisoned_labels = flow.copy(), labels.copy()
    if poison == "labels":
        poisoned_labels[parts.test] = (labels[parts.test] + 1) % 3
    else:
        poisoned_flow[parts.test] = 1000
    clean, poisoned = fold(flow, labels, parts), fold(poisoned_flow, poisoned_labels, parts)
    assert clean.weights_sha256 == poisoned.weights_sha256
    assert clean.honest.epoch == poisoned.honest.epoch
    kept = ("train_loss", "validation_loss", "validation_uf1")
    assert [[row.get(key) for key in kept] for row in clean.history] == [
        [row.get(key) for key in kept] for row in poisoned.history
    ]


def test_a_diverging_run_is_an_error_that_says_so():
    flow, labels = clips()
    flow[0] = np.inf
    with pytest.raises(MerbaError, match="training diverged; lower `training.rate`"):
        fold(flow, labels, split())


def test_a_class_without_training_clips_is_warned_of_and_training_goes_on(caplog):
    flow, labels = clips()
    labels[:42] = np.arange(42) % 2
    result = fold(flow, labels, split(validation=False))
    assert "1 of 3 classes have no training clip" in caplog.text
    assert np.isfinite(result.honest.probabilities).all()


def test_six_folds_compile_one_model_and_smaller_batches_none(monkeypatch):
    """What Dynamo makes of the loop; on the CPU nothing is compiled, so the test asks for it."""
    flow, labels = clips()
    graphs, sizes = [], set()

    def counted(graph, inputs):
        graphs.append(graph)
        return graph

    class Watched(Small):
        def forward(self, x):
            if not torch.compiler.is_compiling():
                sizes.add(len(x))
            return super().forward(x)

    monkeypatch.setattr(loop, "_step", lambda model, device: torch.compile(model, backend=counted))
    for n in range(6):
        result = fold(flow, labels, replace(split(), train=np.arange(36 - n)), replace(QUICK, epochs=2), build=Watched)
        assert len(result.history) == 2
    assert len(graphs) == 1
    assert sizes == {1, 2, 3, 4, 7, 12}, "the last batches of folds with 33 to 36 and 31 clips; validation and test clips"


def test_validation_and_test_clips_are_predicted_in_one_call():
    flow, labels = clips()
    calls = []

    class Watched(Small):
        def forward(self, x):
            if not self.training:
                calls.append(len(x))
            return super().forward(x)

    parts = split()
    result = fold(flow, labels, parts, build=Watched)
    assert calls == [len(parts.validation) + len(parts.test)] * len(result.history)


def test_the_digest_of_the_weights_is_made_beside_what_follows(monkeypatch):
    ready = threading.Event()
    monkeypatch.setattr(loop, "weights_digest", lambda weights: ready.wait(60) and weights_digest(weights))
    result = fold(*clips(), split(), replace(QUICK, epochs=1))
    assert not result.digest.done()
    ready.set()
    assert result.weights_sha256 == weights_digest(result.weights)


def test_every_epochs_predictions_are_recorded():
    flow, labels = clips(seed=5)
    result = fold(flow, np.random.default_rng(1).permutation(labels), split())
    assert result.every_epoch.shape == (len(result.history), 6)
    for chosen in (result.honest, result.oracle):
        assert (result.every_epoch[chosen.epoch - 1] == chosen.predicted).all()


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 5, 6, 7, 33])
@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, shift=1, weight_average=0.9)])
def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path, monkeypatch, validation, dies_at, settings):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
    monkeypatch.setattr(resume, "SAVE_SHARE", math.inf)
    flow, labels = clips()
    parts = split(validation=validation)
    data = prepare(flow, labels, parts.train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    undisturbed = train_fold(Small, data, parts, 3, settings, seed=1)

    # Losses are computed at every step (5 or 6 an epoch) and for the validation part.
    loss, losses = loop.classification_loss, iter(range(1, dies_at))

    def dying(*arguments, **options):
        if next(losses, None) is None:
            raise KeyboardInterrupt
        return loss(*arguments, **options)

    file = tmp_path / "progress.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "classification_loss", dying)
        train_fold(Small, data, parts, 3, settings, seed=1, resume=file)
    assert file.exists() == (dies_at > 1)
    resumed = train_fold(Small, data, parts, 3, settings, seed=1, resume=file)
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.history == undisturbed.history
    assert (resumed.honest.probabilities == undisturbed.honest.probabilities).all()
    assert (resumed.every_epoch == undisturbed.every_epoch).all()


@pytest.mark.parametrize(
    ("seconds", "cost", "saves"), [(30, 0, False), (59, 0, True), (59, 1, True), (59, 2, False), (101, 2, True)]
)
def test_a_state_is_saved_before_it_is_a_minute_old_unless_that_takes_more_than_2_percent(tmp_path, seconds, cost, saves):
    model = Small()
    state = resume.Progress(model, torch.optim.Adam(model.parameters()), torch.Generator(), tmp_path / "progress.pt")
    state.loss, state.epoch_random = torch.zeros(()), state.random.get_state()
    state.save_when_due()
    assert not state.file.exists(), "a training of seconds needs no state"
    state.saved, state.save_cost = state.saved - seconds, cost
    state.save_when_due()
    assert state.file.exists() == saves


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_process_that_dies_goes_on_to_the_same_bits(tmp_path, death):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # to find the helpers that this file imports

    def start(file):
        command = [sys.executable, __file__, file]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    undisturbed, _ = start(tmp_path / "other.pt").communicate()
    file = tmp_path / "progress.pt"
    for _ in range(3):
        process = start(file)
        before = file.stat().st_mtime_ns if file.exists() else 0
        while process.poll() is None and not (file.exists() and file.stat().st_mtime_ns > before):
            time.sleep(0.01)
        process.send_signal(death)
        process.communicate()
        assert process.returncode == -death
    resumed, log = start(file).communicate()
    assert "continuing after epoch" in log
    assert resumed == undisturbed != ""


@pytest.mark.parametrize("change", ["damaged", "other model", "other keys"])
def test_a_save_that_is_damaged_or_of_another_version_is_dropped_with_a_warning(tmp_path, caplog, monkeypatch, change):
    file = tmp_path / "progress.pt"
    if change == "damaged":
        file.write_bytes(b"PK\x03\x04 half a file")
    else:
        monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
        state = resume.Progress(Small(), torch.optim.AdamW(Small().parameters()), torch.Generator(), file)
        state.save_when_due()
        monkeypatch.setattr(resume, "SAVE_SECONDS", 1000)
        saved = torch.load(file, weights_only=True)
        parts = {"other model": saved | {"model": {"w": torch.ones(1)}}, "other keys": {"model": saved["model"]}}
        torch.save(parts[change], file)
    flow, labels = clips()
    data = prepare(flow, labels, split().train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    whole = train_fold(Small, data, split(), 3, QUICK, seed=1)
    assert train_fold(Small, data, split(), 3, QUICK, seed=1, resume=file).weights_sha256 == whole.weights_sha256
    assert "starting again" in caplog.text
    assert not file.exists()


if __name__ == "__main__":
    # The process that dies above: saves after every step, takes a few seconds, prints its result.
    logging.basicConfig(level=logging.INFO)
    resume.SAVE_SECONDS, resume.SAVE_SHARE = 0, math.inf
    flow, labels = clips()
    data = prepare(flow, labels, split().train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    long = replace(QUICK, epochs=30, batch_size=8, rate=0.05, warmup=2, cooldown=2, patience=30)
    result = train_fold(Small, data, split(), 3, long, seed=1, resume=Path(sys.argv[1]))
    print(result.weights_sha256, result.honest, result.history)
