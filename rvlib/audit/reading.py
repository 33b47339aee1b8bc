"""How the models of an audit read texts, in sentences for its report: templates, tokens, and what rounding changes."""

import json

from rvlib.audit.outcome import Outcome

LARGE_NOISE = 0.05  # of a reward's standard deviation: noise above it is reported
SHOWN = 200  # characters of a text at its beginning, and as many at its end


def reading_notes(audit: Outcome) -> list[str]:
    """How each model reads texts, in sentences: what it lacks, and one reply as each reward model reads it."""
    sentences = []
    if audit.policy.get("chat_template") is False:
        sentences.append(f"{audit.policy['name']} has no chat template: it gets the text of a prompt alone.")
    measurements = dict(audit.reward_models) | (
        {} if audit.ground_truth_measurements is None else {str(audit.ground_truth): audit.ground_truth_measurements}
    )
    for name, measured in measurements.items():
        sentences += [f"{name}: {note}" for note in measured.get("notes", [])]
        if example := measured.get("example"):
            text, last = json.dumps(_shortened(example["text"]), ensure_ascii=False), ", ".join(example["last_tokens"])
            sentences.append(
                f"{name} reads the first reply to {example['prompt']} as {text}; the last tokens are {last}, and the "
                f"reward is read off {example['reads']}."
            )
        if measured.get("noise", 0.0) > 0 == measured["scale"]:
            sentences.append(
                f"Rewards of {name} differ by no more than what rounding changes, {measured['noise']:.2g}."
            )
        if measured.get("noise", 0.0) > LARGE_NOISE * measured["scale"] > 0:
            sentences.append(
                f"{name} gives a reply another reward alone than in a batch, or in another precision, by "
                f"{measured['noise'] / measured['scale']:.0%} of its standard deviation: do not trust smaller "
                "differences."
            )
    return sentences


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} … {text[-SHOWN:]}"
