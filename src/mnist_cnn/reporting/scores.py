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
    prefix = f"{split}/"
    names = [name for name in row if name.startswith(prefix)]
    names.sort(key=lambda name: name not in (f"{prefix}loss", f"{prefix}acc"))  # keeps the order otherwise
    parts = []
    for name in names:
        label, text = name.removeprefix(prefix), metric(name, row[name])
        if label == "acc":
            parts.append(text)
        elif label == "loss" or extra:
            parts.append(f"{label} {text}")
    return ", ".join(parts)
