"""A transformer small enough to sum over all its outputs, and what the theorems say of it.

`study`, `rarity`, `remedies` and `teaching` each train such transformers and write a file of numbers for the book. This
room may import `rvlib.lm.training` and what is below it, `rvlib.predictors` and `rvlib.tabular`. Start with
`enumeration.Enumeration`.
"""
