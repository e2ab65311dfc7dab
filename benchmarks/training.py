"""Images per second of this repository's training, all logging on, against two loops without it.

`make bench` runs the loops in turn, each in a process of its own, several times over, and prints the medians
(smallest to largest) as a table; results/bench.json keeps it. All train on real MNIST with SGD and
cross-entropy:

- tutorial: one image at a time through torchvision's transforms, float32, the loss read in every step;
- lean: the least that PyTorch needs for the same work: bytes in memory, one index operation per batch,
  normalized in place, channels last, the device's own precision, pooling before ReLU, a fused optimizer,
  and nothing logged;
- train.py: the command as it is: metrics, TensorBoard, figures, validation, checkpoints. The rate covers the
  seconds in which it trains, as it reports them;
- train.py fp32: the same in float32;
- train.py augmented: the same with the augmentation of experiment=best_simple.

"Start" is the time from the start of the process to the end of its first step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Result = dict[str, float]  # rate: images/s; start: seconds; memory: bytes


def tutorial(network: str, batch_size: int, images: int) -> Result:
    """Train on `images` images as the tutorial does."""
    from torch.utils.data import DataLoader, Subset

    from benchmarks import tutorial as loop

    part = Subset(loop.mnist(network, train=True), range(images))
    loader = DataLoader(part, batch_size=batch_size, shuffle=True)
    model = loop.network(network)
    total, first = 0.0, 0.0
    start = time.perf_counter()
    for loss in loop.train(model, loop.optimizer(model), loader):
        total += loss
        first = first or time.time()
    return _result(images / (time.perf_counter() - start), first)


def lean(network: str, batch_size: int, images: int) -> Result:
    """Train on `images` images from memory in the shortest loop."""
    import torch
    from torch.nn import functional as F

    from benchmarks import machine
    from mnist_cnn.data import MNIST
    from mnist_cnn.models import CnnNet, SimpleCNN
    from mnist_cnn.training.precision import native_precision

    device = machine.device()
    pixels, targets = (tensor.to(device) for tensor in MNIST().read(ROOT / "data", train=True))
    if network == "cnnnet":
        pixels = F.pad(pixels, (2, 2, 2, 2))
    bf16 = native_precision(device) == "bf16-mixed"
    model = CnnNet() if network == "cnnnet" else SimpleCNN()
    model = model.to(device).to(memory_format=torch.channels_last)
    model.max_pool2d = F.max_pool2d
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    first = 0.0
    start = time.perf_counter()
    for rows in torch.randperm(images, device=device).split(batch_size):
        batch = pixels[rows].to(torch.float32, memory_format=torch.channels_last)
        batch.div_(127.5).sub_(1)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(batch)
        loss = F.cross_entropy(logits.float(), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or time.time()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return _result(images / (time.perf_counter() - start), first)


def command(network: str, batch_size: int, images: int, *overrides: str) -> Result:
    """Train on `images` images with train.py, with everything on."""
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "measured.json"
        settings = [f"model={network}", f"data.batch_size={batch_size}", f"data.dir={ROOT / 'data'}"]
        settings += ["trainer.max_epochs=1", f"trainer.limit_train_batches={images // batch_size}"]
        settings += ["+callbacks.measure._target_=benchmarks.measure.Measure"]
        settings += [f"+callbacks.measure.file={measured}", f"hydra.run.dir={folder}", *overrides]
        started = [sys.executable, str(ROOT / "train.py"), *settings]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(started, env=environment, check=True, stdout=subprocess.DEVNULL)
        rate: float = json.loads((Path(folder) / "metrics.json").read_text())["images_per_second"]
        result = json.loads(measured.read_text())
    return {"rate": rate, "start": result["first_step"] - STARTED, "memory": result["memory"]}


def _result(rate: float, first_step: float) -> Result:
    from benchmarks.measure import peak_memory

    return {"rate": rate, "start": first_step - STARTED, "memory": peak_memory()}


LOOPS: dict[str, Callable[[str, int, int], Result]] = {
    "tutorial": tutorial,
    "lean": lean,
    "train.py": command,
    "train.py fp32": lambda *which: command(*which, "trainer.precision=32-true"),
    "train.py augmented": lambda *which: command(*which, "augment=elastic"),
}
STARTED = time.time()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=19_200, help="of a repetition (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--networks", nargs="+", default=["simple", "cnnnet"], choices=["simple", "cnnnet"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--loops", nargs="+", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench.json")
    parser.add_argument(
        "--one", nargs=4, metavar=("LOOP", "NETWORK", "BATCH_SIZE", "STARTED"), help="internal"
    )
    options = parser.parse_args()
    if options.one:
        loop, network, batch_size, started = options.one
        globals()["STARTED"] = float(started)
        print(json.dumps(LOOPS[loop](network, int(batch_size), options.images)))
        return
    combinations = [(network, size) for network in options.networks for size in options.batch_sizes]
    rows = []
    for network, batch_size in combinations:
        results: dict[str, list[Result]] = {loop: [] for loop in options.loops}
        for _ in range(options.repetitions):
            for loop in options.loops:
                results[loop].append(_in_new_process(loop, network, batch_size, options.images))
                rate = results[loop][-1]["rate"]
                print(f"{network:>8} {batch_size:>4} {loop:<20} {rate:7,.0f} images/s", flush=True)
        rows += [_summary(network, batch_size, loop, runs) for loop, runs in results.items()]
    _write(options, rows)


def _in_new_process(loop: str, network: str, batch_size: int, images: int) -> Result:
    arguments = ["--one", loop, network, str(batch_size), str(time.time()), "--images", str(images)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    result: Result = json.loads(done.stdout)
    return result


def _summary(network: str, batch_size: int, loop: str, runs: list[Result]) -> dict[str, Any]:
    rates = [run["rate"] for run in runs]
    return {
        "network": network,
        "batch_size": batch_size,
        "loop": loop,
        "images_per_second": round(statistics.median(rates)),
        "slowest": round(min(rates)),
        "fastest": round(max(rates)),
        "start_seconds": round(statistics.median(run["start"] for run in runs), 2),
        "peak_memory_mb": round(statistics.median(run["memory"] for run in runs) / 2**20),
        "n": len(runs),
    }


def _write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from benchmarks import machine, tables

    result = {
        "command": "make bench",
        "machine": machine.describe(),
        "images": options.images,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{tables.bench(result)}\n{options.output}")


if __name__ == "__main__":
    main()
