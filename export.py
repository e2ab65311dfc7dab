"""Export the network of a checkpoint as ONNX, torch.export, safetensors or an HTML page to draw on."""

from typing import TYPE_CHECKING

from mnist_cnn.entry import command, exit_on_interrupt
from mnist_cnn.imports import fast_imports

if TYPE_CHECKING:
    from omegaconf import DictConfig


@command("export")  # conf/export.yaml
def main(config: "DictConfig") -> None:
    """Write the network of `ckpt` in `format`, checked against PyTorch on test images."""
    from mnist_cnn import commands, settings

    options = commands.to_dict(config)
    settings.check(options, settings.ExportSettings)
    paths = commands.find_checkpoints(options["ckpt"])

    with exit_on_interrupt(), fast_imports():
        from mnist_cnn.export import formats
        from mnist_cnn.training.quiet import quiet_libraries

    quiet_libraries()
    formats.export(paths, options["format"], options["out"], options["data"]["dir"])


if __name__ == "__main__":
    main()
