"""Optimizers: Adam in one process, and the same on weights sharded by FSDP2 or by DeepSpeed's ZeRO-3.

`frozen` shards models that are not trained. This room may import `rvlib.lm.models` and what is below it. Start with
`adam.Adam`: the other two keep its interface.
"""

from __future__ import annotations

import transformers

from rvlib.lm import processes
from rvlib.lm.optim.adam import Adam
from rvlib.lm.optim.fsdp2 import Fsdp2
from rvlib.lm.settings import RuntimeSettings


def make_optimizer(model: transformers.PreTrainedModel, learning_rate: float, runtime: RuntimeSettings) -> Adam:
    """The optimizer of a model: `Adam`, or with several processes one that shards the weights."""
    if processes.by_deepspeed():
        from rvlib.lm.optim.zero3 import Zero3  # DeepSpeed is a package of its own

        return Zero3(model, learning_rate, runtime)
    if processes.world() > 1:
        return Fsdp2(model, learning_rate, runtime)
    return Adam(model, learning_rate, runtime)
