"""What `rvlib bench` writes into its JSON file, which `rates` and the book read."""

from typing import Any, TypedDict


class MachineRates(TypedDict):
    """What the machine can do at the most, as it was measured in the same call."""

    matrix_rate: float  # bfloat16 operations a second
    bandwidth: float  # of memory, bytes a second


class StageRecord(TypedDict, total=False):
    """A stage's numbers, as many as it has, or the sentence on why it failed."""

    failed: str
    seconds: float
    tokens: int
    tokens_per_second: float
    warm: bool  # whether it was done twice, and the second time counts
    peak_memory: int | None  # bytes; None on a CPU
    planned_memory: float  # bytes
    # Of sampling.
    engine: str
    rows: int  # replies in a batch
    lengths: list[int]  # tokens of each reply, in order of size
    steps: int  # token steps
    bytes: float  # read from the memory
    share_of_bandwidth: float
    idle_share: float  # of the GPU's time
    idle_share_failed: str
    # Of scoring and of an update.
    operations: int
    share_of_matrix_rate: float
    micro_batch: int
    # Of a whole step.
    replies: int


class BenchRecord(TypedDict, total=False):
    """A whole file."""

    model: str  # one of `ARCHITECTURES`
    recipe: str  # its title
    settings: dict[str, Any]  # the recipe's policy_gradient and runtime
    reply_lengths: str
    made: dict[str, Any]  # see `origin.record`
    failed: str  # why there are no models, if there are none
    parameters: int
    layers: int
    machine_rates: MachineRates
    stages: dict[str, StageRecord]
    official_over_ours: float  # seconds a token of a step, by the official code over by ours
