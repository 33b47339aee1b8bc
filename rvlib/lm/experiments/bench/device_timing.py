"""Times on a device: of work, of a GPU that is idle, and how fast the machine can be at the most."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch

from rvlib.lm.experiments.bench.record import MachineRates

T = TypeVar("T")


def timed(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """(seconds, what work() returned), the device's queue empty before and after."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    returned = work()
    wait()
    return time.perf_counter() - start, returned


def machine_rates(device: torch.device) -> MachineRates:
    """The matrix rate and the bandwidth of the memory, the best of ten tries."""
    side, nbytes = (8192, 2**31) if device.type == "cuda" else (1024, 2**26)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(nbytes, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    matrix = min(timed(device, lambda: a @ b)[0] for _ in range(10))
    copy = min(timed(device, lambda: target.copy_(source))[0] for _ in range(10))
    return {"matrix_rate": 2 * side**3 / matrix, "bandwidth": 2 * nbytes / copy}


def idle_share(device: torch.device, work: Callable[[], object]) -> float:
    """The share of the time of work() in which no kernel runs on the GPU, by PyTorch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds, _ = timed(device, work)
    on_gpu = (event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA)
    return max(0.0, 1 - covered((event.time_range.start, event.time_range.end) for event in on_gpu) / 1e6 / seconds)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end)."""
    length, reached = 0.0, -np.inf
    for start, end in sorted(intervals):
        length += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return length
