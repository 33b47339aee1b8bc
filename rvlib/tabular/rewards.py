"""Reward models made to order: to an accuracy and a variance, and as the proofs of Theorems 5 and 6 build them.

A reward model is made in two steps. Its ranking of the outputs comes first: of the C(n, 2) pairs, an exact number is ordered
as the ground truth orders them, and the seed chooses which. Values follow, increasing along the ranking: evenly spaced levels,
scaled down to a small variance, or drawn towards -1 below some level and 1 above it for a large one; 4 P (1 - P), with P the
probability above the best such level, is more than any values of that ranking reach.

Numbering as in arXiv 2503.15477; `random` and the page's `random` draw the same numbers, so a seed means the same in both.
"""

import numpy as np

from rvlib import _checks
from rvlib.metrics import reward_covariance, reward_variance

_MOST_STATES = 200_000  # of the search for rankings with ties; some seconds


def random(seed, count):
    """`count` numbers in [0, 1) of the generator mulberry32, which is a counter and a hash and so as short in JavaScript."""
    with np.errstate(over="ignore"):
        a = np.uint32(seed % 2**32) + np.uint32(0x6D2B79F5) * np.arange(1, count + 1, dtype=np.uint32)
        b = (a ^ (a >> np.uint32(15))) * (a | np.uint32(1))
        b = (b + (b ^ (b >> np.uint32(7))) * (b | np.uint32(61))) ^ b
    return (b ^ (b >> np.uint32(14))) / 2**32


def attainable_accuracies(ground_truth, first=None):
    """Every accuracy that some reward model has (Def. 3), increasing, in [0, 1].

    ground_truth: (n,), n >= 2. first: index of an output that the reward model must rank strictly first; none by default.
    Without ties in the ground truth these are all multiples of one over the number of pairs. ValueError where ties and
    outputs are too many for an exact search.
    """
    truth = _one_prompt("ground_truth", ground_truth)
    return np.array(sorted(_attainable_pairs(truth, first))) / _pairs(truth)


def attainable_variance(ground_truth, probs, accuracy, seed, first=None):
    """(low, high) of the reward variance under probs that `make_reward_model` reaches with this accuracy and seed.

    low is 0, itself reached only by a reward model that ties all outputs; high is reached to 1e-9. Another seed ranks
    otherwise and has another high.
    """
    truth, probs = _checks.broadcast(
        ground_truth=_one_prompt("ground_truth", ground_truth), probs=_checks.probabilities("probs", probs)
    )
    levels = _ranking(truth, _right_pairs(truth, accuracy, first), seed, first)
    return 0.0, float(reward_variance(_extreme(levels, probs), probs))


def attainable_accuracy(ground_truth, probs, variance, seed, first=None):
    """(least, greatest) accuracy at which `make_reward_model` reaches this variance with this seed; every accuracy is tried."""
    reached = [
        accuracy
        for accuracy in attainable_accuracies(ground_truth, first)
        if 0 < variance <= attainable_variance(ground_truth, probs, accuracy, seed, first)[1]
    ]
    if not reached:
        raise ValueError(f"variance must be reached at some accuracy, got {variance:.6g}, which is too large for this policy.")
    return reached[0], reached[-1]


def make_reward_model(ground_truth, probs, accuracy, variance, seed, first=None):
    """Rewards (n,) in [-1, 1] with exactly this accuracy and, to 1e-9 and 1e-12 of itself, this variance under probs.

    ground_truth, probs: (n,), n >= 2. accuracy: one of `attainable_accuracies`, uniform pairs. variance: > 0, at most
    `attainable_variance`. seed: chooses which pairs are misordered; a lower accuracy misorders more from the same choice.
    first: index of an output to rank strictly first. ValueError naming the attainable range.
    """
    truth, probs = _checks.broadcast(
        ground_truth=_one_prompt("ground_truth", ground_truth), probs=_checks.probabilities("probs", probs)
    )
    variance = float(_checks.real("variance", variance, low=0.0))
    levels = _ranking(truth, _right_pairs(truth, accuracy, first), seed, first)
    base = 2 * levels / max(levels.max(), 1) - 1.0
    gentle, extreme = reward_variance(base, probs), _extreme(levels, probs)
    largest = reward_variance(extreme, probs)
    if levels.max() == 0 and variance == 0:
        return np.zeros_like(truth)
    if not 0 < variance <= largest * (1 + 1e-12):
        raise ValueError(
            f"variance must be in (0, {largest:.9g}] for accuracy {accuracy:.6g} with seed {seed}, got {variance:.9g}."
        )
    if variance <= gentle:
        return base * np.sqrt(variance / gentle)
    # Var((1-τ) base + τ extreme) is a convex quadratic in τ that starts below `variance` and ends above: one root in [0, 1].
    cross = reward_covariance(base, extreme, probs)
    square, slope = gentle - 2 * cross + largest, 2 * (cross - gentle)
    root = np.sqrt(max(slope**2 + 4 * square * (variance - gentle), 0.0))
    share = 2 * (variance - gentle) / (slope + root)  # the root's form without cancellation
    share = min(share, 1 - 1e-10)  # keeps neighbours apart; the variance is then high by less than 1e-9
    return (1 - share) * base + share * extreme


def accurate_but_slow(ground_truth, accuracy, slowness, seed=0):
    """The slow teacher of Theorem 5: rewards (n,) in (0, 1/T) with the accuracy wanted.

    Its reward variance is below T^-2 under every policy, so t_γ ≥ 2|S|(1 - e^{-γ/2}) T, T = slowness >= 1.
    """
    truth = _one_prompt("ground_truth", ground_truth)
    slowness = float(_checks.real("slowness", slowness, low=1.0))
    levels = _ranking(truth, _right_pairs(truth, accuracy), seed)
    return (levels + 1) / (levels.max() + 2) / slowness


def inaccurate_but_fast(ground_truth, probs, best, accuracy=None, seed=0):
    """The fast teacher of Theorem 5: 1 on output `best`, the others between 0 and π(best), with the accuracy wanted.

    ground_truth, probs: (n,). accuracy: attainable with `best` ranked first, the least of those by default (Theorem 2's).
    `bounds.inaccurate_but_fast_time_bound` bounds its t_γ from above.
    """
    truth, probs = _checks.broadcast(
        ground_truth=_one_prompt("ground_truth", ground_truth), probs=_checks.probabilities("probs", probs)
    )
    best = _index("best", best, truth)
    if accuracy is None:
        accuracy = attainable_accuracies(truth, first=best)[0]
    levels = _ranking(truth, _right_pairs(truth, accuracy, best), seed, best)
    reward = probs[best] * (levels + 1) / (levels.max() + 1)  # others: (0, π(best)), since `best` alone has the top level
    reward[best] = 1.0
    return reward


def policy_specific_teachers(outputs, good, other_good):
    """The two teachers of Theorem 6: rewards (n,) that are 1 on output `good`, or on `other_good`, and -1 elsewhere.

    outputs: n >= 2. A policy that gives `good` often and `other_good` hardly ever learns fast from the first and slowly from
    the second; one that gives them the other way round learns the other way round.
    """
    outputs = _checks.whole("outputs", outputs, low=2)
    good, other_good = (_index(name, y, np.zeros(outputs)) for name, y in [("good", good), ("other_good", other_good)])
    if good == other_good:
        raise ValueError(f"other_good must be another output than good, got {good} for both.")
    return tuple(np.where(np.arange(outputs) == y, 1.0, -1.0) for y in (good, other_good))


def _one_prompt(name, value):
    value = _checks.array(name, value)
    if value.ndim != 1 or value.size < 2:
        raise ValueError(f"{name} must be one prompt's, of shape (n,) with n >= 2 outputs, got shape {value.shape}.")
    return value


def _index(name, value, outputs):
    if not np.isscalar(value) or isinstance(value, str) or int(value) != value or not 0 <= value < len(outputs):
        raise ValueError(f"{name} must be the index of one of {len(outputs)} outputs, got {value!r}.")
    return int(value)


def _pairs(truth):
    return truth.size * (truth.size - 1) // 2


def _right_pairs(truth, accuracy, first=None):
    """The number of rightly ordered pairs that an accuracy means; ValueError unless a reward model can have it."""
    accuracy = float(_checks.real("accuracy", accuracy, low=0.0, high=1.0))
    right = round(accuracy * _pairs(truth))
    attainable = _attainable_pairs(truth, first)
    if right not in attainable or abs(right - accuracy * _pairs(truth)) > 1e-6:
        known = np.array(sorted(attainable)) / _pairs(truth)
        nearest = known[np.abs(known - accuracy).argmin()]
        raise ValueError(
            f"accuracy must be attainable, from {known[0]:.6g} to {known[-1]:.6g} in steps of one over {_pairs(truth)} pairs"
            f"{' but for what ties forbid' if len(attainable) < known[-1] * _pairs(truth) + 1 else ''}, got {accuracy:.9g}; "
            f"the nearest is {nearest:.12g}."
        )
    return right


def _attainable_pairs(truth, first=None):
    """The numbers of pairs that some reward model orders rightly, as a range or a set."""
    if first is not None:
        first = _index("first", first, truth)
        rest = np.delete(truth, first)
        below = int((rest < truth[first]).sum())
        inner = _attainable_pairs(rest) if rest.size > 1 else range(1)
        return range(below, below + len(inner)) if isinstance(inner, range) else {below + right for right in inner}
    _, sizes = np.unique(truth, return_counts=True)
    if sizes.max() == 1:
        return range(_pairs(truth) + 1)
    sums = _search(tuple(sizes))[tuple(sizes)]
    return {right for right in range(sums.bit_length()) if sums >> right & 1}


def _search(sizes):
    """For each way to have placed some outputs of each group of equal ground truth: the sums of right pairs, as bits of an int.

    A reward model is built from its worst level up. A level holds m outputs of one group (levels across groups only lose
    pairs, as reversed ones do): they agree with each other, and with every output of a worse group already placed.
    """
    if np.prod([size + 1.0 for size in sizes]) > _MOST_STATES:
        raise ValueError(
            f"ground_truth must have fewer outputs beside its ties to search all accuracies, got {sum(sizes)} outputs; "
            "an accuracy without its tied pairs is attainable with distinct ground truths."
        )
    reached = {state: 0 for state in np.ndindex(*[size + 1 for size in sizes])}
    reached[(0,) * len(sizes)] = 1
    for state in reached:  # in lexicographic order, so a state comes after all from which it is reached
        for group, placed in enumerate(state):
            worse = sum(state[:group])
            for size in range(1, sizes[group] - placed + 1):
                after = state[:group] + (placed + size,) + state[group + 1 :]
                reached[after] |= reached[state] << (size * (size - 1) // 2 + size * worse)
    return reached


def _ranking(truth, right, seed, first=None):
    """Levels (n,), 0 the worst, of a reward model that orders `right` pairs rightly; the seed chooses among them."""
    if first is not None:
        rest = np.delete(np.arange(truth.size), first)
        below = int((truth[rest] < truth[first]).sum())
        levels = np.zeros(truth.size, dtype=int)
        if rest.size > 1:
            levels[rest] = _ranking(truth[rest], right - below, seed)
        levels[first] = levels[rest].max() + 1
        return levels
    order = np.argsort(-truth, kind="stable")
    if np.unique(truth).size < truth.size:
        return _tied_ranking(truth, right, seed)
    # Inversions as a Lehmer code: the i-th best output is passed by c_i ≤ i better ones. Each of the Σ i possible passes has
    # a random key, and the smallest keys are taken, so that a lower accuracy only adds passes.
    wrong = _pairs(truth) - right
    slot = np.repeat(np.arange(truth.size), np.arange(truth.size))
    passes = np.bincount(slot[np.argsort(random(seed, slot.size), kind="stable")[:wrong]], minlength=truth.size)
    ranked = []
    for i, passed in enumerate(passes):
        ranked.insert(i - passed, order[i])
    levels = np.empty(truth.size, dtype=int)
    levels[ranked] = np.arange(truth.size)[::-1]
    return levels


def _tied_ranking(truth, right, seed):
    """`_ranking` where the ground truth has ties: a random path back through `_search`."""
    values, group_of, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    sizes = tuple(sizes)
    reached, draws = _search(sizes), iter(random(seed, 3 * truth.size))
    shuffled = np.argsort(random(seed + 1, truth.size), kind="stable")
    members = [[y for y in shuffled if group_of[y] == group] for group in range(values.size)]
    state, level, levels = sizes, 0, np.empty(truth.size, dtype=int)
    while any(state):
        steps = []
        for group, placed in enumerate(state):
            for size in range(1, placed + 1):
                before = state[:group] + (placed - size,) + state[group + 1 :]
                gained = size * (size - 1) // 2 + size * sum(state[:group])
                if right >= gained and reached[before] >> (right - gained) & 1:
                    steps.append((group, size, before, gained))
        group, size, state, gained = steps[int(next(draws) * len(steps))]
        for _ in range(size):
            levels[members[group].pop()] = level
        right, level = right - gained, level - 1
    return levels - levels.min()


def _extreme(levels, probs):
    """-1 below some level and 1 from it on, at the split of greatest variance."""
    mass = np.bincount(levels, probs)
    above = np.cumsum(mass[::-1])[::-1]  # above[l]: probability of level l and all above it
    split = np.argmax((above * (1 - above))[1:]) + 1 if mass.size > 1 else 0
    return np.where(levels >= split, 1.0, -1.0)
