"""Whole experiments: recipes, the stages of a run, what it costs, what it shows, and how fast each part of it is.

This room may import every room of `rvlib.lm` but `enumerable`, and what is below; `recipe`, `cost` and `report` need
neither torch nor transformers, and `planning` only to ask this machine. Start with `run.run`, which goes through the
stages of a run in order: `stages`, `teachers`, `trainings`.
"""
