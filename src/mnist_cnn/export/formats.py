"""Writing a file in any of the formats, and checking it before it takes its place."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.export import check, html, onnx, safetensors, torch_export
from mnist_cnn.export.network import as_function, load_trained
from mnist_cnn.files import atomic_write, shown_path

EXTENSIONS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "html": ".html"}
MODULES = {"onnx": onnx, "torch_export": torch_export, "safetensors": safetensors}
RUNTIMES = {"onnx": "onnxruntime", "torch_export": "torch.export"}  # safetensors is run by PyTorch itself

log = logging.getLogger(__name__)


def export(
    ckpts: Sequence[Path], format: str, out: str | None, data_dir: str | None, trusted: Sequence[str] = ()
) -> Path:
    """Write the networks of `ckpts` to a file and return its path; only `html` takes more than one.

    `out` is the path, or its folder; by default the file is next to the first checkpoint. It replaces another
    file only after the check. Classes of the packages in `trusted` can be built, too.
    """
    path = output_path(ckpts[0], format, out)
    if format == "html":
        export_page(ckpts, path, trusted)
    else:
        export_network(ckpts[0], format, path, data_dir, trusted)
    log.info(f"file         {path}, {path.stat().st_size:,} bytes")
    return path


def export_network(ckpt: Path, format: str, path: Path, data_dir: str | None, trusted: Sequence[str]) -> None:
    """Write the network of a checkpoint, load it again, and compare it with PyTorch on test images."""
    network, description = load_trained(ckpt, trusted)
    images, which = check.sample_images(ckpt, description, data_dir, trusted)
    reference = as_function(network)
    with atomic_write(path) as aside:
        MODULES[format].write(network, description, aside)
        exported = MODULES[format].load(aside)
        agreement = check.compare(reference(images), exported.run(images))
    log.info(f"network      {description.network_name}, {description.parameters:,} parameters")
    log.info(f"agreement    {agreement} {which}")
    if format in RUNTIMES:
        check.log_times({"PyTorch": reference, RUNTIMES[format]: exported.run}, images)


def export_page(ckpts: Sequence[Path], path: Path, trusted: Sequence[str]) -> None:
    """Write the page with the networks of the checkpoints."""
    networks = []
    for ckpt in ckpts:
        network, description = load_trained(ckpt, trusted)
        networks.append(html.save_network(network, description, str(shown_path(ckpt))))
        log.info(f"network      {description.network_name}, {description.parameters:,} parameters")
    with atomic_write(path) as aside:
        aside.write_text(html.render(networks), encoding="utf-8")


def output_path(ckpt: Path, format: str, out: str | None) -> Path:
    """Return the path of the file; raises `UserError` if its extension is not that of the format."""
    extension = EXTENSIONS[format]
    path = Path(out) if out else ckpt.with_suffix(extension)
    if path.is_dir():
        path /= ckpt.with_suffix(extension).name
    if path.suffix != extension:
        raise UserError(f"out={path}: a file of format={format} should end in {extension}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
