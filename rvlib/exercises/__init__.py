"""Checks of the book's exercises that have a computable answer: right, or what the answer fails; never the answer.

    check("best-cut", 6.0)   →   Not yet: another c gives a smaller constant.

An exercise is a function, named as its slug, that returns the property that an answer fails, or nothing for a right
one. The modules follow the parts of the book, and so do those of `rvlib.problems`. This room may import `rvlib.tabular`
and what is below it. Start with `checking.check`, and `setting` for what an exercise looks like.
"""

from rvlib.exercises import extensions, practice, setting, theorems  # each registers its exercises
from rvlib.exercises.checking import check, exercise, near

__all__ = ["check", "exercise", "near"]
