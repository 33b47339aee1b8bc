"""Recipes: an experiment is one YAML file, a base and its differences, read into settings whose every field is checked.

    rvlib recipes                     the recipes that ship
    rvlib recipes tiny-4.1            what one resolves to, and how it deviates from the paper

A recipe names its `base` and writes only what differs, laid into what the base says, or in its place for the fields
that it lists under `replace`. A policy or a reward model set to null is taken out. Whatever is not in `paper`, the base
of all, is a deviation from the paper's own settings (sections 4.1 and 4.2, arXiv 2503.15477).

`rvlib.lm.settings` has the groups of fields, `reward_models` the ways to come by a reward model, `recipe` all of it
together; `files` reads YAML, and `validation` says what is wrong with it. This package imports neither torch nor
transformers; `rvlib.lm.experiments.teachers` makes the reward models. Start with `files.load`.
"""

from rvlib.lm.experiments.recipe.files import FOLDER, PAPER, deviations, load, names
from rvlib.lm.experiments.recipe.recipe import Recipe
from rvlib.lm.experiments.recipe.reward_models import (
    KINDS,
    AlteredGroundTruth,
    DiscreteGroundTruth,
    LengthPraisingGroundTruth,
    NamedRewardModel,
    NoisyGroundTruth,
    RewardModelSettings,
    SaturatedGroundTruth,
    ScaledGroundTruth,
    TrainedRewardModel,
)
from rvlib.lm.experiments.recipe.validation import RENAMED, validated
from rvlib.lm.settings import (
    CHOOSABLE,
    Data,
    Evaluation,
    GroundTruth,
    LoRA,
    Measure,
    PolicyGradient,
    PolicySettings,
    RewardTrainingSettings,
    RuntimeSettings,
    TrainingSettings,
)
