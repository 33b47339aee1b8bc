"""How a problem is made: the registry of problems, and its variant for a seed."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Question = tuple[str, float | tuple[float, ...]]
"""A text and its answer or answers; a count is an int, and has to be given exactly."""


@dataclass(frozen=True)
class Problem:
    """A question in Markdown, and the numbers that answer it: an int if it is a count, else a float."""

    slug: str
    text: str
    answers: tuple[float, ...]


_PROBLEMS: dict[str, Callable[[np.random.Generator], Question]] = {}


def names() -> tuple[str, ...]:
    """The slugs of all problems, in the order of the book."""
    return tuple(_PROBLEMS)


def make(slug: str, seed: int) -> Problem:
    """The variant of the problem `slug` for `seed`; ValueError for a problem that does not exist."""
    if slug not in _PROBLEMS:
        raise ValueError(f"slug must name a problem, got {slug!r}; there are {', '.join(_PROBLEMS)}.")
    text, answers = _PROBLEMS[slug](np.random.default_rng([seed, zlib.crc32(slug.encode())]))
    numbers = answers if isinstance(answers, tuple) else (answers,)
    return Problem(slug, " ".join(text.split()), tuple(n if isinstance(n, int) else float(n) for n in numbers))


def problem(function: Callable[[np.random.Generator], Question]) -> Callable[[np.random.Generator], Question]:
    """Register a function as the problem of its name, with - for _."""
    _PROBLEMS[function.__name__.replace("_", "-")] = function
    return function


def pick(rng: np.random.Generator, *values: float) -> float:
    """One of `values`, as a Python number."""
    return values[int(rng.integers(len(values)))]
