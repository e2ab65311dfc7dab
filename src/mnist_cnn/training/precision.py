"""What `trainer.precision=auto` means on this machine."""

from typing import Literal

import torch


def native_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16 autocast where the hardware computes in bf16 itself, else float32.

    Native are CUDA devices of capability 8.0 (Ampere) and later, and CPUs with AVX512-BF16 or AMX;
    elsewhere bf16 is emulated, and slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        features = torch.cpu.get_capabilities()
        native = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    else:
        native = False
    return "bf16-mixed" if native else "32-true"
