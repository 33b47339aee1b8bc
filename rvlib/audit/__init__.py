"""`rvlib audit`: is this reward model a good teacher for this policy?

`grading` and `report` work on arrays and files and need neither torch nor transformers; `run` draws replies and scores
them, and may import `rvlib.lm`. Start with `grading.grade`.
"""

from typing import Any

from rvlib.audit.grading import Audit, advice, grade, order_of_teachers

__all__ = ["Audit", "advice", "audit", "grade", "order_of_teachers"]


def audit(*args: Any, **kwargs: Any) -> Audit:
    """`rvlib.audit.run.audit`, whose arguments it takes; torch is imported when it is called, not before."""
    from rvlib.audit import run  # needs torch

    return run.audit(*args, **kwargs)
