"""How long ONNX Runtime takes on one thread to load a network and to classify one clip, and how its logits differ from PyTorch's.

    python bench/onnx_file.py merba_nano merba_base

The networks are untrained. No file is kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from merba.models import create_model
from merba.preprocessing.packs import FlowFormat
from merba.training.checkpoint import Checkpoint, Member
from merba.training.onnx_file import write_onnx


def measure(name: str, path: Path) -> str:
    """A line for one registered model; its file is written to `path`."""
    torch.manual_seed(0)
    model = create_model(name, 3).eval()
    channels = model.input_shape[0]
    member = Member(model.state_dict(), [0.0] * channels, [1.0] * channels)
    about = {"form": FlowFormat(("u", "v", "strain")[:channels], "px"), "data": "own", "protocol": "loso", "clips": {}}
    classes, stages = ["negative", "positive", "surprise"], {"faces": {}, "apex": {}, "flow": {}}
    write_onnx(path, Checkpoint([member], {"name": name}, classes, **about, **stages))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loading, load_cpu = time.perf_counter(), time.process_time()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    loaded, load_cpu = time.perf_counter() - loading, time.process_time() - load_cpu
    flow = torch.randn(1, *model.input_shape)
    session.run(None, {"flow": flow.numpy()})
    reading = time.perf_counter()
    (logits,) = session.run(None, {"flow": flow.numpy()})
    read = time.perf_counter() - reading
    with torch.no_grad():
        off = np.abs(logits - model(flow).numpy()).max()
    size = path.stat().st_size / 1e6
    return f"{name}: {size:.1f} MB, loads in {loaded:.2f} s ({load_cpu:.2f} s CPU), a clip in {read:.3f} s, off by {off:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="registered models, such as merba_base")
    with tempfile.TemporaryDirectory() as folder:
        for name in parser.parse_args().models:
            print(measure(name, Path(folder) / "model.onnx"), flush=True)


if __name__ == "__main__":
    main()
