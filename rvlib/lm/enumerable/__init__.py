"""A transformer small enough to sum over all its outputs, and what the theorems say of it.

This room may import `rvlib.tabular`. Start with `enumeration.Enumeration`.
"""
