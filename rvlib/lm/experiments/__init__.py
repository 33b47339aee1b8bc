"""Whole experiments: recipes, the stages of a run, what it costs, what it shows, and how fast each part of it is.

This room may import every other room. `recipe`, `cost`, `plan` and `report` need neither torch nor transformers. Start
with `run.run`.
"""
