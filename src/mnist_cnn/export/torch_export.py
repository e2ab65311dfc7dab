"""torch.export: the network as a graph of ATen operations, for programs that have torch."""

from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from mnist_cnn.export.exported import Description, ExportedNetwork
from mnist_cnn.export.network import ByteNetwork, as_function

METADATA = "mnist_cnn.json"  # the extra file in the archive that holds the description


def trace(network: ByteNetwork, description: Description) -> ExportedProgram:
    """Return the graph of the network for batches of any size."""
    size = description.image_size
    example = torch.zeros(2, description.in_channels, size, size, dtype=torch.uint8)
    program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it would be saved, with the paths of this machine
    return program


def write(network: ByteNetwork, description: Description, path: Path) -> None:
    """Write a file for `torch.export.load`: images uint8 (B, C, S, S) to logits (B, K), for any B.

    The description is the extra file `mnist_cnn.json` in it.
    """
    extra_files = {METADATA: description.model_dump_json(indent=2)}
    with path.open("wb") as file:
        torch.export.save(trace(network, description), file, extra_files=extra_files)


def load(path: Path) -> ExportedNetwork:
    """Return the network of a file that `write` has written.

    Only for files that can be trusted: torch.export.load reads some tensors by unpickling.
    """
    extra_files = {METADATA: ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=extra_files)
    description = Description.model_validate_json(extra_files[METADATA])
    return ExportedNetwork(description, as_function(program.module()))
