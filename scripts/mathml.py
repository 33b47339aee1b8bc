"""Formulas as MathML, which browsers set themselves: until MathJax has typeset them, and for readers without scripts.

The MathML stands beside the TeX that MathJax reads, and `site_static/site.css` shows one of the two. A formula that
math-core cannot convert stays TeX. No line ends between a formula in a line and its punctuation.
"""

import html
import re

from math_core import LatexError, LatexToMathML

FORMULA = re.compile(
    r"(?P<opening>[(\[]?)"
    r'(?P<start><(?P<tag>span|div) class="math notranslate nohighlight"[^>]*>\s*(?:<span class="eqno">.*?</span>)?)'
    r"(?P<tex>\\[(\[](?P<inner>[^<]*)\\[)\]])</(?P=tag)>"
    r"(?P<closing>[,.;:!?)\]’]*)"
)
CONVERTER = LatexToMathML(fancy_error=False)


def _with_mathml(formula: re.Match[str]) -> str:
    """A formula as Sphinx writes it, with its MathML before its TeX."""
    opening, start, tag, tex, closing = formula.group("opening", "start", "tag", "tex", "closing")
    # What Sphinx puts around a formula of several lines is LaTeX's name for `aligned` with a number.
    inner = html.unescape(formula["inner"]).replace("{split}", "{aligned}")
    try:
        mathml = CONVERTER.convert_with_local_state(inner, displaystyle=tag == "div")
    except LatexError:
        return formula[0]
    both = f'{opening}{start}{mathml}<{tag} class="rv-tex">{tex}</{tag}></{tag}>{closing}'
    return f'<span class="rv-unbroken">{both}</span>' if tag == "span" and opening + closing else both


def beside_tex(page: str) -> str:
    """A page's HTML with the MathML of its formulas; those that have theirs stay as they are."""
    return FORMULA.sub(_with_mathml, page)
