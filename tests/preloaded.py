"""What the commands of the tests are forked from: the imports of train.py that take seconds, done once."""

import gc
import importlib

MODULES = (
    "hydra_sweeps.launchers.warm",  # Hydra with its plugins and grammars
    "lightning",
    "mnist_cnn.app.start",
    "mnist_cnn.app.settings",
    "mnist_cnn.reporting.summary",
    "mnist_cnn.reporting.epochs",
    "mnist_cnn.reporting.loggers",
    "mnist_cnn.reporting.pictures",
    "mnist_cnn.training.checkpoints",
    "mnist_cnn.training.trainer",
)

# The collector would look at a million objects many times, here and in each command.
gc.disable()
for name in MODULES:
    importlib.import_module(name)
gc.freeze()
gc.enable()
