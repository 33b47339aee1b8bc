"""`rvlib audit`: is this reward model a good teacher for this policy?

`grading` and `report` work on arrays and files and need neither torch nor transformers; `run` draws replies and scores
them, and imports both. Start with `grading.grade`.
"""

from typing import Any

from rvlib.audit.grading import Audit, advice, grade, order_of_teachers

__all__ = ["Audit", "advice", "audit", "grade", "order_of_teachers"]


def __getattr__(name: str) -> Any:
    if name != "audit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rvlib.audit.run import audit  # which imports torch

    return audit
