"""Replies of a policy to prompts, drawn by `generation.complete` from the model itself, and kept in files.

A reply ends with its first end-of-sequence token, or at `max_new_tokens`. Prompts go through in batches of similar
length; each batch is a file, written whole and seeded by its number, so a run that was cut off goes on where it stopped
and ends with the same replies as one that was not.
"""

import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
from tqdm import tqdm

from rvlib import _checks
from rvlib.files import fingerprint, write_text
from rvlib.lm import processes
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import cuda_graph, engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt, end_token_ids
from rvlib.lm.sampling.generation import complete
from rvlib.lm.sampling.log_probs import log_probs

INSTEAD_OF = "instead_of"  # in settings.json, of the engine that was asked for where another drew


@dataclass(frozen=True)
class Sampling:
    """`num_generations` replies to each prompt, each of at most `max_new_tokens` tokens, drawn at `temperature`."""

    num_generations: int = 16
    max_new_tokens: int = 64
    temperature: float = 1.0
    prompts_per_batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_generations", "max_new_tokens", "prompts_per_batch"):
            _checks.whole(name, getattr(self, name))
        _checks.whole("seed", self.seed, low=0)
        _checks.real("temperature", self.temperature, above=0.0)


class ReplyRecord(TypedDict):
    """Replies to one prompt, a line of a file."""

    prompt: str  # its name
    text: str
    replies: list[str]
    tokens: list[list[int]]  # ids of each reply, the ending one included
    ended: list[bool]  # whether there was one
    log_probs: list[float]  # of whole replies, nats


def sample_replies(
    policy: Policy,
    prompts: Sequence[Prompt],
    folder: str | pathlib.Path,
    sampling: Sampling = Sampling(),
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    server: str | None = None,
    progress: bool = True,
) -> list[ReplyRecord]:
    """Replies of `policy` to each of `prompts`, in their order. engine, batch_size, server: as in `generate`.

    Batches already in `folder` are read, not drawn again. settings.json says which engine drew: where "generate" did
    instead of the one that was asked for, it draws the rest too. ValueError, in one sentence, if `folder` holds those
    of other settings, prompts or weights, or if there are no prompts or two of one name.
    """
    folder = pathlib.Path(folder)
    names = [prompt.name for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "prompts must be at least one, each with a name of its own, "
            f"got {len(names)} with {len(set(names))} different names."
        )
    texts = [[prompt.name, prompt.text] for prompt in prompts]
    settings = asdict(sampling) | {"policy": policy.source, "prompts": fingerprint(texts)}
    engine = engines.resolved(engine, policy.model)
    if engine != "generate":
        settings["engine"] = engine
    engine = processes.only_first(lambda: _claim(folder, settings))
    by_length = sorted(prompts, key=lambda prompt: len(encode_prompt(policy.tokenizer, prompt)))
    size = sampling.prompts_per_batch
    batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
    numbered = list(enumerate(batches))
    if engine in engines.PADDED:
        share = processes.share(numbered)
    else:  # of the others the first process asks for all
        share = numbered if processes.first() else []
    longest = sampling.max_new_tokens
    shown = progress and processes.first()
    with tqdm(total=len(share) * longest, desc="Sampling", unit="token", disable=not shown) as bar:
        for place, (number, batch) in enumerate(share, 1):
            path = folder / f"batch-{number:04d}.jsonl"
            if not path.exists():
                start = time.perf_counter()
                records = list(_draw(policy, batch, sampling, number, engine, batch_size, server, bar.update))
                if engine == "graph" and cuda_graph.unsupported(policy.model):
                    engine = "generate"
                    fallback = settings | {"engine": engine, INSTEAD_OF: "graph"}
                    if processes.first():
                        write_text(folder / "settings.json", json.dumps(fallback, indent=1))
                write_text(path, "".join(json.dumps(record) + "\n" for record in records))
                with (folder / "seconds.txt").open("a") as clock:
                    clock.write(f"{time.perf_counter() - start:.2f}\n")
            bar.update(place * longest - bar.n)
    processes.gather([])  # all have written
    return read_replies(folder, prompts)


def read_replies(folder: str | pathlib.Path, prompts: Sequence[Prompt]) -> list[ReplyRecord]:
    """The records of a folder that `sample_replies` has filled, in the order of `prompts`; the policy is not needed."""
    records = {}
    for path in sorted(pathlib.Path(folder).glob("batch-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            records[record["prompt"]] = record
    return [records[prompt.name] for prompt in prompts]


def sampling_seconds(folder: pathlib.Path) -> float:
    """How long the batches in `folder` took to draw, all together, however often the run was cut off."""
    return sum(map(float, (folder / "seconds.txt").read_text().split()))


def _draw(
    policy: Policy,
    batch: Sequence[Prompt],
    sampling: Sampling,
    number: int,
    engine: str,
    batch_size: int | None,
    server: str | None,
    on_tokens: Callable[[int], object],
) -> Iterator[ReplyRecord]:
    """One record for each prompt of a batch, whose replies are drawn together."""
    num_generations = sampling.num_generations
    prompt_ids = [encode_prompt(policy.tokenizer, prompt) for prompt in batch]
    with torch.random.fork_rng(devices=processes.cuda_devices()):
        torch.manual_seed(sampling.seed * 1_000_003 + number)
        drawn = complete(
            policy,
            prompt_ids,
            num_generations,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            engine=engine,
            batch_size=batch_size,
            server=server,
            on_tokens=on_tokens,
        )
    completion_ids = drawn.completion_ids
    logprobs = drawn.logprobs
    if logprobs is None:
        repeated = [ids for ids in prompt_ids for _ in range(num_generations)]
        logprobs = log_probs(policy, repeated, completion_ids, temperature=sampling.temperature, batch_size=batch_size)
    eos_token_ids = end_token_ids(policy)
    for i, prompt in enumerate(batch):
        group = slice(i * num_generations, (i + 1) * num_generations)
        yield {
            "prompt": prompt.name,
            "text": prompt.text,
            "replies": decode_replies(policy, completion_ids[group], prompt),
            "tokens": completion_ids[group],
            "ended": [ids[-1] in eos_token_ids for ids in completion_ids[group]],
            "log_probs": logprobs[group],
        }


def _claim(folder: pathlib.Path, settings: dict[str, Any]) -> str:
    """Write `settings` into a new folder, or check that an old one has the same; returns the engine that draws."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.exists():
        claimed = json.loads(path.read_text())
        engine = claimed.get("engine", "generate")
        if INSTEAD_OF in claimed:
            claimed["engine"] = claimed.pop(INSTEAD_OF)
        present = json.loads(json.dumps(settings))
        differ = [key for key in present | claimed if claimed.get(key) != present.get(key)]
        if differ:
            raise ValueError(
                f"folder must be new or hold a run of the same settings, got {folder} with another "
                f"{' and '.join(differ)}; choose another folder, or delete it."
            )
        return engine
    write_text(path, json.dumps(settings, indent=1))
    return settings.get("engine", "generate")
