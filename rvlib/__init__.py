"""rvlib: what a reward model teaches a policy, computed (arXiv 2503.15477)."""

__version__ = "0.1.0"
