"""The device, threads and determinism flags of a trial."""

from __future__ import annotations

import gc
import importlib
import os
import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import torch
from threadpoolctl import threadpool_limits

from harness.errors import UserError
from harness.spec import Resources

MOST_IMAGES: Final = 4_000_000_000
"""Bytes of images that are moved to a GPU in half a second or so; more would delay the start."""

IMAGE_SHARE: Final = 0.25
"""Of a trial's part of a GPU; the rest is for weights, activations and memories."""


def device_for(resources: Resources) -> torch.device:
    """The GPU for a trial that asks for (a share of) one, else the CPU.

    Raises:
        UserError: if a GPU is asked for and there is none.
    """
    if not resources.gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"resources: a trial asks for gpu {resources.gpu:g}, but this machine shows none; "
            "--set 'resources={cpu: 1, gpu: 0}' runs on the CPU"
        )
    return torch.device("cuda")


def image_budget(device: torch.device, resources: Resources) -> int:
    """Bytes of a GPU's memory that a trial's images may take."""
    if device.type != "cuda":
        return 0
    if resources.images_gb is not None:
        return int(resources.images_gb * 1e9)
    total = torch.cuda.get_device_properties(device).total_memory
    return min(MOST_IMAGES, int(total * min(resources.gpu, 1.0) * IMAGE_SHARE))


@contextmanager
def reproducible(threads: int) -> Generator[dict[str, object]]:
    """Run with this many threads and deterministic kernels; yields the flags for the manifest."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    # cuBLAS reads this at its first use; without it its sums depend on the stream's workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # The BLAS and OpenMP of NumPy and scikit-learn have pools of their own, which the probes use.
    importlib.import_module("sklearn")  # only pools of libraries already loaded can be limited
    limits = threadpool_limits(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield {
            "threads": threads,
            "deterministic_algorithms": True,
            "cudnn_benchmark": False,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        }
    finally:
        limits.restore_original_limits()
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, and give back what an earlier trial of this process left cached."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Bytes at the peak: allocated on a GPU, resident in the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a wall time means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
