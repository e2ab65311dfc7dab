"""safetensors: the weights, and the settings from which the network around them is built."""

from pathlib import Path

from torch import nn

from mnist_cnn.errors import UserError, needs_extra
from mnist_cnn.export.exported import Description, ExportedNetwork
from mnist_cnn.export.network import ByteNetwork, as_function
from mnist_cnn.training import building


def write(network: ByteNetwork, description: Description, path: Path) -> None:
    """Write the parameters and buffers by name, and the description as metadata.

    Raises `UserError` if the extra `safetensors` is not installed.
    """
    with needs_extra("safetensors", "format=safetensors"):
        from safetensors.torch import save
    weights = {name: weight.contiguous() for name, weight in network.network.state_dict().items()}
    path.write_bytes(save(weights, description.to_strings()))


def load(path: Path) -> ExportedNetwork:
    """Build the network of a file that `write` has written.

    Raises `UserError` for other files, and if the network is not a class of this package or of torch.
    """
    with needs_extra("safetensors", "format=safetensors"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a safetensors file.") from error
    description = Description.from_strings(metadata, path)
    network = building.build(description.model, nn.Module)
    try:
        network.load_state_dict(weights)
        whole = ByteNetwork(network, description.mean, description.std)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not hold the weights of {description.network_name}.") from error
    return ExportedNetwork(description, as_function(whole))
