"""Controls of explorables: sliders, choices and toggles, each of them a trait of the class."""

import traitlets

# Groups of controls that several explorables have.
REWARD_MODEL, POLICY = "Reward model", "Policy and outputs"
TONES = {  # colours of the controls of two teachers side by side
    f"{kind} {letter}": letter.lower() for kind in ("Teacher", "Reward model", "Rewards by teacher") for letter in "AB"
}


def slider(
    default: float,
    low: float,
    high: float,
    step: float,
    *,
    group: str,
    label: str,
    log: bool = False,
    zero: bool = False,
    whole: bool = False,
    tone: str = "",
    help: str = "",
) -> traitlets.TraitType:
    """A number in [low, high] with a slider.

    log: steps are of log10; zero: 0 is allowed too, at the slider's left end.
    """
    kind = traitlets.CInt if whole else traitlets.CFloat
    control = dict(
        kind="slider",
        min=low,
        max=high,
        step=step,
        group=group,
        label=label,
        log=log,
        zero=zero,
        whole=whole,
        tone=tone,
        help=help,
    )
    return kind(default, min=0 if zero else low, max=high, help=help).tag(sync=True, control=control)


def kl_slider(
    low: float,
    high: float,
    *,
    group: str,
    step: float = 0.1,
    label: str = "KL coefficient <i>λ</i>",
    help: str = "Weight of the KL divergence from the initial policy",
) -> traitlets.TraitType:
    """The KL coefficient, 0 by default or from `low` to `high`; steps are of log10."""
    return slider(0.0, low, high, step, group=group, label=label, log=True, zero=True, help=help)


def gain_slider(
    default: float, low: float, high: float, *, group: str, step: float = 0.01, tone: str = "truth", help: str
) -> traitlets.TraitType:
    """The gain γ of a reward."""
    return slider(default, low, high, step, group=group, label="gain <i>γ</i>", tone=tone, help=help)


def toggle(default: bool, *, group: str, label: str, help: str = "") -> traitlets.TraitType:
    """A truth value with a checkbox."""
    return traitlets.CBool(default, help=help).tag(
        sync=True, control=dict(kind="toggle", group=group, label=label, help=help)
    )


def choice(options: dict[str, str], *, group: str, label: str, help: str = "") -> traitlets.TraitType:
    """One of `options`, {value: label}, the first by default."""
    control = dict(kind="choice", options=list(options.items()), group=group, label=label, help=help)
    return traitlets.Enum(list(options), default_value=next(iter(options)), help=help).tag(sync=True, control=control)


def main_controls(*keys: str) -> traitlets.TraitType:
    """The controls that stand beside the picture, by the names of their parameters; the others are folded."""
    return traitlets.List(traitlets.Unicode(), list(keys)).tag(sync=True)


def accuracy_slider(default: float, group: str = REWARD_MODEL, label: str = "accuracy") -> traitlets.TraitType:
    """The accuracy of a reward model."""
    return slider(
        default,
        0,
        1,
        0.01,
        group=group,
        label=label,
        tone=TONES.get(group, "proxy"),
        help="Share of the pairs of outputs in the right order; the nearest attainable one is taken",
    )


def variance_slider(default: float, group: str = REWARD_MODEL, label: str = "reward variance") -> traitlets.TraitType:
    """The reward variance of a reward model under the initial policy."""
    return slider(
        default,
        1e-6,
        1,
        0.02,
        group=group,
        label=label,
        tone=TONES.get(group, "proxy"),
        log=True,
        help="Variance of the reward under the initial policy; at most what the accuracy allows",
    )


def metric_choice(group: str) -> traitlets.TraitType:
    """The metric of the gradient: in the logits, or natural."""
    return choice(
        {"euclidean": "gradient in the logits", "natural": "natural gradient"},
        group=group,
        label="The metric of the gradient",
        help="What the length of a step is measured by: the change of the logits, or the change of the policy",
    )


def length_slider(high: int) -> traitlets.TraitType:
    """The number of tokens L of an output."""
    return slider(3, 1, high, 1, group="Outputs", label="tokens <i>L</i>", whole=True, help="Length of an output")


def vocabulary_slider() -> traitlets.TraitType:
    """How many tokens an autoregressive policy chooses from."""
    return slider(
        3, 2, 4, 1, group="Outputs", label="vocabulary", whole=True, help="How many tokens there are to choose from"
    )


def outputs_slider(default: float, high: float, low: float = 2) -> traitlets.TraitType:
    """How many outputs the policy has."""
    return slider(default, low, high, 1, group=POLICY, label="outputs", whole=True, help="How many outputs there are")


def peakedness_slider(default: float, high: float = 4) -> traitlets.TraitType:
    """How far the policy's random logits spread."""
    return slider(
        default,
        0,
        high,
        0.05,
        group=POLICY,
        label="peakedness",
        help="Standard deviation of the policy's random logits: 0 gives an even policy",
    )


def skill_slider(default: float, low: float = -4, high: float = 4) -> traitlets.TraitType:
    """How much the policy leans to good outputs."""
    return slider(
        default,
        low,
        high,
        0.05,
        group=POLICY,
        label="skill",
        help="How much the policy's logits lean to good outputs (above 0) or to bad ones",
    )


def seed_slider(
    default: float = 1,
    *,
    group: str = POLICY,
    help: str = "Other outputs, another policy and another reward model, alike in what the other sliders say",
) -> traitlets.TraitType:
    """Which random outputs, policy and reward model are drawn."""
    return slider(default, 1, 40, 1, group=group, label="seed", whole=True, help=help)
