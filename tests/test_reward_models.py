"""Reward models by name: a text's reward depends on that text alone, and no untrusted code is run."""

import json
import pathlib
import shutil

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from httpx import Request, Response
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file
from small_models import TEMPLATE, WORDS, make_encoder, make_llama, make_tokenizer

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import fixed_rewards, reward_functions, reward_models
from rvlib.lm.models.policies import load_policy
from rvlib.lm.models.reading import encode
from rvlib.lm.models.reward_functions import ClassifierReward
from rvlib.lm.models.reward_models import load_reward_model

PROMPTS = [Prompt("one", "rain", "sun"), Prompt("two", "rain sun wind snow a", "sun"), Prompt("three", "b", "sun")]
REPLIES = [["sun", "a b c d e f a b c", ""], ["snow snow", "a", "f e d"], ["rain", "c c c c c c", "wind sun"]]


pytestmark = pytest.mark.usefixtures("one_thread")


def load_classifier(folder, **options):
    """The reward model in a folder, which is a classifier and no fixed function."""
    score = load_reward_model(folder, **options)
    assert isinstance(score, ClassifierReward)
    return score


def alone(score, prompt, reply):
    """The head's reward of the last token of one text, with no padding: the definition."""
    with torch.inference_mode():
        ids = torch.tensor([encode(score.tokenizer, prompt.text, reply)])
        return score.model.score(score.model.model(input_ids=ids).last_hidden_state)[0, -1, 0].item()


@pytest.mark.parametrize(
    "pad", ["<pad>", "<end>", None], ids=["own padding token", "padding is the ending token", "no padding token"]
)
def test_a_reward_depends_on_its_text_alone(tmp_path, pad):
    score = load_classifier(make_llama(tmp_path, pad=pad))
    expected = [[alone(score, prompt, reply) for reply in replies] for prompt, replies in zip(PROMPTS, REPLIES)]
    for batch_size in (1, 2, 4, 32):
        rewards = ClassifierReward(score.name, score.model, score.tokenizer, score.source, batch_size)(PROMPTS, REPLIES)
        assert rewards.shape == (3, 3) and rewards.dtype == np.float64
        assert rewards == pytest.approx(np.array(expected), abs=1e-4)
    assert score(PROMPTS[::-1], REPLIES[::-1])[::-1] == pytest.approx(np.array(expected), abs=1e-4)
    assert score(PROMPTS[1:2], [["a"]])[0, 0] == pytest.approx(expected[1][1], abs=1e-4)
    assert np.ptp(expected) > 0.1  # else all of this would be easy
    assert score.model.config.pad_token_id == (pad and WORDS.index(pad))  # left as it came


def test_the_tokenizers_padding_side_does_not_matter(tmp_path):
    rewards = []
    for side in ("left", "right"):
        score = load_classifier(make_llama(tmp_path / side, pad="<end>"))
        score.tokenizer.padding_side = side
        rewards.append(score(PROMPTS, REPLIES))
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-6)


def test_a_gradient_passes_through(tmp_path):
    score = load_classifier(make_llama(tmp_path))
    reward_functions.forward(
        score.model, score.tokenizer, [encode(score.tokenizer, "rain", reply) for reply in ("sun", "a b c")]
    ).sum().backward()
    assert score.model.score.weight.grad.abs().sum() > 0


def test_a_conversation_is_written_as_the_template_says(tmp_path):
    score = load_classifier(make_llama(tmp_path))
    ids = encode(score.tokenizer, "rain sun", "snow")
    assert [WORDS[i] for i in ids] == "<user> rain sun <end> <assistant> snow <end>".split()  # its specials once


def test_without_a_template_prompt_and_reply_are_a_pair(tmp_path):
    make_encoder(tmp_path, "bert", architecture="BertForSequenceClassification")
    score = load_classifier(tmp_path)
    assert [WORDS[i] for i in encode(score.tokenizer, "rain sun", "snow")] == "rain sun <end> snow <end>".split()
    for prompt, replies, rewards in zip(PROMPTS, REPLIES, score(PROMPTS, REPLIES)):
        for reply, reward in zip(replies, rewards):
            with torch.inference_mode():  # which token belongs to which text is told as well
                assert reward == pytest.approx(
                    score.model(**score.tokenizer([prompt.text], [reply], return_tensors="pt")).logits.item(), abs=1e-4
                )


def test_bfloat16_is_nearly_the_same(tmp_path):
    make_llama(tmp_path)
    exact, rough = (load_reward_model(tmp_path, dtype=dtype)(PROMPTS, REPLIES) for dtype in ("float32", "bfloat16"))
    assert rough == pytest.approx(exact, abs=0.1 * np.abs(exact).max()) and rough.tolist() != exact.tolist()


def test_what_is_recorded_of_a_model(tmp_path):
    score = load_classifier(make_llama(tmp_path))
    assert (
        score.name == score.source["name"] == str(tmp_path)
        and score.source["parameters"] > 1000
        and score.source["dtype"] == "float32"
    )
    json.dumps(score.source)


# Which tokens it reads


def test_the_reward_is_that_of_the_same_weights_whatever_token_pads(tmp_path):
    own = load_classifier(make_llama(tmp_path / "own"))
    config = json.loads((tmp_path / "own/config.json").read_text())
    others = []
    for token_id in (WORDS.index("<end>"), None):
        folder = shutil.copytree(tmp_path / "own", tmp_path / str(token_id))
        (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": token_id}))
        others.append(load_classifier(folder))
    end, none = others
    assert end(PROMPTS, REPLIES) == pytest.approx(own(PROMPTS, REPLIES), abs=1e-4)
    assert none(PROMPTS, REPLIES) == pytest.approx(own(PROMPTS, REPLIES), abs=1e-4)
    (note,) = end.notes(PROMPTS[0], "sun")
    assert note.startswith("Its configuration pads with <end>, with which its texts end: ")
    assert own.notes(PROMPTS[0], "sun") == none.notes(PROMPTS[0], "sun") == []
    assert end.example(PROMPTS[0], "sun") == {
        "text": "<user> rain <end> <assistant> sun <end>",
        "last_tokens": ["<assistant>", "sun", "<end>"],
        "reads": "the last token",
    }


def test_a_model_that_reads_its_padding_gets_none(tmp_path):
    make_tokenizer(tmp_path, template=None, pairs="bert")
    torch.manual_seed(0)
    config = transformers.XLNetConfig(
        vocab_size=len(WORDS), d_model=32, n_layer=2, n_head=4, d_inner=64, initializer_range=0.5, num_labels=1
    )
    transformers.XLNetForSequenceClassification(config).save_pretrained(tmp_path)  # reads the last place, mask or not
    score = load_classifier(tmp_path)
    rewards = score(PROMPTS, REPLIES)
    alone_each = [[score([prompt], [[reply]])[0, 0] for reply in row] for prompt, row in zip(PROMPTS, REPLIES)]
    assert rewards == pytest.approx(np.array(alone_each), abs=1e-4) and np.ptp(rewards) > 0.1


def test_texts_with_every_token_that_there_is_have_their_rewards(tmp_path):
    score = load_classifier(make_llama(tmp_path))
    everything = " ".join(WORDS)
    rewards = score(PROMPTS[:2], [[everything, "a"], ["b", everything]])
    expected = [
        [alone(score, prompt, reply) for reply in replies]
        for prompt, replies in ((PROMPTS[0], [everything, "a"]), (PROMPTS[1], ["b", everything]))
    ]
    assert rewards == pytest.approx(np.array(expected), abs=1e-4)


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ("llama", "<bos> rain sun snow"),
        ("roberta", "<bos> rain sun <end> <end> snow <end>"),
        ("bert", "rain sun <end> snow <end>"),
        (None, "rain sun snow"),
    ],
)
def test_without_a_template_there_is_one_bos_at_most(tmp_path, pairs, expected):
    make_tokenizer(tmp_path, template=None, pairs=pairs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [WORDS[i] for i in encode(tokenizer, "rain sun", "snow")] == expected.split()
    # An empty reply is still a reply, with the marks of one.
    assert [WORDS[i] for i in encode(tokenizer, "rain sun", "")] == expected.replace("snow", "").split()


def test_several_turns_go_through_the_template_and_need_one(tmp_path):
    prompt = Prompt.of_turns("x", [("user", "rain"), ("assistant", "sun"), ("user", "wind")])
    ids = encode(load_classifier(make_llama(tmp_path / "with")).tokenizer, prompt, "snow")
    turns = "<user> rain <end> <assistant> sun <end> <user> wind <end> <assistant> snow <end>"
    assert [WORDS[i] for i in ids] == turns.split()
    without = load_classifier(make_encoder(tmp_path / "without"))
    with pytest.raises(ValueError, match="^A prompt of 3 turns needs a chat template, got [^\n]*\\.$"):
        encode(without.tokenizer, prompt, "snow")
    assert without.notes(PROMPTS[0], "sun")[0].startswith("It has no chat template: ")
    assert without.example(PROMPTS[0], "sun")["reads"] == "the first token"


SYSTEM_FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TEMPLATE


@pytest.mark.parametrize("template, reason", [(SYSTEM_FIRST, "system first"), ("{{ messages[0]", "[^\n]*")])
def test_a_template_that_cannot_is_one_sentence(tmp_path, template, reason):
    score = load_classifier(make_llama(tmp_path, template=template))
    with pytest.raises(
        ValueError,
        match=f"^The chat template of [^\n]* must take turns of user, assistant, but it does not \\({reason}\\); ",
    ):
        score(PROMPTS, REPLIES)


def test_roberta_reads_two_tokens_fewer_than_it_has_positions(tmp_path):
    score = load_classifier(make_encoder(tmp_path, max_tokens=12))
    assert score.model.config.max_position_embeddings == 14 and score.reader.max_tokens == 12
    prompt = Prompt("x", "a b c", "")
    assert np.isfinite(score([prompt], [["a b c d e"]])).all()  # 3 + 5 and 4 special tokens
    with pytest.raises(
        ValueError, match="^A prompt with its reply must have at most the 12 tokens [^\n]* got 13 of x; "
    ):
        score([prompt], [["a b c d e f"]])


def test_a_tokenizer_larger_than_the_embeddings_is_one_sentence(tmp_path):
    score = load_classifier(make_llama(tmp_path, vocabulary=len(WORDS) - 4))
    with pytest.raises(ValueError, match="must embed every token of its tokenizer, got 'f' with number 14 and 14 emb"):
        score(PROMPTS[:1], [["f"]])


def test_a_reward_that_is_no_number_says_of_which_reply(tmp_path):
    score = load_classifier(make_llama(tmp_path))
    with torch.no_grad():
        score.model.model.embed_tokens.weight[WORDS.index("e")] = float("nan")
    with pytest.raises(
        ValueError,
        match="^A reward must be a finite number, got nan of [^\n]* for reply 3 to two \\('f e d'\\); [^\n]*\\.$",
    ):
        score(PROMPTS[1:], REPLIES[1:])


# Fixed functions


def test_sentiment_is_called_like_a_model():
    prompts, replies = PROMPTS[:2], [["What a lovely day!", "a table"], ["Awful.", "I like it."]]
    score = load_reward_model("sentiment")
    assert score(prompts, replies).tolist() == [fixed_rewards.sentiment(texts) for texts in replies]
    assert load_reward_model("positivity")(prompts, replies) == pytest.approx((1 + score(prompts, replies)) / 2)
    assert score.name == "sentiment" and score.source == {"name": "sentiment"}


def test_similarity_is_to_each_prompts_own_reference(monkeypatch):
    monkeypatch.setattr(
        fixed_rewards,
        "Similarity",
        lambda: (
            lambda replies, references: [float(reply == reference) for reply, reference in zip(replies, references)]
        ),
    )
    score = load_reward_model("similarity")
    assert score(
        [Prompt("x", "rain", "sun"), Prompt("y", "rain", "wind")], [["sun", "wind"], ["sun", "wind"]]
    ).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(
        ValueError, match="^Similarity compares with a reference reply, got prompt 'x' without one; [^\n]*\\.$"
    ):
        score([Prompt("x", "rain", "")], [["sun"]])


# ArmoRM

ARMORM = """
import dataclasses
import pathlib
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.models.llama.modeling_llama import LLAMA_INPUTS_DOCSTRING
from transformers.utils import ModelOutput, add_start_docstrings_to_model_forward

pathlib.Path({ran!r}).touch()

@dataclasses.dataclass
class CustomOutput(ModelOutput):
    rewards: torch.Tensor = None
    gating_output: torch.Tensor = None
    score: torch.Tensor = None
    logits: torch.Tensor = None

class LlamaForRewardModelWithGating(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = torch.nn.Linear(config.hidden_size, config.num_objectives, bias=False)
        self.gating = torch.nn.Linear(config.hidden_size, config.num_objectives)
        self.post_init()

    @add_start_docstrings_to_model_forward(LLAMA_INPUTS_DOCSTRING)
    def forward(self, input_ids=None, attention_mask=None):
        hidden = self.model(input_ids, attention_mask=attention_mask)[0]
        end = torch.eq(input_ids, self.config.pad_token_id).int().argmax(-1) - 1
        end = end % input_ids.shape[-1]
        rows = torch.arange(len(input_ids))
        mark = torch.tensor([ids.tolist().index(4) for ids in input_ids])  # where the reply begins
        rewards, gating = self.regression_layer(hidden[rows, end]), self.gating(hidden[rows, mark]).softmax(-1)
        score = (rewards * gating).sum(-1)
        return CustomOutput(rewards=rewards, gating_output=gating, score=score, logits=score)
"""


@pytest.fixture
def armorm(tmp_path, monkeypatch):
    """A model of ArmoRM's form: many objectives, code of its own, written for an older transformers. Returns its folder
    and a file that its code touches."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder, ran = make_llama(tmp_path / "armorm"), tmp_path / "ran"
    (folder / "modeling_custom.py").write_text(ARMORM.format(ran=str(ran)))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["LlamaForRewardModelWithGating"],
        "num_objectives": 5,
        "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"},
    }
    config["id2label"] = {str(i): f"objective {i}" for i in range(5)}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {
        key: value for key, value in load_file(folder / "model.safetensors").items() if not key.startswith("score")
    }
    torch.manual_seed(1)
    weights |= {
        "regression_layer.weight": torch.randn(5, 32),
        "gating.weight": torch.randn(5, 32),
        "gating.bias": torch.randn(5),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, ran


def test_armorm_gives_its_score(armorm):
    score = load_classifier(armorm[0], trust_remote_code=True)
    rewards = score(PROMPTS, REPLIES)
    for prompt, replies, values in zip(PROMPTS, REPLIES, rewards):
        for reply, value in zip(replies, values):
            with torch.inference_mode():
                output = score.model(torch.tensor([encode(score.tokenizer, prompt.text, reply)]))
            assert value == pytest.approx((output.rewards * output.gating_output).sum().item(), abs=1e-4)
    assert np.ptp(rewards) > 0.1


def test_code_that_comes_with_a_model_is_not_run(armorm):
    folder, ran = armorm
    with pytest.raises(ValueError, match="^[^\n]* runs code of its own, which must be trusted by name; [^\n]*\\.$"):
        load_reward_model(folder)
    config = json.loads((folder / "config.json").read_text())
    for architecture in ("SomeoneElsesModel", None):  # of a class that nobody knows, and of none
        (folder / "config.json").write_text(json.dumps(config | {"architectures": architecture and [architecture]}))
        with pytest.raises((ValueError, OSError)):
            load_reward_model(folder)
    assert not ran.exists()


def test_the_hubs_armorm_is_known_by_name():
    with pytest.raises(ValueError, match=f"^{reward_models.ARMORM} runs code of its own, [^\n]*\\.$"):
        load_reward_model(reward_models.ARMORM)


# What is refused, in one sentence


class Boom:
    """A pickle that would make a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_pickled_weights_are_not_loaded(tmp_path):
    make_llama(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Boom(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="^The reward model must be [^\n]*safetensors[^\n]*\\.$"):
        load_reward_model(tmp_path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Exception):  # the fixture is a real one: with pickles allowed, it runs
        torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_pickled_weights_alone_say_how_to_convert_them(tmp_path):
    make_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="its weights are pytorch_model.bin alone, a pickle, [^\n]* save_pretrained"):
        load_reward_model(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_a_token_classifier_with_one_label_is_no_reward_model(tmp_path, named):
    make_llama(tmp_path, architecture="LlamaForTokenClassification")
    expected = (
        "^The reward model must give one reward for a text, got [^\n]*, a LlamaForTokenClassification, [^\n]*\\.$"
    )
    if not named:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": None}))
        expected = (
            "^The reward model must have the head of a sequence classifier, got [^\n]* with score.bias, [^\n]*\\.$"
        )
    with pytest.raises(ValueError, match=expected):
        load_reward_model(tmp_path)


# Adapters


def make_adapter(folder, base, task="SEQ_CLS", **settings):
    """An adapter with random weights, and what its own code gives the texts of PROMPTS and REPLIES."""
    import peft  # slow to import

    torch.manual_seed(3)
    kind = {"SEQ_CLS": "SequenceClassification", "CAUSAL_LM": "CausalLM"}[task]
    options = {"num_labels": 1} if task == "SEQ_CLS" else {}
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, **options)
    config = peft.LoraConfig(task_type=task, r=2, lora_alpha=8, init_lora_weights=False, target_modules="all-linear")
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(folder, **settings)
    return adapted.eval()


def test_an_adapter_is_scored_on_its_base(tmp_path):
    base, folder = make_llama(tmp_path / "base", architecture="LlamaForCausalLM"), tmp_path / "adapter"
    adapted = make_adapter(folder, base)
    score = load_classifier(folder)
    with torch.inference_mode():
        expected = [
            adapted(torch.tensor([encode(score.tokenizer, PROMPTS[0].text, reply)])).logits.item()
            for reply in REPLIES[0]
        ]
    assert score(PROMPTS[:1], REPLIES[:1])[0] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 0.1


def test_a_configuration_beside_an_adapter_makes_no_whole_model_of_it(tmp_path):
    base, folder = make_llama(tmp_path / "base", architecture="LlamaForCausalLM"), tmp_path / "adapter"
    make_adapter(folder, base)
    expected = load_reward_model(folder)(PROMPTS, REPLIES)
    shutil.copy(base / "config.json", folder)
    assert load_reward_model(folder)(PROMPTS, REPLIES).tolist() == expected.tolist()


def test_an_adapter_without_a_base_is_one_sentence(tmp_path):
    make_adapter(tmp_path / "adapter", make_llama(tmp_path / "base", architecture="LlamaForCausalLM"))
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(OSError, match="^[^\n]* \\(its adapter_config.json has no base_model_name_or_path; [^\n]*\\.$"):
        load_reward_model(tmp_path / "adapter")


def test_a_policy_may_be_an_adapter_but_not_of_a_reward_model(tmp_path):
    base = make_llama(tmp_path / "base", architecture="LlamaForCausalLM")
    adapted = make_adapter(tmp_path / "writer", base, "CAUSAL_LM")
    make_adapter(tmp_path / "judge", base)
    ids = torch.tensor([[9, 10, 11]])
    with torch.inference_mode():
        logits = load_policy(tmp_path / "writer").model(input_ids=ids).logits
        assert torch.allclose(logits, adapted(input_ids=ids).logits, atol=1e-5)
        assert not torch.allclose(logits, load_policy(base).model(input_ids=ids).logits, atol=0.1)
    with pytest.raises(
        ValueError, match="^An adapter that is a policy must be of [^\n]*, which is of SEQ_CLS; [^\n]*\\.$"
    ):
        load_policy(tmp_path / "judge")


def test_an_adapter_that_gives_no_reward_says_how_to_merge_it(tmp_path):
    base = make_llama(tmp_path / "base", architecture="LlamaForCausalLM")
    make_adapter(tmp_path / "policy", base, "CAUSAL_LM")
    make_adapter(tmp_path / "pickled", base, safe_serialization=False)
    for folder in ("policy", "pickled"):
        with pytest.raises(
            ValueError, match="^An adapter that is the reward model must be [^\n]* merge_and_unload\\(\\), [^\n]*\\.$"
        ):
            load_reward_model(tmp_path / folder)


# Names


def test_a_misspelt_folder_is_told_at_once_and_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: pytest.fail("the hub was asked"))
    make_llama(tmp_path / "models/judge")
    monkeypatch.chdir(tmp_path)
    for name, nearest in (("./models/judg", "; models/judge is here"), ("./judg", ""), ("a/b/c", "")):
        with pytest.raises(OSError, match=f"which did not load \\(it is not there{nearest}\\)\\.$"):
            load_reward_model(name)


def test_a_name_on_the_hub_is_asked_for_once_and_kept_with_its_commit(tmp_path, monkeypatch):
    asked = []

    def unreachable(self, name, **_):
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    make_llama(tmp_path / "somebody/judge-1")
    monkeypatch.chdir(tmp_path)
    expected = "it is not here, and the hub is out of reach; somebody/judge-1 is here"
    with pytest.raises(OSError, match=expected):
        load_reward_model("somebody/judge")
    assert asked == ["somebody/judge"]
    reference = tmp_path / "models--somebody--judge/refs/main"
    reference.parent.mkdir(parents=True)
    reference.write_text("0123abcd")
    assert reward_models.locate("somebody/judge") == "0123abcd"
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: Info())
    assert reward_models.locate("somebody/other") == "89ef"


class Info:
    """What the hub says of a repository."""

    sha, siblings = "89ef", None


@pytest.mark.parametrize("labels", [2, 3])
def test_more_than_one_output(tmp_path, labels):
    make_llama(tmp_path, labels=labels)
    with pytest.raises(ValueError, match=f"^The reward model must have one output, got {labels} of [^\n]*\\.$"):
        load_reward_model(tmp_path)


def test_a_language_model_is_no_reward_model(tmp_path):
    make_llama(tmp_path, architecture="LlamaForCausalLM")
    with pytest.raises(ValueError, match="^The reward model must have one output, got 2 of"):
        load_reward_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "reward"}}))
    with pytest.raises(
        ValueError,
        match="^The reward model must come with all its weights, got [^\n]* without score.weight; [^\n]*\\.$",
    ):
        load_reward_model(tmp_path)


@pytest.mark.parametrize("name", ["no/such/folder", "no such name", ""])
def test_a_model_that_is_not_there(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"^The reward model must be [^\n]* got '{name}', which did not load [^\n]*\\.$"):
        load_reward_model(name)


def test_a_gated_model_says_what_to_do(monkeypatch):
    def refuse(*arguments, **more):
        try:
            raise GatedRepoError("403", response=Response(403, request=Request("GET", "http://localhost")))
        except GatedRepoError as error:
            raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.") from error

    monkeypatch.setattr("rvlib.lm.data.hub.repository", lambda *_: ("0123abcd", None))
    monkeypatch.setattr(reward_models, "adapter_base", lambda name: None)
    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(OSError, match="^The reward model must be [^\n]* `hf auth login`\\)\\.$"):
        load_reward_model("somebody/gated")


def test_texts_that_are_too_long(tmp_path):
    score = load_classifier(make_llama(tmp_path, max_tokens=16))
    with pytest.raises(
        ValueError, match="^A prompt with its reply must have at most the 16 tokens [^\n]*, got 25 of one; [^\n]*\\.$"
    ):
        score(PROMPTS[:1], [["a " * 20]])


@pytest.mark.parametrize("replies", [[["sun"]], [["sun"], ["a", "b"]], [[], []]])
def test_replies_must_be_as_many_for_each_prompt(tmp_path, replies):
    for score in (load_reward_model("sentiment"), load_reward_model(make_llama(tmp_path))):
        with pytest.raises(ValueError, match="^replies must be as many texts for each of 2 prompts, got [^\n]*\\.$"):
            score(PROMPTS[:2], replies)


def test_precision_is_checked(tmp_path):
    with pytest.raises(ValueError, match='^dtype must be "float32" or "bfloat16", got \'int4\'\\.$'):
        load_reward_model(make_llama(tmp_path), dtype="int4")
