"""An autoregressive policy as a table, one row of logits for each prefix, and all V^L strings of L tokens summed.

    π(y) = ∏_l softmax(θ_{y_<l})_{y_l},        E_{y~π}[ b(y) ∂ ln π(y)/∂θ_h ] = π(h) · p_h ⊙ A_h

h is a prefix, π(h) the probability that an output begins with it, p_h its distribution over the next token, and A_h(v)
= E[b | hv] - E[b | h] what that token adds to the expected value b. In its own logits the policy has Jacobian norm 1;
the gradient of a network is this one times the network's Jacobian. Prefixes lie on one axis, shorter ones first and
equally long ones in the order of their tokens; so do the V^L outputs on theirs. Leading axes are policies and
broadcast.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from rvlib import _checks


def shape_of(vocabulary: int, length: int) -> tuple[int, int]:
    """(prefixes, outputs) for strings of `length` tokens: (V^L - 1)/(V - 1) rows of logits, V^L outputs."""
    vocabulary, length = _checks.whole("vocabulary", vocabulary, low=2), _checks.whole("length", length)
    return (vocabulary**length - 1) // (vocabulary - 1), vocabulary**length


def log_probs(logits: ArrayLike) -> NDArray[np.float64]:
    """The ln π of every output, (..., V^L), from logits (..., prefixes, V).

    An autoregressive policy of the book's `def-policy`. ValueError if the prefixes are not those of one length.
    """
    total = np.zeros(1)
    for rows in _levels(_checked(logits)):
        total = total[..., None] + log_softmax(rows, axis=-1)
        total = total.reshape(*total.shape[:-2], -1)
    return total


def kl_reward(
    logits: ArrayLike, reward: ArrayLike, reference_logits: ArrayLike, kl_coef: ArrayLike
) -> NDArray[np.float64]:
    """The KL-regularised reward r - λ ln(π/π_ref), (..., V^L).

    logits, reference_logits: (..., prefixes, V); reward: (..., V^L); kl_coef: λ >= 0, (...).
    """
    ratio = log_probs(logits) - log_probs(reference_logits)
    return _values("reward", reward, ratio.shape[-1]) - _checks.real("kl_coef", kl_coef, low=0.0)[..., None] * ratio


class TokenTable(NamedTuple):
    """p (..., prefixes, V), π(h) (..., prefixes) and A (..., prefixes, V); a tuple, so that it unpacks."""

    probs: NDArray[np.float64]
    reach: NDArray[np.float64]
    advantage: NDArray[np.float64]


def tokens(logits: ArrayLike, values: ArrayLike) -> TokenTable:
    """What the next token can be and what it adds: p (..., prefixes, V), π(h) (..., prefixes) and A (..., prefixes, V).

    values: b (..., V^L). The advantages split the variance: Var_π[b] = Σ_h π(h) Σ_v p_h(v) A_h(v)².
    """
    logits = _checked(logits)
    probs = [np.exp(log_softmax(rows, axis=-1)) for rows in _levels(logits)]
    value = _values("values", values, logits.shape[-1] ** len(probs))
    batch = np.broadcast_shapes(logits.shape[:-2], value.shape[:-1])
    reach, arrived, advantage = [], np.ones((*batch, 1)), []
    for rows in probs:
        reach.append(arrived)
        arrived = (arrived[..., None] * rows).reshape(*batch, -1)
    for rows in reversed(probs):  # expected values, from the last token back to the first
        ahead = value.reshape(*value.shape[:-1], *rows.shape[-2:])
        value = (rows * ahead).sum(-1)
        advantage.append(ahead - value[..., None])
    advantage = [np.broadcast_to(rows, (*batch, *rows.shape[-2:])) for rows in reversed(advantage)]
    return TokenTable(np.concatenate(probs, -2), np.concatenate(reach, -1), np.concatenate(advantage, -2))


def policy_gradient(logits: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """E_{y~π}[b(y) ∇ ln π(y)] in the logits, (..., prefixes, V), for values b (..., V^L) held fixed.

    With b = `kl_reward` it is the gradient of the RLHF objective: the derivative of b itself has the mean -λ E[∇ ln π],
    which is 0, by the book's `lem-log-derivative` and `lem-tokens`.
    """
    probs, reach, advantage = tokens(logits, values)
    return reach[..., None] * probs * advantage


def proof_steps(
    logits: ArrayLike, values: ArrayLike, jacobian: NDArray[np.float64] | None = None
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """The chain of inequalities behind the paper's Prop. 2 and the book's `thm-deviation-gradient`.

    logits (..., prefixes, V), values r^KL (..., V^L), jacobian of the logits in a network's parameters (..., prefixes,
    V, parameters), the identity by default. Returns two dictionaries {step: (...,)}, the first with the bound of the
    paper's Prop. 2 as its last entry, the second with J sqrt(L W/2); both begin with the gradient norm. The second's
    first inequality is that of the book's `prop-bridge`.
    """
    probs, reach, advantage = tokens(logits, values)
    values, outputs = np.asarray(values, dtype=float), np.exp(log_probs(logits))
    length, largest = len(list(_levels(np.asarray(logits)))), np.abs(values).max(-1)
    centred = values - (outputs * values).sum(-1, keepdims=True)
    variance = (outputs * centred**2).sum(-1)
    j = 1.0 if jacobian is None else jacobian_norm(jacobian)

    def norm_in_parameters(gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """The Euclidean norm, in the network's parameters, of a gradient in the logits."""
        if jacobian is None:
            return np.linalg.norm(gradient, axis=(-2, -1))
        return np.linalg.norm(np.einsum("...hvp,...hv->...p", jacobian, gradient), axis=-1)

    gradient_norm = norm_in_parameters(reach[..., None] * probs * advantage)
    cut = np.cbrt(largest * variance)
    far = np.abs(centred) > cut[..., None]
    pulled_far = j * (outputs * far * np.abs(centred) * _token_errors(logits)).sum(-1)
    pulled_near = j * np.abs(policy_gradient(logits, centred * ~far)).sum((-2, -1))
    paper = {
        "gradient norm": gradient_norm,
        "split at c": norm_in_parameters(policy_gradient(logits, centred * far))
        + norm_in_parameters(policy_gradient(logits, centred * ~far)),
        "J taken out": pulled_far + pulled_near,
        "largest values": j * length * (4 * largest * (outputs * far).sum(-1) + 2 * cut),
        "Chebyshev": 6 * j * length * cut,
    }
    spread = np.sqrt((probs * advantage**2).sum(-1))
    sharper = {
        "gradient norm": gradient_norm,
        "J taken out": j * (reach * np.linalg.norm(probs * advantage, axis=-1)).sum(-1),
        "spread of a token": j * (reach * spread).sum(-1) / np.sqrt(2),
        "Cauchy–Schwarz": j * np.sqrt(length * variance / 2),
    }
    return paper, sharper


def jacobian_norm(jacobian: ArrayLike) -> NDArray[np.float64]:
    """J: the largest spectral norm over the prefixes, (...), of a Jacobian (..., prefixes, V, parameters)."""
    return np.linalg.norm(jacobian, 2, axis=(-2, -1)).max(-1)


def time_to_gain(
    logits: ArrayLike,
    reward: ArrayLike,
    gain: float,
    *,
    measured: ArrayLike | None = None,
    kl_coef: float = 0.0,
    t_max: float = 1e6,
) -> float:
    """t_γ of one table policy (prefixes, V) under gradient flow, to a relative 1e-6; inf if not reached by t_max.

    reward, measured: (V^L,); measured is `reward` by default. Source: section 2.1, arXiv 2503.15477; the book's
    `def-time-to-gain`.
    """
    # Here, since scipy.integrate takes a second to import, and most of what the library does has no need of it.
    from scipy.integrate import solve_ivp

    start = _checked(logits)
    measured = _values("measured", reward if measured is None else measured, np.size(reward))
    t_max = _checks.number("t_max", t_max, above=0.0)
    goal = np.exp(log_probs(start)) @ measured + _checks.real("gain", gain, above=0.0)

    def field(_: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        now = flat.reshape(start.shape)
        return policy_gradient(now, kl_reward(now, reward, start, kl_coef)).ravel()

    def reached(_: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(log_probs(flat.reshape(start.shape))) @ measured - goal

    reached.terminal, reached.direction = True, 1  # type: ignore[attr-defined]  # SciPy reads them off the function
    path = solve_ivp(field, (0.0, t_max), start.ravel(), method="DOP853", events=reached, rtol=1e-8, atol=1e-10)
    return float(path.t_events[0][0]) if path.t_events[0].size else np.inf


def _token_errors(logits: ArrayLike) -> NDArray[np.float64]:
    """Σ_l ‖e_{y_l} - p_l‖₁ of every output, (..., V^L)."""
    total = np.zeros(1)
    for rows in _levels(np.asarray(logits)):
        total = total[..., None] + 2 * (1 - np.exp(log_softmax(rows, axis=-1)))
        total = total.reshape(*total.shape[:-2], -1)
    return total


def _levels(logits: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The rows of each length of prefix: (..., 1, V), (..., V, V), (..., V², V) and so on."""
    start, rows = 0, 1
    while start < logits.shape[-2]:
        yield logits[..., start : start + rows, :]
        start, rows = start + rows, rows * logits.shape[-1]


def _checked(logits: ArrayLike) -> NDArray[np.float64]:
    """Logits (..., prefixes, V) as an array; ValueError unless the prefixes are those of one length."""
    logits = _checks.array("logits", logits)
    prefixes, vocabulary = logits.shape[-2:] if logits.ndim > 1 else (0, 0)
    rows = 0
    while rows < prefixes and vocabulary > 1:
        rows = 1 + vocabulary * rows
    if rows != prefixes or vocabulary < 2:
        raise ValueError(
            f"logits must have shape (..., (V^L - 1)/(V - 1), V), a row for each prefix, got shape {logits.shape}; "
            "shape_of(V, L) gives the rows."
        )
    return logits


def _values(name: str, values: ArrayLike, outputs: int) -> NDArray[np.float64]:
    """Values (..., outputs) as an array; ValueError, which calls them `name`, for another number of outputs."""
    values = _checks.array(name, values)
    if values.shape[-1] != outputs:
        raise ValueError(
            f"{name} must have one value for each of the {outputs} outputs on its last axis, got shape {values.shape}."
        )
    return values
