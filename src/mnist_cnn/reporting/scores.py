"""How scores and metrics are written, in the console, the figures and the model card."""

from collections.abc import Mapping


def score(value: float, is_probability: bool) -> str:
    """Return a probability in percent, and any other output of a network as a plain number."""
    return f"{value:.2%}" if is_probability else f"{value:.3f}"


def metric(name: str, value: float) -> str:
    """Return the value of the metric `name`: an accuracy in percent, a count, or a number."""
    if name.endswith("/acc"):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def split_metrics(row: Mapping[str, float], split: str, extra: bool = True) -> str:
    """Return the metrics of a split in `row`, such as "loss 0.0412, 98.75%, f1 0.9871".

    `extra` includes metrics other than the loss and the accuracy.
    """
    parts = []
    for name, value in row.items():
        group, _, label = name.partition("/")
        if group == split and label == "acc":
            parts.append(metric(name, value))
        elif group == split and (label == "loss" or extra):
            parts.append(f"{label} {metric(name, value)}")
    return ", ".join(parts)
