"""Random numbers of torch that depend on a seed alone, whatever was drawn before."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from rvlib.lm import processes


@contextlib.contextmanager
def torch_seed(*seed_path: int) -> Iterator[None]:
    """Random numbers of torch from a seed made of whole numbers, those of the caller left as they were."""
    with torch.random.fork_rng(devices=processes.cuda_devices()):
        torch.manual_seed(int(np.random.SeedSequence(seed_path).generate_state(1, np.uint64)[0] >> 1))
        yield
