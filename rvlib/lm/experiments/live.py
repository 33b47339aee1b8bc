"""Policy gradient on the tiny language model, live, under teachers of a chosen noise and share of flattened prompts.

    r(x, y) = s(x) · ( √(1 - ν²) r_G(x, y) + ν σ ξ(x, y) ),      s(x) = 0.001 on a share of the prompts, 1 on the rest

r_G is the ground truth, σ its root mean variance within prompts, ξ a standard normal number fixed for each reply: noise
ν lowers the correlation within prompts to √(1 - ν²), and accuracy with it; flattened prompts lower reward variance
there without touching the order of a single pair. Then the teacher is normalised, as any.
"""

import hashlib
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rvlib import metrics, plots
from rvlib.files import data_folder
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments import stages, teachers
from rvlib.lm.experiments.recipe import Recipe
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.models import policies
from rvlib.lm.sampling.replies import ReplyRecord
from rvlib.lm.training import policy_gradient

if TYPE_CHECKING:  # only `panel` needs widgets
    import ipywidgets
    import plotly.graph_objects

Point = dict[str, float]
"""An evaluation while a policy is trained: {"step", "proxy", "ground_truth", "kl"}."""
CHANGES = [  # which make the recipe small enough to watch
    "policy_gradient.epochs=3",
    "evaluation.prompts=32",
    "evaluation.num_generations=8",
    "evaluation.per_epoch=4",
    "measure.prompts=64",
    "data.prompts=1280",
]
FLAT = 0.001  # the factor of flattened prompts, the paper's


class World:
    """The tiny policy after its fine-tuning, its prompts, and its ground truth.

    Made in the data folder the first time, in about half a minute.
    """

    recipe: Recipe
    run: Run
    name: str  # of the policy
    start: pathlib.Path  # its folder
    prompts: list[Prompt]  # of policy gradient
    records: list[ReplyRecord]  # of replies to the first of them, on which teachers are measured
    truth: NDArray[np.float64]  # the ground truth of these replies, (prompts, replies), before normalisation

    def __init__(self, folder: str | pathlib.Path | None = None) -> None:
        self.recipe = recipes.load("tiny-4.1", CHANGES)
        self.run = Run(self.recipe, folder or data_folder() / "runs/live")
        (self.name,) = self.recipe.policies
        with self.run.lock():
            self.start = stages.sft(self.run, self.name)
            self.prompts = stages.split(self.run).prompts
            self.records = stages.initial_replies(self.run, self.name).measured
            self.truth = np.array(stages.labels(self.run, self.name)["measure"])
        self.ground_truth = teachers.normalized_ground_truth(self.run, self.name)

    @cached_property
    def spread(self) -> float:
        """σ, in the unit in which `ground_truth` gives it."""
        return float(np.sqrt(metrics.reward_variance(metrics.Normalizer.fit(self.truth).transform(self.truth)).mean()))

    def teacher(self, noise: float = 0.0, flattened: float = 0.0, seed: int = 0) -> "Teacher":
        """A `Teacher` of noise ν in [0, 1] whose rewards are flattened on a share of the prompts in [0, 1]."""
        return Teacher(self, noise, flattened, seed)

    def train(
        self,
        teacher: "Teacher",
        on_point: Callable[[list[Point]], object] | None = None,
        *,
        seed: int = 0,
        stop: threading.Event | None = None,
        changes: Iterable[str] = (),
    ) -> list[Point]:
        """Train the policy on a teacher; returns its points and calls on_point(the list of them) as it grows.

        stop: ends the training when it is set. changes: to the recipe, ["policy_gradient.epochs=1", …].
        """
        points: list[Point] = []
        recipe = recipes.load("tiny-4.1", [*CHANGES, *changes])

        def on_step(step: int, numbers: Mapping[str, float]) -> bool:
            if "eval_kl" in numbers:
                points.append({"step": step} | {name.removeprefix("eval_"): value for name, value in numbers.items()})
                if on_point is not None:
                    on_point(points)
            return stop is not None and stop.is_set()

        policy, ref_policy = policies.load_policy(self.start), policies.load_policy(self.start)
        with tempfile.TemporaryDirectory() as folder:
            policy_gradient.train_policy(
                policy,
                ref_policy,
                teacher,
                self.ground_truth,
                self.prompts,
                recipe,
                folder,
                seed=seed,
                label=teacher.name,
                on_step=on_step,
            ).finish()
        return points


@dataclass(frozen=True)
class Teacher:
    """A function of prompts and lists of replies, and what can be measured of it before it has taught anything."""

    world: World
    noise: float
    flattened: float
    seed: int

    @property
    def name(self) -> str:
        """How it is called in a figure."""
        return f"noise {self.noise:.2f}, {self.flattened:.0%} flat"

    def raw(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards before normalisation, (prompts, replies)."""
        truth = self.world.ground_truth(prompts, replies)
        xi = np.array(
            [
                [_normal(prompt.name, reply, self.seed) for reply in of_prompt]
                for prompt, of_prompt in zip(prompts, replies)
            ]
        )
        return self._scale(prompts) * (np.sqrt(1 - self.noise**2) * truth + self.noise * self.world.spread * xi)

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards, normalised, (prompts, replies)."""
        return self._normalizer.transform(self.raw(prompts, replies))

    @cached_property
    def measured(self) -> NDArray[np.float64]:
        """Rewards of the initial policy's measured replies, (prompts, replies), normalised jointly."""
        return self._normalizer.transform(self._raw_measured)

    @property
    def accuracy(self) -> float:
        """Mean on-policy accuracy."""
        return float(metrics.ranking_accuracy(self.measured, self.world.truth).mean())

    @property
    def variance(self) -> float:
        """Mean reward variance."""
        return float(metrics.reward_variance(self.measured).mean())

    @property
    def covariance(self) -> float:
        """Mean within-prompt covariance with the ground truth in its own normalised units."""
        truth = metrics.Normalizer.fit(self.world.truth).transform(self.world.truth)
        return float(metrics.reward_covariance(self.measured, truth).mean())

    def _scale(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        # An offset, as the recipe's ground truth has one, would make flattened prompts stand apart; here the mean is 0.
        names = [prompt.name for prompt in self.world.prompts]
        order = np.random.default_rng(8122).permutation(len(names))
        flat = {names[i] for i in order[: round(self.flattened * len(names))]}
        return np.array([[FLAT if prompt.name in flat else 1.0] for prompt in prompts])

    @cached_property
    def _raw_measured(self) -> NDArray[np.float64]:
        return self.raw(
            self.world.prompts[: len(self.world.records)], [record["replies"] for record in self.world.records]
        )

    @cached_property
    def _normalizer(self) -> metrics.Normalizer:
        return metrics.Normalizer.fit(self._raw_measured)


LABELS = {
    "ground_truth": "ground truth reward",
    "proxy": "proxy reward",
    "kl": "KL to the initial policy, nats",
}


def figure(
    curves: Mapping[str, Sequence[Point]], world: World, value: str = "ground_truth"
) -> "plotly.graph_objects.Figure":
    """The figure of {teacher's name: points}: a reward ("ground_truth" or "proxy") or "kl" against the epoch."""
    steps_per_epoch = len(world.prompts) / world.recipe.policy_gradient.batch_size
    label = LABELS[value]
    alt = f"{label} against the epoch, for each teacher that has taught so far"
    drawn = plots.trajectories({}, np.zeros(1), value=label, time="epoch", alt=alt)
    for name, points in curves.items():
        drawn.add_scatter(
            x=[point["step"] / steps_per_epoch for point in points],
            y=[point[value] for point in points],
            name=name,
            mode="lines+markers",
            line_width=2.5,
        )
    return drawn


def panel(world: World) -> "ipywidgets.VBox":
    """Sliders for a teacher, its accuracy and variance, buttons that train on it and that stop, and a growing figure.

    It trains in a thread of its own, so the buttons answer while it does. `curves` of the returned box has all points,
    {teacher's name: points}, and `thread` the training, or None.
    """
    import ipywidgets as widgets  # only here: `World` and `Teacher` do without a notebook
    import plotly.graph_objects as go

    def slider(label: str, largest: float) -> widgets.FloatSlider:
        return widgets.FloatSlider(value=0.0, min=0, max=largest, step=0.05, description=label, continuous_update=False)

    noise, flattened = slider("noise", 0.95), slider("flattened", 0.9)
    value = widgets.ToggleButtons(options=[("ground truth", "ground_truth"), ("proxy", "proxy"), ("KL", "kl")])
    train, stop, clear = (widgets.Button(description=label) for label in ("train", "stop", "clear"))
    description, view, stopped = widgets.Label(), go.FigureWidget(figure({}, world)), threading.Event()

    class Panel(widgets.VBox):
        curves: dict[str, list[Point]]
        thread: threading.Thread | None

        def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # with the figure for where no widget is shown
            drawn = figure(self.curves, world, value.value)
            return super()._repr_mimebundle_(**kwargs) | {"text/html": drawn._repr_mimebundle_()["text/html"]}

    box = Panel([widgets.HBox([noise, flattened]), description, widgets.HBox([train, stop, clear, value]), view])
    box.curves, box.thread, stop.disabled = {}, None, True

    def draw(*_: Any) -> None:
        new = figure(box.curves, world, value.value)
        with view.batch_update():
            view.data = ()
            view.add_traces(new.data)
            view.layout.yaxis.title = new.layout.yaxis.title

    def describe(*_: Any) -> None:
        teacher = world.teacher(noise.value, flattened.value)
        description.value = (
            f"accuracy {teacher.accuracy:.2f}, reward variance {teacher.variance:.2f}, "
            f"covariance with the ground truth {teacher.covariance:.2f}"
        )

    def work(teacher: Teacher) -> None:
        def on_point(points: list[Point]) -> None:
            box.curves[teacher.name] = list(points)
            draw()

        try:
            world.train(teacher, on_point, stop=stopped)
        finally:
            train.disabled, stop.disabled = False, True

    def begin(_: Any) -> None:
        stopped.clear()
        train.disabled, stop.disabled = True, False
        box.thread = threading.Thread(target=work, args=(world.teacher(noise.value, flattened.value),), daemon=True)
        box.thread.start()

    def forget(_: Any) -> None:
        box.curves.clear()
        draw()

    train.on_click(begin)
    stop.on_click(lambda _: stopped.set())
    clear.on_click(forget)
    value.observe(draw, "value")
    noise.observe(describe, "value")
    flattened.observe(describe, "value")
    describe()
    return box


def _normal(*key: object) -> float:
    """A standard normal number that depends on `key` alone."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return float(ndtri((int.from_bytes(digest, "big") + 0.5) / 2**64))
