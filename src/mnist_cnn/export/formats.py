"""Writing a file in any of the formats, and checking it before it takes its place."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.export import check, html, onnx, safetensors, torch_export
from mnist_cnn.export.network import as_function, load_trained
from mnist_cnn.files import atomic_write

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
        export_page(ckpts, path, data_dir, trusted)
    else:
        export_network(ckpts[0], format, path, data_dir, trusted)
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
    log.info(f"file         {path}, {path.stat().st_size:,} bytes")
    log.info(f"agreement    {agreement} {which}")
    if format in RUNTIMES:
        check.log_times({"PyTorch": reference, RUNTIMES[format]: exported.run}, images)


def export_page(ckpts: Sequence[Path], path: Path, data_dir: str | None, trusted: Sequence[str]) -> None:
    """Write the page with the networks of the checkpoints."""
    networks = []
    for ckpt, run in zip(ckpts, run_names(ckpts), strict=True):
        network, description = load_trained(ckpt, trusted)
        images, which = check.sample_images(ckpt, description, data_dir, trusted)
        saved = html.save_network(network, description, run, images)
        networks.append(saved)
        log.info(f"network      {description.network_name}, {description.parameters:,} parameters")
        log.info(
            f"weights      {saved['bits']} bits; with 16 bits the logits of {len(images):,} {which} "
            f"change by at most {saved['change']:.1e}"
        )
    with atomic_write(path) as aside:
        aside.write_text(html.render(networks), encoding="utf-8")
    log.info(f"file         {path}, {path.stat().st_size:,} bytes")


def run_names(ckpts: Sequence[Path]) -> list[str]:
    """Return a name for each checkpoint: the folder of its run, or more of its path if that is not unique."""
    paths = [ckpt.absolute().with_suffix("") for ckpt in ckpts]
    runs = [path.parent.parent.name for path in paths]
    return [
        run if runs.count(run) == 1 else "/".join(path.parts[-4:])
        for run, path in zip(runs, paths, strict=True)
    ]


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
