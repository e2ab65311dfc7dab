"""Export the network of a checkpoint as ONNX, torch.export, safetensors or an HTML page to draw on."""

from mnist_cnn.app.run import Job
from mnist_cnn.app.settings import ExportSettings
from mnist_cnn.app.start import command


@command("export", ExportSettings)  # conf/export.yaml
def main(job: Job) -> None:
    """Write the network of `ckpt` in `format`, checked against PyTorch on test images."""
    from mnist_cnn.export import formats

    settings = job.plain
    formats.export(
        job.checkpoints, settings["format"], settings["out"], settings["data"]["dir"], settings["trust"]
    )


if __name__ == "__main__":
    main()
