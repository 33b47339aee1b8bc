"""How an answer to an exercise is checked: the registry of exercises, and what `check` prints."""

import inspect
import itertools
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Exercise:
    """The function that finds what an answer fails, and how many numbers an answer is made of."""

    failure: Callable[..., str | None]
    numbers: int


EXERCISES: dict[str, Exercise] = {}


NO_PERCENTAGE = "this looks like a percentage; give a share, as 0.25 for 25 %."


def check(slug: str, answer: ArrayLike | None) -> bool:
    """Print whether `answer` solves the exercise called `slug`, and if not, what is wrong with it; True or False.

    Numbers may be off by 1e-3 of themselves. An answer that is not made of as many numbers as are asked for is not
    right, and what is printed says how to write it. ValueError for an exercise that does not exist.
    """
    if slug not in EXERCISES:
        raise ValueError(f"slug must name an exercise, got {slug!r}; there are {', '.join(sorted(EXERCISES))}.")
    expected = EXERCISES[slug]
    try:
        given = tuple(map(float, np.ravel(np.asarray(answer, dtype=float))))
    except (TypeError, ValueError, OverflowError):
        given = ()
    if len(given) != expected.numbers or not all(abs(number) < 1e100 for number in given):  # nor is NaN
        failure: str | None = _how_to_write(answer, expected.numbers)
    else:
        failure = expected.failure(*given)
        if failure and _right_once_rounded(expected, given):
            failure = "this is close; give more digits."
        elif failure and _right_once_rounded(expected, tuple(number / 100 for number in given)):
            failure = NO_PERCENTAGE
    print(f"Not yet: {failure}" if failure else "Right.")
    return not failure


def _how_to_write(answer: ArrayLike | None, numbers: int) -> str:
    """How to write an answer that is not as many finite numbers as are asked for."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    text = next((part for part in parts if isinstance(part, str)), "")
    if "%" in text:
        return NO_PERCENTAGE
    if "/" in text:
        return "write a fraction without quotation marks, as 1/4, so that Python computes it."
    if "," in text and (numbers == 1 or text is not answer):
        return "write a number with a decimal point and without a comma, as 0.25."
    expected_form = (
        "one number, as 0.25" if numbers == 1 else f"{numbers} numbers in parentheses, as {(0.25, 0.5, 1)[:numbers]}"
    )
    return f"give {expected_form}, in place of {reprlib.repr(answer)}."


def _right_once_rounded(expected: Exercise, given: tuple[float, ...]) -> bool:
    """Whether some right answer, rounded to the digits that were given, is the answer that was given.

    False for three numbers and more, for which there are too many candidates.
    """
    if len(given) > 2:
        return False
    candidates = []
    for number in given:
        exponent = Decimal(repr(number)).normalize().as_tuple().exponent
        half = min(0.5 * 10.0 ** int(exponent), 0.05 * abs(number))
        # A check accepts 1e-3 of a number to either side, so steps of twice that size miss none.
        candidates.append(np.append(number, np.arange(number - half, number + half, 1.9e-3 * abs(number) or 1.0)))
    return any(expected.failure(*map(float, numbers)) is None for numbers in itertools.product(*candidates))


def exercise(function: Callable[..., str | None]) -> Callable[..., str | None]:
    """Register a function as the check of the exercise of its name, with - for _; it takes the answer's numbers."""
    parameters = inspect.signature(function).parameters
    EXERCISES[function.__name__.replace("_", "-")] = Exercise(function, len(parameters))
    return function


def near(value: float | NDArray[np.float64], right: float | NDArray[np.float64]) -> bool:
    """Whether a number is `right` to 1e-3 of it."""
    return abs(float(value) - float(right)) <= 1e-3 * abs(float(right))
