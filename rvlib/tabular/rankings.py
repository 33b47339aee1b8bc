"""Rankings of outputs that agree with the ground truth on an exact number of pairs (Defs. 1 and 3, arXiv 2503.15477).

    outputs are ranked by  noise_y - c · rank_G(y)
    y above y' in truth is misordered if  (noise_y - noise_y')/(rank_G(y) - rank_G(y')) < c

As c grows, each pair turns over once, in the order of these slopes: from the true ranking, over pure noise, to the
reverse. So the k pairs of smallest slope are the misordered pairs of a ranking, and more misordered pairs only add to
fewer. Ties in the ground truth are kept only by tying too; `free` and what follows it say what that allows.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_Level = tuple[int, int]  # the value, counted from the best, and how many of its outputs the level has
_MOST_WORK = 400_000  # of the search among rankings that break few ties; a second or two


def random(seed: int, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) of the generator mulberry32: a counter and a hash, and so as short in JavaScript."""
    with np.errstate(over="ignore"):
        a = np.uint32(seed % 2**32) + np.uint32(0x6D2B79F5) * np.arange(1, count + 1, dtype=np.uint32)
        b = (a ^ (a >> np.uint32(15))) * (a | np.uint32(1))
        b = (b + (b ^ (b >> np.uint32(7))) * (b | np.uint32(61))) ^ b
    return (b ^ (b >> np.uint32(14))) / 2**32


def pairs(outputs: int) -> int:
    """How many pairs there are of so many outputs."""
    return outputs * (outputs - 1) // 2


def wrong_counts(truth: NDArray[np.float64]) -> tuple[int, list[int]]:
    """(free, few): a ranking can misorder `few` pairs, increasing numbers, or any number from `free` to C(n, 2).

    Complete unless several values of the ground truth are shared by hundreds of outputs each: then some of `few` are
    missing.
    """
    sizes = _sizes(truth)
    free = _chain(sizes).free
    if len(sizes) > 1 and (layers := _search(sizes, free)) is not None:
        few = layers[0].get((0,) * len(sizes), 0)
        return free, [wrong for wrong in range(free) if few >> wrong & 1]
    costs = {int(cost) for size in sizes for cost in _costs(size) if cost < free}
    return free, sorted(costs)


def ranking(truth: NDArray[np.float64], wrong: int, seed: int) -> NDArray[np.intp]:
    """Levels (n,), 0 the worst, of a ranking that misorders exactly `wrong` of the pairs.

    wrong: a number that `wrong_counts` allows.
    """
    order = np.argsort(-truth, kind="stable")
    noise = random(seed + 2**31, truth.size)  # not the numbers that a caller with the same seed draws
    sizes = _sizes(truth)
    tied = sum(map(pairs, sizes))
    if wrong >= tied:  # every tie broken
        rank = np.repeat(truth.size - np.cumsum(sizes), sizes)  # how many are worse
        blocks = [[y] for y in _strict(rank, noise, wrong - tied)]
    else:
        blocks = _tied(sizes, noise, wrong)
    levels = np.empty(truth.size, dtype=int)
    for level, block in enumerate(reversed(blocks)):
        levels[order[block]] = level
    return levels


def _sizes(truth: NDArray[np.float64]) -> tuple[int, ...]:
    """How many outputs share each value of the ground truth, best value first."""
    return tuple(int(count) for count in np.unique(-truth, return_counts=True)[1])


def _strict(rank: NDArray[np.intp], noise: NDArray[np.float64], wrong: int) -> NDArray[np.intp]:
    """An order, best first, that misorders `wrong` of the pairs of different rank; outputs are given best first."""
    outputs = rank.size
    # An output with `worse` worse ones is above the last `worse`.
    below = ((i, slice(outputs - worse, None)) for i, worse in enumerate(rank))
    slopes = np.concatenate([(noise[i] - noise[others]) / (rank[i] - rank[others]) for i, others in below])
    if wrong == 0:
        c = slopes.min(initial=0) - 1
    elif wrong == slopes.size:
        c = slopes.max() + 1
    else:
        c = np.partition(slopes, (wrong - 1, wrong))[wrong - 1 : wrong + 1].sum() / 2
    order = np.argsort(c * rank - noise, kind="stable")
    # Slopes that are nearly equal leave a pair too many or too few: neighbours swap places until the number is right.
    ranked = rank[order]
    missing = wrong - sum(int((ranked[i + 1 :] > r).sum()) for i, r in enumerate(ranked))
    while missing:
        for i in range(outputs - 1):
            upper, lower = rank[order[i]], rank[order[i + 1]]
            if missing and upper != lower and (upper > lower) == (missing > 0):
                order[[i, i + 1]] = order[[i + 1, i]]
                missing -= 1 if missing > 0 else -1
    return order


# ---- ties in the ground truth ----------------------------------------------------------------------------------------
#
# A level that holds outputs of different value costs what it would cost reversed, so levels within one value are
# enough. A value shared by m outputs, its levels holding p_1, p_2, ..., costs C(m, 2) - Σ C(p_i, 2) pairs. All tied,
# it costs 0; the cheapest break costs m - 1; from some cost on every number is possible.


@lru_cache(maxsize=2)
def _fewest(size: int) -> NDArray[np.int16]:
    """For each number of tied pairs up to C(size, 2), the fewest outputs whose levels can hold it.

    That is the least Σ p_i for a given Σ C(p_i, 2).
    """
    fewest = np.full(pairs(size) + 1, np.iinfo(np.int16).max, dtype=np.int16)
    fewest[:3] = [0, 2, 4][: fewest.size]
    for largest in range(3, size + 1):
        start = pairs(largest)
        row = fewest[start : start + largest]  # the rest of these is less than a level of `largest`
        for level in range(largest, 1, -1):
            rest = start - pairs(level)
            # A smaller largest level leaves more to the others, which need at least as many outputs as one level would.
            if pairs(level) < largest or level + (1 + (1 + 8 * rest) ** 0.5) / 2 > row.max():
                break
            np.minimum(row, level + fewest[rest : rest + row.size], out=row)
    return fewest


def _costs(size: int) -> NDArray[np.intp]:
    """What breaking ties among `size` outputs can cost, increasing."""
    return pairs(size) - np.flatnonzero(_fewest(size) <= size)[::-1]


def _split(size: int, cost: int) -> list[int]:
    """Sizes of the levels that break ties among `size` outputs at this cost."""
    fewest, held, levels = _fewest(size), pairs(size) - cost, []
    while held:
        level = next(p for p in range(size, 1, -1) if pairs(p) <= held and p + fewest[held - pairs(p)] == fewest[held])
        levels.append(level)
        held -= pairs(level)
    return levels + [1] * (size - sum(levels))


@dataclass(frozen=True)
class _Piece:
    """A shared value, or a run of values not shared, whose outputs can misorder any number of their pairs.

    It is `count` values from `group` on. It can cost any number from `free` to `most`, and some below; no two
    next costs are further apart than `gap`.
    """

    free: int
    most: int
    gap: int
    group: int
    count: int


@dataclass(frozen=True)
class _Chain:
    """Pieces whose costs, independent of each other, add up to every number from `free` on."""

    free: int
    pieces: tuple[_Piece, ...]


@lru_cache(maxsize=64)
def _chain(sizes: tuple[int, ...]) -> _Chain:
    """The chain of least `free`.

    The first piece alone can cost anything from `free` to its most; each next one, whose costs have no larger gap than
    what is covered by then, moves the end on. Beyond the last end every tie can be broken.
    """
    pieces, start = [], 0
    while start < len(sizes):
        end = start + 1
        while sizes[start] == 1 and end < len(sizes) and sizes[end] == 1:
            end += 1
        if sizes[start] > 1:
            short = np.flatnonzero(_fewest(sizes[start]) > sizes[start])
            most = pairs(sizes[start])
            free = most - int(short[0]) + 1 if short.size else 0
            pieces.append(_Piece(free, most, sizes[start] - 1, start, 1))
        elif end - start > 1:
            pieces.append(_Piece(0, pairs(end - start), 1, start, end - start))
        start = end
    best = _Chain(sum(map(pairs, sizes)), ())
    for first in sorted(pieces, key=lambda piece: (piece.free, piece.most, piece.gap, piece.group)):
        covered, chain = first.most - first.free + 1, [first]
        for piece in sorted((piece for piece in pieces if piece is not first), key=lambda piece: piece.gap):
            if piece.gap <= covered:
                covered, chain = covered + piece.most, [*chain, piece]
        if len(chain) == len(pieces) and first.free < best.free:
            best = _Chain(first.free, tuple(chain))
    return best


@lru_cache(maxsize=4)
def _search(sizes: tuple[int, ...], limit: int) -> list[dict[tuple[int, ...], int]] | None:
    """All ways to misorder fewer than `limit` pairs.

    For what is left to place: the numbers of pairs misordered so far, as bits of an int. A ranking is built
    from its top. A level that takes p outputs of one value misorders them with the better ones still left and with
    those of their own value. Returns a dictionary for each number of outputs left, or None if that is too much work.
    """
    layers: list[dict[tuple[int, ...], int]] = [{} for _ in range(sum(sizes) + 1)]
    layers[-1][sizes] = 1
    mask, work = (1 << limit) - 1, 0
    for left in range(sum(sizes), 0, -1):
        for state, counts in layers[left].items():
            better = 0
            for group, remaining in enumerate(state):
                for size in range(1, remaining + 1):
                    after = state[:group] + (remaining - size,) + state[group + 1 :]
                    reached = counts << size * (better + remaining - size) & mask
                    if reached:
                        layers[left - size][after] = layers[left - size].get(after, 0) | reached
                better += remaining
                work += remaining * (1 + limit // 5_000)
                if better >= limit:
                    break
        if work > _MOST_WORK:
            return None
    return layers


def _tied(sizes: tuple[int, ...], noise: NDArray[np.float64], wrong: int) -> list[list[int]]:
    """Blocks of tied outputs, best first, the outputs being numbered best first, where not every tie can be broken."""
    chain = _chain(sizes)
    layers = _search(sizes, chain.free) if wrong < chain.free and len(sizes) > 1 else None
    if layers is not None:
        levels = _path(sizes, layers, wrong)
    else:
        if wrong < chain.free:  # one value alone pays for all
            group = next(group for group, size in enumerate(sizes) if wrong in _costs(size))
            chain = _Chain(wrong, (_Piece(wrong, wrong, 0, group, 1),))
        levels = _spend(sizes, noise, wrong, chain)
    ends = np.cumsum(sizes)
    members = [list(end - size + np.argsort(noise[end - size : end], kind="stable")) for size, end in zip(sizes, ends)]
    return [[members[group].pop() for _ in range(size)] for group, size in levels]


def _path(sizes: tuple[int, ...], layers: list[dict[tuple[int, ...], int]], wrong: int) -> list[_Level]:
    """Levels (group, size), best first, along the first path that `_search` has found to misorder `wrong` pairs."""
    state: tuple[int, ...] = (0,) * len(sizes)
    left, levels = 0, []
    while left < sum(sizes):  # from the bottom up
        for group, size in ((g, p) for g in range(len(sizes)) for p in range(sizes[g] - state[g], 0, -1)):
            before = state[:group] + (state[group] + size,) + state[group + 1 :]
            cost = size * sum(state[: group + 1])
            if cost <= wrong and layers[left + size].get(before, 0) >> wrong - cost & 1:
                break
        state, left, wrong = before, left + size, wrong - cost
        levels.append((group, size))
    return levels[::-1]


def _spend(sizes: tuple[int, ...], noise: NDArray[np.float64], wrong: int, chain: _Chain) -> list[_Level]:
    """Levels, best first, whose pieces in the chain misorder `wrong` >= `chain.free` pairs together."""
    plan: dict[int, list[_Level]] = {group: [(group, size)] for group, size in enumerate(sizes)}
    for piece in reversed(chain.pieces):
        group, count = piece.group, piece.count
        possible = _costs(sizes[group]) if count == 1 else np.arange(pairs(count) + 1)
        # The most that leaves the others enough to spend.
        affordable = possible[np.searchsorted(possible, wrong - chain.free, side="right") - 1]
        cost = wrong if piece is chain.pieces[0] else int(affordable)
        wrong -= cost
        if count == 1:
            plan[group] = [(group, size) for size in _split(sizes[group], cost)]
        else:
            start = sum(sizes[:group])
            run = _strict(np.arange(count)[::-1], noise[start : start + count], cost)
            plan |= {group + place: [(group + int(y), 1)] for place, y in enumerate(run)}
    return [level for group in range(len(sizes)) for level in plan[group]]
