"""A run: a recipe, the folder that it claims, and the models that its stages keep loaded.

recipe.json claims the folder for one recipe, and `lock` keeps a second process out.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import filelock

from rvlib.files import write_text
from rvlib.lm import processes
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.recipe import Recipe
from rvlib.lm.models import RewardFunction, reward_models
from rvlib.lm.models.reward_functions import FixedReward
from rvlib.lm.optim.frozen import share_out


class Run:
    """A recipe and its folder. ValueError, one sentence, if the folder holds a run of another recipe."""

    recipe: Recipe
    folder: pathlib.Path
    progress = True  # whether a training shows a bar of its own

    def __init__(self, recipe: Recipe, folder: str | pathlib.Path) -> None:
        self.recipe, self.folder = recipe, pathlib.Path(folder)
        processes.only_first(self._claim)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder / "recipe.lock"):  # jobs of an array begin together
            self._claim_locked()

    def _claim_locked(self) -> None:
        path = self.folder / "recipe.json"
        if path.exists():
            try:
                claimed = recipes.validated(json.loads(path.read_text()))
            except ValueError as error:
                raise ValueError(
                    f"The folder {self.folder} must hold a run whose recipe.json this version reads, but: {error} "
                    "Choose another with --folder, or delete it."
                ) from None
            if differ := recipes.deviations(self.recipe, claimed):
                raise ValueError(
                    f"The folder {self.folder} holds a run of another recipe, which differs in {', '.join(differ)}; "
                    "choose another with --folder, or delete it."
                )
        write_text(path, json.dumps(self.recipe.model_dump(mode="json"), indent=1))

    @contextlib.contextmanager
    def lock(self, folder: pathlib.Path | None = None, *, wait: bool = False) -> Iterator[None]:
        """Keep every other process out of the run's folder, or of one in it.

        wait: for a process that is in it. RuntimeError, one sentence, if one is in it and this is not to wait.
        """
        folder = folder or self.folder
        lock = filelock.FileLock(folder / "lock", timeout=-1 if wait else 0)

        def acquire() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise RuntimeError(
                    f"The folder {folder} is in use by another run; wait for it, or choose another with --folder."
                ) from None

        processes.only_first(acquire)
        try:
            yield
        finally:
            lock.release()

    def forget(self) -> None:
        """Free the models that are kept from stage to stage."""
        self.__dict__.pop("_ground_truth", None)

    @cached_property
    def _ground_truth(self) -> RewardFunction:
        ground_truth = self.recipe.ground_truth
        return self.load_reward_model(ground_truth.model, ground_truth.trust_remote_code, reward_models.GROUND_TRUTH)

    def ground_truth(self) -> RewardFunction:
        """The ground truth reward."""
        return self._ground_truth

    def load_reward_model(
        self,
        model: str | pathlib.Path,
        trust_remote_code: bool = False,
        role: str = reward_models.REWARD_MODEL,
    ) -> RewardFunction:
        """A reward model by its name or folder, in the precision of what is only read."""
        runtime = self.recipe.runtime
        reward = reward_models.load_reward_model(
            str(model), dtype=runtime.frozen_dtype, trust_remote_code=trust_remote_code, role=role
        )
        if isinstance(reward, FixedReward):
            return reward
        return replace(reward, sharing=share_out(reward.model, runtime.frozen_placement))
