"""The formats by name: writing a file, and checking it before it takes its place."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.export import check, html, onnx, safetensors, torch_export
from mnist_cnn.export.description import Description
from mnist_cnn.export.network import load_trained, runner
from mnist_cnn.files import atomic_write

EXTENSIONS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "html": ".html"}
MODULES = {"onnx": onnx, "torch_export": torch_export, "safetensors": safetensors}
RUNTIMES = {"onnx": "onnxruntime", "torch_export": "torch.export"}  # safetensors is built in PyTorch

log = logging.getLogger(__name__)


def export(ckpts: Sequence[Path], format: str, out: str | None, data_dir: str | None) -> Path:
    """Write the networks of `ckpts`, one unless `format` is "html", and return the path of the file.

    The file is read again and compared with PyTorch on test images before it replaces another one.
    `out` is the path, or a folder; by default the file is next to the first checkpoint.
    """
    path = _output_path(ckpts[0], format, out)
    if format == "html":
        return _export_page(ckpts, path, data_dir)
    module = MODULES[format]
    (ckpt,) = ckpts
    network, description = load_trained(ckpt)
    images, which = check.check_images(ckpt, description, data_dir)
    reference = runner(network)
    with atomic_write(path) as aside:
        module.write(network, description, aside)
        exported = module.load(aside)
        words = check.compare(reference(images), exported(images))
    _log_network(description)
    _log_file(path)
    log.info(f"agreement    {words} {which}")
    if format in RUNTIMES:
        check.log_times({"PyTorch": reference, RUNTIMES[format]: exported.run}, images)
    return path


def _export_page(ckpts: Sequence[Path], path: Path, data_dir: str | None) -> Path:
    """Write the page with the networks of `ckpts`."""
    networks = []
    for ckpt in ckpts:
        network, description = load_trained(ckpt)
        images, which = check.check_images(ckpt, description, data_dir)
        networks.append(html.page_network(network, description, ckpt.absolute().parent.parent.name, images))
        _log_network(description)
        log.info(
            f"weights      {networks[-1].bits} bits; with 16 bits the logits of {len(images):,} {which} "
            f"change by at most {networks[-1].change:.1e}"
        )
    with atomic_write(path) as aside:
        html.write(networks, aside)
    _log_file(path)
    return path


def _log_network(description: Description) -> None:
    log.info(f"network      {description.network_name}, {description.parameters:,} parameters")


def _log_file(path: Path) -> None:
    log.info(f"file         {path}, {path.stat().st_size:,} bytes")


def _output_path(ckpt: Path, format: str, out: str | None) -> Path:
    """Return where the file goes; raises `UserError` where its name does not tell the format."""
    extension = EXTENSIONS[format]
    path = Path(out) if out else ckpt.with_suffix(extension)
    if path.is_dir():
        path /= ckpt.with_suffix(extension).name
    if path.suffix != extension:
        raise UserError(f"out={path}: a file of format={format} should end in {extension}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
