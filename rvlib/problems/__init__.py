"""Problems for marks: the book's exercises with a number for an answer, with other numbers for every seed.

    make("silent-group", seed=3)   →   Problem(slug, text, answers)

A problem is a function, named as the slug of its exercise, that draws its numbers from a generator and returns the
question and the right answers. `rvlib.problem_sets` makes sheets of them, and marks what comes back. This room may
import `rvlib.exercises`, `rvlib.tabular` and what is below. Start with `making.make`, and `setting` for what a problem
looks like.
"""

from rvlib.problems import setting, theorems, extensions, practice  # noqa: I001  # the book's order, as they register
from rvlib.problems.making import Problem, Question, make, names, problem

__all__ = ["Problem", "Question", "make", "names", "problem"]
