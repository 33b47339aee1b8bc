"""Checks of arguments shared by the library: each returns a clean float64 value or raises one sentence."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def array(
    name: str, value: ArrayLike, *, finite: bool = True, low: float = -np.inf, high: float = np.inf
) -> NDArray[np.float64]:
    """`value` as a float64 array with at least one entry on its last axis.

    Integers and booleans are taken as the floats they equal. Raises ValueError, naming `name`, for anything that is
    not numeric, for a scalar, an empty array, a NaN, an infinity (if `finite`) or an entry outside [low, high].
    """
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        remedy = "tensor.detach().float().cpu().numpy()" if hasattr(value, "detach") else "numbers"
        raise ValueError(
            f"{name} must be an array of real numbers, got {type(value).__name__}; pass {remedy}."
        ) from error
    if result.ndim == 0 or result.size == 0:
        raise ValueError(
            f"{name} must have at least one output on its last axis, and no empty axis, got shape {result.shape}."
        )
    if np.isnan(result).any() or (finite and np.isinf(result).any()):
        raise ValueError(f"{name} must be {'finite' if finite else 'free of NaN'}, got {_first_bad(result, finite)}.")
    if (result < low).any() or (result > high).any():
        raise ValueError(
            f"{name} must lie in [{low:g}, {high:g}], got values from {result.min():.6g} to {result.max():.6g}."
        )
    return result


def probabilities(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """`value` as an array of distributions over its last axis.

    ValueError unless each is non-negative and sums to 1 within 1e-8.
    """
    result = array(name, value)
    if (result < 0).any():
        raise ValueError(
            f"{name} must be non-negative, got {result.min():.6g}; pass probabilities, for example softmax(logits)."
        )
    total = result.sum(-1)
    worst = total.flat[np.abs(total - 1).argmax()]
    if abs(worst - 1) > 1e-8:
        raise ValueError(
            f"{name} must sum to 1 over its last axis, got a sum of {worst:.9g}; divide by the sum first, in 64 bits."
        )
    return result


def real(
    name: str, value: ArrayLike, *, low: float = -np.inf, high: float = np.inf, above: float | None = None
) -> NDArray[np.float64]:
    """`value`, a number or an array of numbers broadcast over prompts, as float64.

    ValueError outside [low, high], at or below `above`, or NaN.
    """
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a real number, got {type(value).__name__}; pass a number.") from error
    if result.size == 0:
        raise ValueError(f"{name} must be a number or a non-empty array of numbers, got shape {result.shape}.")
    expected = f"greater than {above:g}" if above is not None else f"in [{low:g}, {high:g}]"
    allowed = (result >= low) & (result <= high) & ((result > above) if above is not None else True)
    if not np.all(allowed):
        raise ValueError(f"{name} must be {expected}, got {result[~allowed].flat[0] if result.ndim else result:.6g}.")
    return result


def number(
    name: str, value: ArrayLike, *, low: float = -np.inf, high: float = np.inf, above: float | None = None
) -> float:
    """`value` as a float; ValueError unless it is one number, within the limits of `real`."""
    result = real(name, value, low=low, high=high, above=above)
    if result.ndim:
        raise ValueError(f"{name} must be one number, got shape {result.shape}; call once for each.")
    return float(result)


def whole(name: str, value: Any, *, low: int = 1) -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `low`."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not float(value).is_integer() or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    return int(value)


def broadcast(**arrays: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The named arrays broadcast against each other; ValueError, naming them and their shapes, where they cannot be.

    A last axis of length 1 does not stretch: the number of outputs must agree.
    """
    outputs = {value.shape[-1] for value in arrays.values()}
    try:
        if len(outputs) > 1:
            raise ValueError
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = " and ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise ValueError(
            f"{' and '.join(arrays)} must have the same outputs on the last axis and prompts that broadcast, got "
            f"shapes {shapes}."
        ) from None


def _first_bad(values: NDArray[np.float64], finite: bool) -> str:
    """The first infinite (if `finite`) or NaN entry and its index, in words."""
    bad = ~np.isfinite(values) if finite else np.isnan(values)
    return f"{values[bad][0]} at index {tuple(int(i) for i in np.argwhere(bad)[0])}"
