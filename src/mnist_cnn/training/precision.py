"""The meaning of `trainer.precision=auto` on this machine."""

from typing import Literal

import torch


def native_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16 autocast where the hardware computes in bf16 itself, else float32.

    This is so for CUDA devices of capability 8.0 (Ampere) or later, and for CPUs with AVX512-BF16 or AMX.
    Elsewhere bf16 is emulated, which is slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        features = torch.cpu.get_capabilities()
        native = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def cpu_name() -> str:
    """Return the name of the processor, "unknown CPU" if it cannot be found."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "unknown CPU"))
