"""Formulas as MathML, for readers without scripts: beside each formula's TeX, which MathJax typesets where scripts run.

The MathML stands in a `<noscript>`, which a browser that runs scripts does not read; `site_static/site.css` hides the
TeX before it. A formula that math-core cannot convert stays TeX. A formula in a line has its letters in `data-letters`,
which are shown until it is typeset, and no line ends between it and its punctuation.
"""

import html
import re

from math_core import LatexError, LatexToMathML

FORMULA = re.compile(
    r'(?P<opening>[(\[]?)<(?P<tag>span|div) class="math notranslate nohighlight"[^>]*>\s*'
    r'(?P<number><span class="eqno">.*?</span>)?\\[(\[](?P<tex>[^<]*)\\[)\]]</(?P=tag)>(?!<noscript>)'
    r"(?P<closing>[,.;:!?)\]’]*)"
)
CONVERTER = LatexToMathML(fancy_error=False)


def _with_mathml(formula: re.Match[str]) -> str:
    """A formula as Sphinx writes it, followed by its MathML, and held together with the punctuation around it."""
    opening, closing = formula["opening"], formula["closing"]
    written = formula[0].removeprefix(opening).removesuffix(closing)
    displayed = formula["tag"] == "div"
    # What Sphinx puts around a formula of several lines is LaTeX's name for `aligned` with a number.
    tex = html.unescape(formula["tex"]).replace("{split}", "{aligned}")
    try:
        mathml = CONVERTER.convert_with_local_state(tex, displaystyle=displayed)
    except LatexError:
        return formula[0]
    if displayed:
        mathml = f'<div class="math">{formula["number"] or ""}{mathml}</div>'
    else:
        letters = html.escape(html.unescape(re.sub("<[^>]*>", "", mathml)).strip())
        written = written.replace("<span ", f'<span data-letters="{letters}" ', 1)
    beside = f"{opening}{written}<noscript>{mathml}</noscript>{closing}"
    return f'<span class="rv-unbroken">{beside}</span>' if not displayed and opening + closing else beside


def beside_tex(page: str) -> str:
    """A page's HTML with the MathML of its formulas; those that have theirs stay as they are."""
    return FORMULA.sub(_with_mathml, page)
