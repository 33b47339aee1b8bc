"""Problems of the chapters on the paper's theorems: low variance, fast teachers, and Best-of-N."""

import itertools

import numpy as np
from scipy.optimize import brentq

from rvlib.problems.making import Question, pick, problem
from rvlib.tabular import autoregressive, best_of_n, bounds, rlhf_gradient

# ---- Low variance, slow reward ---------------------------------------------------------------------------------------


@problem
def many_prompts(rng: np.random.Generator) -> Question:
    """Least time until quiet prompts have risen."""
    prompts, deviation, gain = int(pick(rng, 20, 100, 200)), pick(rng, 0.02, 0.05), pick(rng, 0.3, 0.8)
    text = f"""A training set has {prompts} prompts. On a quarter of them the standard deviation of the reward under the
    initial policy is at most {deviation}. Before which time cannot a reward in $[-1,1]$, averaged over that quarter,
    have risen by {gain}? Use the theorem with the paper's constant, $2\\lvert\\mathcal
    S\\rvert(1-e^{{-\\gamma/2}})$."""
    return text, float(bounds.tabular_slow_time_bound(deviation**2, gain, prompts))


# ---- Low variance, vanishing gradient --------------------------------------------------------------------------------


@problem
def best_cut(rng: np.random.Generator) -> Question:
    """The least of a/c² + bc."""
    a, b = pick(rng, 2, 3, 5, 6), pick(rng, 1, 3, 4)
    return f"What is the least value of ${a}/c^2+{b if b > 1 else ''}c$ over $c>0$?", 3 * (a * b * b / 4) ** (1 / 3)


@problem
def share_of_bound(rng: np.random.Generator) -> Question:
    """Gradient norm over the sharper bound for one rewarded output."""
    length = int(pick(rng, 2, 3, 5))
    prefixes, _ = autoregressive.shape_of(2, length)
    reward = np.array([float(sum(y) == 0) for y in itertools.product(range(2), repeat=length)])
    gradient = autoregressive.policy_gradient(np.zeros((prefixes, 2)), reward).sum(0)
    bound = bounds.sharper_gradient_norm_bound(reward.mean() * (1 - reward.mean()), length, 1.0)
    text = f"""A policy over two tokens has the same two logits $(0,0)$ after every prefix. The reward of an output of
    {length} tokens is 1 if all of them are the first token, and 0 otherwise. What share of the sharper bound
    $J\\sqrt{{LW/2}}$, with $J=1$, is the norm of the gradient?"""
    return text, float(np.linalg.norm(gradient) / bound)


# ---- Low variance, slow reward, for language models ------------------------------------------------------------------


@problem
def lambda_takes_over(rng: np.random.Generator) -> Question:
    """The λ from which on the second term of the paper's Theorem 4 is the smaller."""
    gain = pick(rng, 0.2, 0.3, 0.7, 0.9)
    text = f"""For $\\gamma={gain}$, from which $\\lambda$ on is $1-e^{{-7/(3\\lambda)}}$ smaller than
    $1-e^{{-\\gamma/9}}$?"""
    return text, 21 / gain


@problem
def thousandth_of_the_variance(rng: np.random.Generator) -> Question:
    """Factors by which two least times grow."""
    factor = int(pick(rng, 64, 125, 729, 10_000))
    text = f"""A reward model has $1/{factor}$ of another's reward variance, everything else being equal. By which
    factors do a bound in proportion to $\\mathrm{{Var}}^{{-1/3}}$ and one in proportion to
    $\\mathrm{{Var}}^{{-1/2}}$ grow? Give both."""
    return text, (factor ** (1 / 3), factor**0.5)


# ---- Accurate is not enough ------------------------------------------------------------------------------------------


@problem
def hardly_right(rng: np.random.Generator) -> Question:
    """Least accuracy of a reward model that ranks the best output first."""
    outputs = int(pick(rng, 10, 15, 25, 60))
    text = f"""A ground truth over {outputs} outputs has no ties, and pairs are weighed uniformly. What is the least
    accuracy of a reward model that ranks the best output first?"""
    return text, 2 / outputs


@problem
def fast_numbers(rng: np.random.Generator) -> Question:
    """The upper bound on t_γ for a fast teacher."""
    gain, second = pick(rng, 0.3, 0.5), pick(rng, 0.15, 0.25, 0.3)
    probs, truth, reward = np.full(4, 0.25), np.array([1.0, 0.0, 0.0, -1.0]), np.array([1.0, second, 0.1, 0.05])
    right = float(bounds.sharper_tabular_fast_time_bound(probs, reward, truth, gain, [0])) / 1.6
    text = f"""Four outputs have probability $\\frac14$ each and ground truth $(1,0,0,-1)$; $\\gamma={gain}$,
    $\\lambda=0$, one prompt. The reward model gives them $(1,{second},0.1,0.05)$. Compute
    $\\bigl(\\frac1{{P_0}}-\\frac1\\rho\\bigr)/\\kappa$ of the chapter *Accurate is not enough* for
    $Y^+=\\{{\\text{{the first output}}\\}}$."""
    return text, right


@problem
def falls_at_first(rng: np.random.Generator) -> Question:
    """The reward b at which the first output begins to fall."""
    first, second = pick(rng, 0.04, 0.08, 0.1), pick(rng, 0.6, 0.65)
    probs = np.array([first, second, 1 - first - second])

    def slope(b: float) -> float:
        gradient = rlhf_gradient(np.log(probs), np.array([1.0, b, -1.0]), np.log(probs), 0.0)
        return float(gradient[0] - probs @ gradient)

    text = f"""Three outputs have probabilities $({first},{second},{probs[2]:g})$; $\\lambda=0$. The reward model
    gives them $(1,b,-1)$ with $b<1$. From which $b$ on does the probability of the first output fall at the start
    of gradient flow on the logits?"""
    return text, brentq(slope, -1, 1 - 1e-9)


# ---- Another policy, another teacher ---------------------------------------------------------------------------------


@problem
def certain_order(rng: np.random.Generator) -> Question:
    """T from which on the matching teacher is certainly the faster."""
    likely, rho, gain = pick(rng, 0.1, 0.25, 0.3), pick(rng, 0.5, 0.7), pick(rng, 0.4, 0.6)
    fast = 0.8 / (1 - rho) ** 3 * (1 / likely - 1 / rho)
    text = f"""Let $c={likely}$, $\\rho={rho}$, $\\gamma={gain}$, $\\lambda=0$ in the theorem on different policies
    and different teachers. From which $T$ on does it guarantee that the matching teacher is the faster one?"""
    return text, float(fast / (2 * -np.expm1(-gain / 2)))


@problem
def too_rare(rng: np.random.Generator) -> Question:
    """Least time with two rewards and rare praise."""
    rare, gain = pick(rng, 0.002, 0.0005, 0.01), pick(rng, 0.2, 0.4, 0.5)
    text = f"""A reward model gives 1 to outputs of total probability {rare} and $-1$ to all others; one prompt,
    $\\lambda=0$, gradient flow on the logits. Before which time can no reward in $[-1,1]$ have risen by {gain}? Use
    the theorem on praise for what is rarely said."""
    return text, float(bounds.two_marks_time_bound(rare, gain))


# ---- Where accuracy is everything: Best-of-N -------------------------------------------------------------------------


@problem
def best_of_three(rng: np.random.Generator) -> Question:
    """Expected truth of Best-of-N with a tie."""
    n, first = int(pick(rng, 2, 4, 5)), pick(rng, 0.1, 0.15, 0.25)
    probs, truth = np.array([first, 0.4, 0.6 - first]), np.array([1.0, 0.0, -1.0])
    text = f"""Three outputs have probabilities $({first},0.4,{0.6 - first:g})$ and ground truth $(1,0,-1)$. The
    reward model ties the first two above the third. What is the expected ground truth of Best-of-{n}?"""
    return text, float(best_of_n(probs, np.array([1.0, 1.0, 0.0]), truth, n))


@problem
def enough_samples(rng: np.random.Generator) -> Question:
    """Least N for Best-of-N to keep a rare output."""
    rare, sure = pick(rng, 0.005, 0.02, 0.03), pick(rng, 0.9, 0.99)
    text = f"""The policy gives the best output with probability {rare}, and the reward model ranks it first. What is
    the smallest $N$ for which Best-of-N keeps it with probability at least {sure}?"""
    return text, int(np.ceil(np.log(1 - sure) / np.log(1 - rare)))
