"""A language small enough to learn in seconds: short reviews, a transformer of 0.1 million parameters, a ground truth.

    prompt   i heard the FOOD was AWFUL . how was the HOTEL ?
    reply    the staff was very nice but the room was not clean .

Two ways of writing share the grammar and differ in their adjectives: `plain` and `vivid`. A policy taught one of them
rarely writes the other's words, so preferences over the other's replies are off-policy for it. The ground truth is
VADER's compound score of the reply, which knows negation, emphasis and "but". Writers tend to agree with what was
heard, so rewards differ between prompts, as they do in real data; and a reward model can mistake what was asked for
what was answered.
"""

from collections.abc import Sequence

import numpy as np

from rvlib.lm.data.prompts import Prompt

TINY = "tiny"
ADJECTIVES = {
    "plain": "good nice fine pleasant useful friendly clean happy calm fair comfortable solid "
    "bad poor dull boring weak dirty rude tired sad lame useless lazy",
    "vivid": "superb brilliant wonderful amazing fantastic excellent "
    "glorious perfect beautiful splendid heavenly fabulous "
    "awful horrible terrible dreadful disgusting appalling pathetic miserable horrific lousy nasty vile",
}
PARTS = "staff food room view music service price garden light story".split()
PLACES = "hotel park concert school cafe museum market beach library station theatre harbour".split()
GLUE = "[PAD] [EOS] [USER] [ASSISTANT] i heard the was . how ? and but very not really".split()
WORDS = [*GLUE, *PARTS, *PLACES, *ADJECTIVES["plain"].split(), *ADJECTIVES["vivid"].split()]
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}[USER] {{ m.content }} [ASSISTANT]{% else %} {{ m.content }} [EOS]{% endif %}"
    "{% endfor %}"
)


def prompts(count: int, seed: int) -> list[Prompt]:
    """`count` different prompts without a reference reply, drawn by `seed`. ValueError if there are not that many."""
    questions = [
        (part, adjective, place)
        for part in PARTS
        for adjective in " ".join(ADJECTIVES.values()).split()
        for place in PLACES
    ]
    if count > len(questions):
        raise ValueError(f"count must be at most {len(questions)}, the number of different prompts, got {count}.")
    indices = np.random.default_rng(seed).choice(len(questions), count, replace=False)
    return [
        Prompt("-".join(questions[i]), "i heard the {} was {} . how was the {} ?".format(*questions[i]), "")
        for i in indices
    ]


def replies(register: str, prompts: Sequence[Prompt], *seed_path: int) -> list[str]:
    """A text for each of `prompts` in a register, a key of `ADJECTIVES`, of one to three clauses.

    An adjective is of the mood of the prompt's with probability 0.9, and of the other register's with probability 0.05.
    seed_path: whole numbers, as of `seeding.torch_seed`.
    """
    rng, own_register = np.random.default_rng(seed_path), list(ADJECTIVES).index(register)
    words = [[ADJECTIVES[name].split()[:12], ADJECTIVES[name].split()[12:]] for name in ADJECTIVES]
    negative = {word for by_mood in words for word in by_mood[1]}

    def clause(mood: int) -> str:
        adverb = rng.choice(["", "very ", "really ", "not "], p=[0.6, 0.2, 0.1, 0.1])
        by_mood = words[own_register if rng.random() < 0.95 else 1 - own_register]
        return f"the {rng.choice(PARTS)} was {adverb}{rng.choice(by_mood[mood if rng.random() < 0.9 else 1 - mood])}"

    def text(mood: int) -> str:
        clauses = clause(mood)
        for _ in range(rng.choice(3, p=[0.3, 0.5, 0.2])):
            clauses += f" {rng.choice(['and', 'but'], p=[0.7, 0.3])} {clause(mood)}"
        return clauses + " ."

    return [text(int(prompt.text.split()[5] in negative)) for prompt in prompts]
