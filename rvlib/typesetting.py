"""Numbers as print has them, in the text of pages and in the words of figures."""

import re
from typing import Any

_WORDS = ("name", "text", "ticktext", "title")  # the keys of a figure under which words stand


def typeset_text(words: str) -> str:
    """Words in which numbers have the signs of print: −0.5 and 10³⁷ where a program writes -0.5 and 1e+37."""
    words = re.sub(r"(?<![\w.)-])-(?=\.?\d)", "−", words)
    return re.sub(r"(?<![\w.])(−?\d+(?:\.\d+)?)e([+-]\d+)\b", _power, words)


def _power(written: re.Match[str]) -> str:
    """A number that a program wrote with an exponent (its groups: the digits, the exponent), as a power of ten."""
    raised = str(int(written[2])).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {"1": "", "−1": "−"}.get(written[1], f"{written[1]} × ") + f"10{raised}"


def typeset_figure(part: Any, key: str = "") -> Any:
    """A Plotly figure's JSON, or the part of it under `key`, with its words `typeset_text`."""
    if isinstance(part, dict):
        return {name: typeset_figure(value, name) for name, value in part.items()}
    if isinstance(part, list):
        return [typeset_figure(value, key) for value in part] if key not in ("x", "y", "z") else part
    return typeset_text(part) if isinstance(part, str) and key in _WORDS else part
