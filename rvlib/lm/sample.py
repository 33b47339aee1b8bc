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

from rvlib import _checks
from rvlib.lm import engines, need, processes
from rvlib.lm.cost import LOGITS
from rvlib.lm.data import fingerprint

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


def sample(policy, prompts, folder, sampling=Sampling(), *, engine="generate", rows=None, server=None, progress=True):
    """Replies of `policy` to each of `prompts`, in their order: dictionaries with `prompt` (its name), `replies` (texts),
    `tokens` (lists of ids, the ending one included), `ended` (whether there was one) and `log_probs` (of whole replies, in nats).
    engine, rows, server: as in `generate`.

    Batches already in `folder` are read, not drawn again. ValueError, in one sentence, if `folder` holds those of other
    settings, prompts or weights, or if there are no prompts or two of one name.
    """
    from tqdm import tqdm

    folder, names = pathlib.Path(folder), [prompt.name for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"prompts must be at least one, each with a name of its own, got {len(names)} with {len(set(names))} different names.")
    settings = asdict(sampling) | {"policy": policy.source, "prompts": fingerprint([[p.name, p.text] for p in prompts])}
    settings |= {} if engine == "generate" else {"engine": engine}
    processes.only_first(lambda: _claim(folder, settings))
    by_length = sorted(prompts, key=lambda prompt: len(encode(policy.tokenizer, prompt.text)))
    size = sampling.prompts_per_batch
    batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
    numbered = list(enumerate(batches))
    mine = processes.share(numbered) if engine in engines.PADDED else numbered if processes.first() else []
    for number, batch in tqdm(mine, desc="Sampling", unit="batch", disable=not progress or not processes.first()):
        path = folder / f"batch-{number:04d}.jsonl"
        if not path.exists():
            start = time.perf_counter()
            lines = [json.dumps(record) + "\n" for record in _draw(policy, batch, sampling, number, engine, rows, server)]
            partial = path.with_suffix(".partial")
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(path)
            with (folder / "seconds.txt").open("a") as clock:
                clock.write(f"{time.perf_counter() - start:.2f}\n")
    processes.gather([])  # all have written
    return read(folder, prompts)


def read(folder, prompts):
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


def until_end(tokens, ends):
    """Which tokens belong to the reply: all up to and including the first that ends it.

    tokens: (replies, length); ends: ids of the tokens that end a reply. Returns booleans of the same shape. The padding token
    often is the ending one, so padding cannot be told by its id.
    """
    ended = need("torch").isin(tokens, tokens.new_tensor(ends))
    return (ended.cumsum(-1) - ended.long()) == 0


def log_probs(policy, prompts, replies, *, temperature=1.0, rows=16):
    """ln π_θ(y|x) in nats, one float a reply, without a gradient. prompts, replies: lists of lists of token ids; rows: how many go through at once.

    They are sorted by length, so that little is padded.
    """
    torch = need("torch")
    order = sorted(range(len(replies)), key=lambda i: len(prompts[i]) + len(replies[i]))
    result = [0.0] * len(replies)
    for some in (order[i : i + rows] for i in range(0, len(order), rows)):
        with torch.inference_mode():
            totals = reply_log_probs(policy.model, [prompts[i] for i in some], [replies[i] for i in some], temperature=temperature)
        for i, total in zip(some, totals.tolist()):
            result[i] = total
    return result


def reply_log_probs(model, prompts, replies, *, temperature=1.0):
    """ln π_θ(y|x) in nats of replies that go through `model` at once, a float64 tensor (replies,) that gradients pass through.

    prompts, replies: lists of lists of token ids. Padding is on the right, and only the positions that predict a reply's tokens
    become logits, `LOGITS` at a time: of the others only what the gradient needs is kept, one 32-bit number for each of tokens × vocabulary.
    """
    torch = need("torch")
    whole = [torch.tensor(prompt + reply) for prompt, reply in zip(prompts, replies, strict=True)]
    tokens = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)[:, :-1]  # the last token predicts nothing
    attended = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in whole])
    # Of each token of a reply: which row it is in, which place predicts it, and which token it is.
    where = torch.tensor([(i, len(prompt) - 1 + j, token) for i, (prompt, reply) in enumerate(zip(prompts, replies)) for j, token in enumerate(reply)], dtype=torch.long)

    def totals():  # on the device of the gathered weights, which may have come from the host's memory
        row, place, token = where.to(model.device).view(-1, 3).unbind(1)
        hidden = model.base_model(tokens.to(model.device), attention_mask=attended.to(model.device), use_cache=False).last_hidden_state
        chosen = torch.cat([log_softmax_at(model, some, those, temperature) for some, those in zip(hidden[row, place].split(LOGITS), token.split(LOGITS))])
        return torch.zeros(len(whole), dtype=torch.float64, device=row.device).index_add(0, row, chosen.double())

    return processes.through(model, totals)


def log_softmax_at(model, hidden, tokens, temperature):
    """ln softmax(logits / temperature) of a token each, (tokens,), from the last layer's states (tokens, width), in 32 bits."""
    logits = model.get_output_embeddings()(hidden).float() / temperature
    return -need("torch").nn.functional.cross_entropy(logits, tokens, reduction="none")


def generate(policy, prompts, count, *, max_new_tokens, temperature=1.0, engine="generate", rows=None, server=None):
    """`count` replies to each of `prompts` (lists of token ids), drawn from torch's generator: a flat list of lists of ids.

    top_k and top_p cut nothing off: the replies are from π itself. Each ends with its first ending token, or at `max_new_tokens`.
    engine: "generate", all at once in a padded batch; "static", the same with prompts padded to a multiple of 128 and a cache as long
    as the longest batch so far needs (so a run that is gone on with may round otherwise), for which transformers compiles the model on
    a GPU, kernels launched as one CUDA graph; "continuous", at most `rows` at once; "vllm", by the server at the address `server`
    (both in `engines`).
    """
    torch, ends = need("torch"), endings(policy)
    if engine == "continuous":
        return engines.continuous(policy.model, prompts, count, ends=ends, rows=rows or len(prompts) * count, max_new_tokens=max_new_tokens, temperature=temperature)
    if engine == "vllm":
        return engines.served(policy, prompts, count, server=server, ends=ends, max_new_tokens=max_new_tokens, temperature=temperature)
    static = engine == "static"
    inputs = policy.tokenizer.pad({"input_ids": prompts}, padding_side="left", pad_to_multiple_of=128 if static else None, return_tensors="pt").to(policy.model.device)
    with torch.inference_mode():
        drawn = policy.model.generate(
            **inputs, do_sample=True, temperature=temperature, top_k=0, top_p=1.0, num_return_sequences=count,
            max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=policy.tokenizer.pad_token_id, synced_gpus=False,
            **({"cache_implementation": "static"} if static else {}),
        )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    return [row[mask].tolist() for row, mask in zip(drawn, until_end(drawn, ends))]


def texts(policy, replies):
    """The texts of replies (lists of token ids), without the tokens that only mark their ends."""
    return [reply.strip() for reply in policy.tokenizer.batch_decode(replies, skip_special_tokens=True)]


def _draw(policy, batch, sampling, number, engine, rows, server):
    """One record for each prompt of a batch: every reply drawn at once, the prompts padded on the left."""
    torch = need("torch")
    prompts, ends = [encode(policy.tokenizer, prompt.text) for prompt in batch], endings(policy)
    with torch.random.fork_rng(devices=processes.generators()):
        torch.manual_seed(sampling.seed * 1_000_003 + number)
        tokens = generate(policy, prompts, sampling.samples, max_new_tokens=sampling.max_new_tokens, temperature=sampling.temperature, engine=engine, rows=rows, server=server)
    repeated = [prompt for prompt in prompts for _ in range(sampling.samples)]
    totals = log_probs(policy, repeated, tokens, temperature=sampling.temperature)
    for i, prompt in enumerate(batch):
        mine = slice(i * sampling.samples, (i + 1) * sampling.samples)
        yield {
            "prompt": prompt.name,
            "text": prompt.text,
            "replies": texts(policy, tokens[mine]),
            "tokens": tokens[mine],
            "ended": [row[-1] in ends for row in tokens[mine]],
            "log_probs": totals[mine],
        }


def encode(tokenizer, text):
    """Ids of a prompt, as the model was taught to see one: in its chat template if it has any. ValueError for words that the tokenizer lacks."""
    try:
        if tokenizer.chat_template:
            written = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
            return tokenizer(written, add_special_tokens=False)["input_ids"]
        return tokenizer(text)["input_ids"]
    except Exception as error:
        if type(error) is not Exception:  # what tokenizers raises
            raise
        raise ValueError(f"A prompt must be of words that the policy's tokenizer has, got {text[:80]!r} ({error}); choose other prompts, or another policy.") from error


def encode_reply(policy, prompt, reply):
    """Ids of a reply (a text) after its prompt (a text) as the model would have to write it, its ending token included."""
    tokenizer, ends = policy.tokenizer, endings(policy)
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": reply}], tokenize=False)
        reply = whole[len(before) :] if whole.startswith(before) else reply
    tokens = tokenizer(reply, add_special_tokens=False)["input_ids"]
    last = next((i for i, token in enumerate(tokens) if token in ends), None)
    return tokens[: last + 1] if last is not None else [*tokens, ends[0]]


def endings(policy):
    """Ids of the tokens that end a reply: the model's own list, the tokenizer's where it has none."""
    ends = policy.model.generation_config.eos_token_id
    ends = policy.tokenizer.eos_token_id if ends is None else ends
    return ends if isinstance(ends, list) else [ends]


def _claim(folder, settings):
    """Write `settings` into a new folder, or check that an old one has the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        differ = [key for key in settings if before.get(key) != json.loads(json.dumps(settings[key]))]
        if differ:
            raise ValueError(f"folder must be new or hold a run of the same settings, got {folder} with another {' and '.join(differ)}; choose another folder, or delete it.")
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(settings, indent=1))
    partial.replace(path)
