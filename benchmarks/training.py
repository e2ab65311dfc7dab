"""Images a second of this repository's training, all logging on, against two loops without it.

`make bench` runs the three in turn, each in a process of its own, several times over, and prints the
medians and their ratios. All train SimpleCNN with SGD and cross-entropy, batch 64, on real MNIST:

- tutorial: one image at a time through torchvision's transforms, float32, a loss read every step;
- bare: this repository's data path and precision in the shortest loop that trains, nothing logged;
- train.py: the command, its TensorBoard, pictures, validation and checkpoints included. Counted are the
  seconds in which it trains, as it reports them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tutorial(images: int) -> float:
    """Train on `images` images as the tutorial does; return images per second."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from mnist_cnn.models import SimpleCNN

    class ReLUFirst(SimpleCNN):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(F.relu(self.conv1(images)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            logits: torch.Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
            return logits

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    mnist = datasets.MNIST(ROOT / "data", train=True, transform=transform)
    loader = DataLoader(Subset(mnist, range(images)), batch_size=64, shuffle=True)
    network = ReLUFirst()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    total = 0.0
    start = time.perf_counter()
    for batch, targets in loader:
        loss = criterion(network(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return images / (time.perf_counter() - start)


def bare(images: int) -> float:
    """Train on `images` images from memory in a bare loop; return images per second."""
    import torch
    from torch.nn import functional as F

    from mnist_cnn.data import MNIST
    from mnist_cnn.models import SimpleCNN
    from mnist_cnn.training.precision import native_precision

    pixels, targets = MNIST().read(ROOT / "data", train=True)
    bf16 = native_precision(torch.device("cpu")) == "bf16-mixed"
    network = SimpleCNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    start = time.perf_counter()
    for rows in torch.randperm(images).split(64):
        batch = ((pixels[rows].float() / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(batch)
        loss = F.cross_entropy(logits.float(), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return images / (time.perf_counter() - start)


def command(images: int) -> float:
    """Train on `images` images with train.py; return the images per second that it reports."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, ROOT / "train.py", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
                *(f"trainer.limit_train_batches={images // 64}", f"data.dir={ROOT / 'data'}"),
                f"hydra.run.dir={folder}",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rate: float = json.loads((Path(folder) / "metrics.json").read_text())["images_per_second"]
    return rate


LOOPS: dict[str, Callable[[int], float]] = {"tutorial": tutorial, "bare": bare, "train.py": command}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=19_200, help="a loop and repetition (default: %(default)s)"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--only", choices=LOOPS, help="one loop, once; prints its images a second")
    options = parser.parse_args()
    if options.only:
        print(LOOPS[options.only](options.images))
        return

    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(options.repetitions):
        for name in LOOPS:
            arguments = ["--only", name, "--images", str(options.images)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.training", *arguments],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            )
            rates[name].append(float(done.stdout))
            print(f"{name:>9}: {rates[name][-1]:6,.0f} images/s", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"medians of {options.repetitions}, in turn, {options.images:,} images each:")
    for name, median in medians.items():
        print(f"{name:>9}: {median:6,.0f} images/s, {median / medians['tutorial']:.2f} x the tutorial's loop")
    print(f"train.py is {medians['train.py'] / medians['bare']:.2f} x the bare loop")


if __name__ == "__main__":
    main()
