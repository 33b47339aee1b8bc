"""`rvlib audit`: is this reward model a good teacher for this policy?

`command` reads the command line and does what needs no language model; `run` draws replies and scores them, in the
`steps` of an audit; `monitoring` follows TRL's trainers; `outcome` is what comes out, and `report` shows it. This room
may import every room but `rvlib.explore`, and its modules on arrays and files need neither torch nor transformers.
Start with `assembly.audit_rewards`.
"""

from typing import Any

from rvlib.audit.assembly import audit_rewards
from rvlib.audit.audited import Audit
from rvlib.audit.comparison import compare
from rvlib.audit.measuring import measurements_of, order_of_reward_models
from rvlib.audit.scored_files import audit_files
from rvlib.audit.verdicts import advice, verdict

__all__ = [
    "Audit",
    "advice",
    "audit",
    "audit_files",
    "audit_rewards",
    "compare",
    "measurements_of",
    "order_of_reward_models",
    "verdict",
]


def audit(*args: Any, **kwargs: Any) -> Audit | None:
    """`rvlib.audit.run.audit`, whose arguments it takes; torch is imported when it is called, not before."""
    from rvlib.audit import run  # needs torch

    return run.audit(*args, **kwargs)
