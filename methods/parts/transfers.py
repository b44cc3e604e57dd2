"""From the host to the device without waiting for what the device has still to do."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; on a GPU the copy starts from pinned memory and is queued.

    A plain copy from pageable memory would make the host wait for all steps before it.
    """
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
