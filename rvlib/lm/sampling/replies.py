"""Replies of a policy to prompts, drawn token by token from the model itself, at temperature 1 and with nothing cut off:

    π_θ(y|x) = ∏_l softmax(f_θ(x, y_<l))_{y_l}

A reply ends with its first end-of-sequence token, or at `max_new_tokens`. Prompts go through in batches of similar length;
each batch is a file, written whole and seeded by its number, so a run that was cut off goes on where it stopped and ends
with the very replies of one that was not.
"""

import json
import pathlib
import time
from dataclasses import asdict, dataclass

import torch

from rvlib import _checks
from rvlib.files import fingerprint
from rvlib.lm import processes
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt, end_token_ids
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn: `samples` for each prompt, each of at most `max_new_tokens` tokens, at `temperature`."""

    samples: int = 16
    max_new_tokens: int = 64
    temperature: float = 1.0
    prompts_per_batch: int = 8
    seed: int = 0

    def __post_init__(self):
        for name in ("samples", "max_new_tokens", "prompts_per_batch"):
            _checks.whole(name, getattr(self, name))
        _checks.whole("seed", self.seed, low=0)
        _checks.real("temperature", self.temperature, above=0.0)


def sample_replies(
    policy, prompts, folder, sampling=Sampling(), *, engine="generate", rows=None, server=None, progress=True
):
    """Replies of `policy` to each of `prompts`, in their order: dictionaries with `prompt` (its name), `replies` (texts),
    `tokens` (lists of ids, the ending one included), `ended` (whether there was one) and `log_probs` (of whole replies, in nats).
    engine, rows, server: as in `generate`.

    Batches already in `folder` are read, not drawn again. ValueError, in one sentence, if `folder` holds those of other
    settings, prompts or weights, or if there are no prompts or two of one name.
    """
    from tqdm import tqdm

    folder, names = pathlib.Path(folder), [prompt.name for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"prompts must be at least one, each with a name of its own, got {len(names)} with {len(set(names))} different names."
        )
    settings = asdict(sampling) | {"policy": policy.source, "prompts": fingerprint([[p.name, p.text] for p in prompts])}
    settings |= {} if engine == "generate" else {"engine": engine}
    processes.only_first(lambda: _claim(folder, settings))
    by_length = sorted(prompts, key=lambda prompt: len(encode_prompt(policy.tokenizer, prompt.text)))
    size = sampling.prompts_per_batch
    batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
    numbered = list(enumerate(batches))
    mine = processes.share(numbered) if engine in engines.PADDED else numbered if processes.first() else []
    for number, batch in tqdm(mine, desc="Sampling", unit="batch", disable=not progress or not processes.first()):
        path = folder / f"batch-{number:04d}.jsonl"
        if not path.exists():
            start = time.perf_counter()
            lines = [
                json.dumps(record) + "\n" for record in _draw(policy, batch, sampling, number, engine, rows, server)
            ]
            partial = path.with_suffix(".partial")
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(path)
            with (folder / "seconds.txt").open("a") as clock:
                clock.write(f"{time.perf_counter() - start:.2f}\n")
    processes.gather([])  # all have written
    return read_replies(folder, prompts)


def read_replies(folder, prompts):
    """The records of a folder that `sample` has filled, in the order of `prompts`, with no need of the policy."""
    records = {}
    for path in sorted(pathlib.Path(folder).glob("batch-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            records[record["prompt"]] = record
    return [records[prompt.name] for prompt in prompts]


def sampling_seconds(folder):
    """How long the batches in `folder` took to draw, all together, however often the run was cut off."""
    return sum(map(float, (folder / "seconds.txt").read_text().split()))


def _draw(policy, batch, sampling, number, engine, rows, server):
    """One record for each prompt of a batch: every reply drawn at once, the prompts padded on the left."""
    prompts, ends = [encode_prompt(policy.tokenizer, prompt.text) for prompt in batch], end_token_ids(policy)
    with torch.random.fork_rng(devices=processes.generators()):
        torch.manual_seed(sampling.seed * 1_000_003 + number)
        tokens = generate(
            policy,
            prompts,
            sampling.samples,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            engine=engine,
            rows=rows,
            server=server,
        )
    repeated = [prompt for prompt in prompts for _ in range(sampling.samples)]
    totals = log_probs(policy, repeated, tokens, temperature=sampling.temperature)
    for i, prompt in enumerate(batch):
        mine = slice(i * sampling.samples, (i + 1) * sampling.samples)
        yield {
            "prompt": prompt.name,
            "text": prompt.text,
            "replies": decode_replies(policy, tokens[mine]),
            "tokens": tokens[mine],
            "ended": [row[-1] in ends for row in tokens[mine]],
            "log_probs": totals[mine],
        }


def _claim(folder, settings):
    """Write `settings` into a new folder, or check that an old one has the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        differ = [key for key in settings if before.get(key) != json.loads(json.dumps(settings[key]))]
        if differ:
            raise ValueError(
                f"folder must be new or hold a run of the same settings, got {folder} with another {' and '.join(differ)}; choose another folder, or delete it."
            )
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(settings, indent=1))
    partial.replace(path)
