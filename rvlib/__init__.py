"""rvlib: what a reward model teaches a policy, computed (arXiv 2503.15477).

`metrics` and `tabular` are the exact world, `lm` the language models, `explore` the book's figures, and `audit` a
verdict on a reward model of yours. Who may import whom is drawn in ARCHITECTURE.md, and importing this package imports
none of them. Start with `metrics`, or with `cli` for what the commands do.
"""

__version__ = "0.1.0"
