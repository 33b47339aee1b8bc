"""Every check accepts right answers and says what is wrong with wrong ones, without giving the answer away."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from rvlib import exercises
from rvlib.exercises.checking import EXERCISES

# slug: a right answer, and wrong ones, each with words from the reply to it
ANSWERS = {
    "nearly-certain": (0.08, [(0.04, "2δ each"), (1.0, "multiple")]),
    "rough-loses": (
        (0.5, 1, -1),
        [((2, 0, -1), "in [-1, 1]"), ((1, 0, -1), "two of the three"), ((1, -1, -0.5), "does rise")],
    ),
    "two-outputs": (5.06097, [(10.122, "factor of two"), (1, "both ends")]),
    "certain-variance": (0.36, [(0.09, "[0, 1]"), (0.2, "extreme reward")]),
    "many-prompts": (2211.99, [(1106.0, "all 50"), (44.24, "missing"), (5, "theorem")]),
    "price-of-ties": (0.49, [(0.64, "at random"), (0.3, "of the others")]),
    "noise-and-accuracy": (0.7952, [(0.7048, "not ν"), (0.5, "Sheppard")]),
    "best-cut": (3 * 4 ** (1 / 3), [(6.0, "smaller constant"), (4.0, "no c gives")]),
    "share-of-bound": (
        2 / np.sqrt(15),
        [(1.2, "above the bound"), (np.sqrt(2 / 15), "norm of both"), (0.9, "not the gradient norm over")],
    ),
    "lambda-takes-over": (42, [(-1, "positive"), (21, "first term is still"), (60, "already")]),
    "thousandth-of-the-variance": ((10, np.sqrt(1000)), [((10, 10), "this book's"), ((31.6, 31.6), "the paper's")]),
    "hardly-right": (0.05, [(0.025, "each pair once"), (0.01, "its pairs are right"), (0.5, "more pairs")]),
    "fast-numbers": (43.125, [(1269.84, "the paper's Theorem 5"), (69, "factor in front"), (10, "it is not")]),
    "falls-at-first": (0.0395 / 0.099, [(0.3, "still rises"), (0.5, "falls already")]),
    "certain-order": (
        41.6667 / (2 * (1 - np.exp(-0.25))),
        [(41.6667 / ((1 - np.exp(-0.25)) / np.sqrt(2)), "the paper's"), (16.24, "two rewards"), (50, "not equal")],
    ),
    "too-rare": ((1 - np.exp(-0.6)) / 0.004, [(4.4071, "the paper's Prop. 3"), (50, "it is not")]),
    "best-of-three": (0.225, [(0.363, "ties the first two"), (0.5, "lower level")]),
    "enough-samples": (299, [(298.07, "whole"), (298, "too often"), (400, "fewer")]),
    "silent-group": (0.4112, [(0.4096, "all samples are right"), (0.5888, "does give"), (0.2, "one level")]),
    "win-variance": (0.216, [(0.3, "tied"), (1 / 3, "without levels"), (4e-7, "must not matter")]),
    "enough-group": (50, [(49.5, "whole"), (25, "below 1"), (100, "fewer")]),
    "first-slope": (0.0154, [(0.17, "squares"), (0.5, "both means")]),
    "which-bound": (55.275, [(110.55, "the paper's Prop. 3"), (0.02, "larger one"), (10, "this ratio")]),
    "harmless-until": (2.0833, [(3.3333, "κ is missing"), (3.125, "not z²"), (10, "lower edge")]),
    "scaled-away": (0.3 / 1.16, [(0.375, "before anything"), (0.225 / 1.16, "cancels"), (0.5, "not that")]),
    "six-points": (0.8114, [(2.7764, "quantile of t"), (0.7293, "two-sided"), (0.5, "does not have")]),
    "exact-order": (1 / 24, [(1 / 12, "one sign"), (0.25, "count the orders")]),
    "swapped-best": ((0.3, 0.45), [((0.45, 0.3), "left side")]),
    "prefixes": (11111, [(100000, "outputs"), (11110, "empty prefix"), (5, "a row for each")]),
    "least-jacobian": (np.sqrt(2), [(1.0, "not equal"), (0.085, "not equal"), (-1.4, "not negative")]),
    "enough-prompts": (
        32,
        [(31.25, "whole"), (0, "at least 1"), (-5, "at least 1"), (25, "square root"), (31, "below 0"), (40, "fewer")],
    ),
    "whole-reply": (8.192, [(2.1033, "exponential"), (0.4, "single tokens"), (0.12207, "each short"), (5, "multiply")]),
    "drawn-four-times": (
        -2 / 7,
        [(1 / 3, "each row once"), (-0.25, "one less"), (2 / 7, "the sign"), (1.5, "all eight")],
    ),
    "pass-mark": (0.58499, [(0.1755, "own unit"), (0.79788, "half of the replies"), (0.3, "one reply in ten")]),
    "steps-until-it-moves": (39062.5, [(19531.25, "rounding to nearest"), (78125, "above 1"), (100, "probability")]),
    "balanced-batch": (206.04, [(103.02, "two bytes"), (412.08, "two bytes"), (32, "longer")]),
    "collapse-of-four": (0.3438, [(0.6562, "do all agree"), (0.9, "all four are 1")]),
    "lost-by-lot": (1, [(0.4, "a share"), (0.8, "divide")]),
    "unseen": (299, [(298, "missed"), (400, "fewer")]),
    "worth-of-silence": (2 / 3, [(0.5, "Sheppard"), (0.75, "half of the prompts"), (0.6, "first find")]),
    "million-to-one": (8.0064, [(16.0127, "difference"), (6.9078, "one half"), (3, "odds")]),
    "two-reasons": ((5.5255, 202.7326), [((202.73, 5.53), "first"), ((5.5255, 5.5255), "second")]),
    "first-spread": (125.439, [(125.0, "more digits"), (1000, "inverse")]),
    "smoothed-difference": (1.4153, [(0.8046, "logit"), (2.0, "smoothed label")]),
    "keep-two": (1.646, [(2.469, "number of samples"), (1.0, "extremes")]),
    "plateau-wait": (1000, [(500, "differ by 0.5"), (250, "2Δq²")]),
}


def test_every_exercise_has_answers_here():
    assert set(ANSWERS) == set(EXERCISES)


@pytest.mark.parametrize("slug", ANSWERS)
def test_right_and_wrong(slug, capsys):
    right, wrong = ANSWERS[slug]
    assert exercises.check(slug, right) is True
    assert capsys.readouterr().out == "Right.\n"
    for answer, hint in wrong:
        assert exercises.check(slug, answer) is False
        out = capsys.readouterr().out
        assert out.startswith("Not yet: ") and hint in out
        assert not any(
            f"{number:.4g}" in out for number in np.atleast_1d(np.asarray(right, dtype=float)) if number > 10
        )


def test_an_exercise_that_does_not_exist():
    with pytest.raises(ValueError, match="slug must name an exercise, got 'nothing'; there are "):
        exercises.check("nothing", 1)


@pytest.mark.parametrize(
    "slug, answer, words",
    [
        *(
            ("silent-group", answer, "give one number, as 0.25")
            for answer in (
                "a lot",
                "",
                "nan",
                None,
                ...,
                (1, 2),
                [],
                [[1], [1, 2]],
                {},
                1j,
                np.nan,
                np.inf,
                1e300,
                10**400,
            )
        ),
        *(("silent-group", answer, "give a share") for answer in ("41%", " 41.12 % ", ["41 %"])),
        *(("silent-group", answer, "decimal point") for answer in ("0,41", "0,4112", ["0,4112"])),
        ("silent-group", "2/5", "without quotation marks"),
        *(("swapped-best", answer, "2 numbers in parentheses") for answer in (1, "0.3, 0.45", None, (1, 2, 3))),
        ("swapped-best", ("30 %", "45 %"), "give a share"),
        ("swapped-best", ("0,3", "0,45"), "decimal point"),
        ("rough-loses", 1, "3 numbers in parentheses"),
    ],
)
def test_what_is_no_number_is_told_in_a_sentence_how_to_write_it(slug, answer, words, capsys):
    assert exercises.check(slug, answer) is False
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and words in out and out.endswith(".\n") and out.count("\n") == 1


@pytest.mark.parametrize(
    "answer", [" 0.4112 ", np.float32(0.4112), np.array(0.4112), [0.4112], Fraction(4112, 10_000), Decimal("0.4112")]
)
def test_a_number_in_another_form_is_a_number(answer):
    assert exercises.check("silent-group", answer) is True


@pytest.mark.parametrize("slug", [slug for slug, exercise in EXERCISES.items() if exercise.numbers == 1])
def test_no_number_ends_in_a_traceback(slug):
    for number in (0, -1, -1e6, 1e12, 1e99):
        exercises.check(slug, number)


@pytest.mark.parametrize(
    "slug, answer", [("silent-group", 0.41), ("fast-numbers", 43), ("six-points", 0.81), ("two-reasons", (5.5, 203))]
)
def test_a_right_answer_with_too_few_digits_is_told_so(slug, answer, capsys):
    assert exercises.check(slug, answer) is False
    assert capsys.readouterr().out == "Not yet: this is close; give more digits.\n"


@pytest.mark.parametrize("slug, answer", [("silent-group", 41.12), ("hardly-right", 5), ("six-points", 81)])
def test_a_percentage_is_told_so(slug, answer, capsys):
    assert exercises.check(slug, answer) is False
    assert "percentage" in capsys.readouterr().out
