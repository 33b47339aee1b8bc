"""Policy gradient on the tiny language model while you watch: teachers made to measure, curves that grow, a button that stops.

    r(x, y) = s(x) · ( √(1 - ν²) r_G(x, y) + ν σ ξ(x, y) ),      s(x) = 0.001 on a share of the prompts, 1 on the rest

r_G is the ground truth, σ its root mean variance within prompts, ξ a standard normal number fixed for each reply: noise ν lowers the
correlation within prompts to √(1 - ν²), and accuracy with it; flattened prompts lower reward variance there without touching the
order of a single pair. Then the teacher is normalised, as any.
"""

import hashlib
import tempfile
import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rvlib import metrics, plots
from rvlib.files import data_folder
from rvlib.lm import need
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments import stages
from rvlib.lm.experiments.run import Run
from rvlib.lm.models import policies
from rvlib.lm.training import policy_gradient

SMALLER = [
    "policy_gradient.epochs=3",
    "evaluation.prompts=32",
    "evaluation.outputs=8",
    "evaluation.per_epoch=4",
    "measure.prompts=64",
    "data.prompts=1280",
]
FLAT = 0.001  # the paper's factor


class World:
    """The tiny policy after its fine-tuning, its prompts, and its ground truth; made in the data folder the first time, in about half a minute."""

    def __init__(self, folder=None):
        self.recipe = recipes.load("tiny-4.1", SMALLER)
        self.run = Run(self.recipe, folder or data_folder() / "runs/live")
        (self.name,) = self.recipe.policies
        with self.run.lock():
            self.start = stages.sft(self.run, self.name)
            self.prompts = stages.split(self.run).prompts
            self.records = stages.samples(self.run, self.name).measured
            self.truth = np.array(stages.labels(self.run, self.name)["measure"])
        self.judge = self.run.judged(self.name)

    @cached_property
    def spread(self):
        """σ, in the unit in which `judge` gives the ground truth."""
        return float(np.sqrt(metrics.reward_variance(metrics.Normalizer.fit(self.truth).transform(self.truth)).mean()))

    def teacher(self, noise=0.0, flattened=0.0, seed=0):
        """A `Teacher` of noise ν in [0, 1] whose rewards are flattened on a share of the prompts in [0, 1]."""
        return Teacher(self, noise, flattened, seed)

    def train(self, teacher, on_point=None, *, seed=0, stop=None, changes=()):
        """Train the policy on a teacher; returns [{"step", "proxy", "ground_truth", "kl"}, …] and calls on_point(that list) as it grows.

        stop: a threading.Event that ends the training when it is set. changes: to the recipe, ["policy_gradient.epochs=1", …].
        """
        points, recipe = [], recipes.load("tiny-4.1", [*SMALLER, *changes])

        def on_step(step, numbers):
            if "eval_kl" in numbers:
                points.append({"step": step} | {name.removeprefix("eval_"): value for name, value in numbers.items()})
                if on_point is not None:
                    on_point(points)
            return stop is not None and stop.is_set()

        policy, reference = (policies.load_policy(self.start) for _ in range(2))
        with tempfile.TemporaryDirectory() as folder:
            policy_gradient.train_policy(
                policy,
                reference,
                teacher,
                self.judge,
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
    def name(self):
        return f"noise {self.noise:.2f}, {self.flattened:.0%} flat"

    def raw(self, prompts, replies):
        """Rewards before normalisation, (prompts, replies)."""
        truth = self.world.judge(prompts, replies)
        xi = np.array(
            [[_normal(prompt.name, reply, self.seed) for reply in some] for prompt, some in zip(prompts, replies)]
        )
        return self._scale(prompts) * (np.sqrt(1 - self.noise**2) * truth + self.noise * self.world.spread * xi)

    def __call__(self, prompts, replies):
        return self._normalizer.transform(self.raw(prompts, replies))

    @cached_property
    def measured(self):
        """Rewards of the initial policy's measured replies, (prompts, replies), normalised jointly."""
        return self._normalizer.transform(self._raw_measured)

    @property
    def accuracy(self):
        return float(metrics.ranking_accuracy(self.measured, self.world.truth).mean())

    @property
    def variance(self):
        return float(metrics.reward_variance(self.measured).mean())

    @property
    def covariance(self):
        """Mean within-prompt covariance with the ground truth in its own normalised units."""
        return float(
            metrics.reward_covariance(
                self.measured, metrics.Normalizer.fit(self.world.truth).transform(self.world.truth)
            ).mean()
        )

    def _scale(self, prompts):
        # An offset as the ground truth of the recipe has one would make flattened prompts stand apart; here the mean is 0.
        names = [prompt.name for prompt in self.world.prompts]
        flat = {
            names[i] for i in np.random.default_rng(8122).permutation(len(names))[: round(self.flattened * len(names))]
        }
        return np.array([[FLAT if prompt.name in flat else 1.0] for prompt in prompts])

    @cached_property
    def _raw_measured(self):
        return self.raw(
            self.world.prompts[: len(self.world.records)], [record["replies"] for record in self.world.records]
        )

    @cached_property
    def _normalizer(self):
        return metrics.Normalizer.fit(self._raw_measured)


def figure(curves, world, what="ground_truth"):
    """The figure of {teacher's name: points}: a reward ("ground_truth" or "proxy") or "kl" against the epoch."""
    per_epoch = len(world.prompts) / world.recipe.policy_gradient.batch_size
    words = {"ground_truth": "ground truth reward", "proxy": "proxy reward", "kl": "KL to the initial policy, nats"}[
        what
    ]
    drawn = plots.trajectories(
        {},
        np.zeros(1),
        value=words,
        time="epoch",
        alt=f"{words} against the epoch, for each teacher that has taught so far",
    )
    for index, (name, points) in enumerate(curves.items()):
        drawn.add_scatter(
            x=[p["step"] / per_epoch for p in points],
            y=[p[what] for p in points],
            name=name,
            mode="lines+markers",
            line_width=2.5,
        )
    return drawn


def panel(world):
    """Sliders for a teacher, its measured accuracy and variance, a button that trains on it and one that stops, and a figure that grows.

    It trains in a thread of its own, so the buttons answer while it does. `panel.curves` of the returned box has all points.
    """
    widgets, go = need("ipywidgets"), need("plotly.graph_objects")
    noise, flattened = (
        widgets.FloatSlider(value=value, min=0, max=most, step=0.05, description=text, continuous_update=False)
        for value, most, text in ((0.0, 0.95, "noise"), (0.0, 0.9, "flattened"))
    )
    what = widgets.ToggleButtons(options=[("ground truth", "ground_truth"), ("proxy", "proxy"), ("KL", "kl")])
    train, stop, clear = (widgets.Button(description=text) for text in ("train", "stop", "clear"))
    said, view, stopped = widgets.Label(), go.FigureWidget(figure({}, world)), threading.Event()

    class Panel(widgets.VBox):
        def _repr_mimebundle_(self, **kwargs):  # with the figure for where no widget is shown
            return super()._repr_mimebundle_(**kwargs) | {
                "text/html": figure(self.curves, world, what.value)._repr_mimebundle_()["text/html"]
            }

    box = Panel([widgets.HBox([noise, flattened]), said, widgets.HBox([train, stop, clear, what]), view])
    box.curves, box.thread, stop.disabled = {}, None, True

    def draw(*_):
        new = figure(box.curves, world, what.value)
        with view.batch_update():
            view.data = ()
            view.add_traces(new.data)
            view.layout.yaxis.title = new.layout.yaxis.title

    def describe(*_):
        teacher = world.teacher(noise.value, flattened.value)
        said.value = f"accuracy {teacher.accuracy:.2f}, reward variance {teacher.variance:.2f}, covariance with the ground truth {teacher.covariance:.2f}"

    def work(teacher):
        def on_point(points):
            box.curves[teacher.name] = list(points)
            draw()

        try:
            world.train(teacher, on_point, stop=stopped)
        finally:
            train.disabled, stop.disabled = False, True

    def begin(_):
        stopped.clear()
        train.disabled, stop.disabled = True, False
        box.thread = threading.Thread(target=work, args=(world.teacher(noise.value, flattened.value),), daemon=True)
        box.thread.start()

    def forget(_):
        box.curves.clear()
        draw()

    train.on_click(begin), stop.on_click(lambda _: stopped.set()), clear.on_click(forget)
    what.observe(draw, "value"), noise.observe(describe, "value"), flattened.observe(describe, "value")
    describe()
    return box


def _normal(*key):
    """A standard normal number that depends on `key` alone."""
    from scipy.special import ndtri

    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return float(ndtri((int.from_bytes(digest, "big") + 0.5) / 2**64))
