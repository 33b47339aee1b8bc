"""How a policy's text is read and written: what its template prefills, and which tokens of a reply are content."""

import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from small_models import TEMPLATE, WORDS, make_encoder, make_llama, make_tokenizer

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import recipe
from rvlib.lm.models import chat, policies
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt, encode_reply
from rvlib.lm.sampling.replies import Sampling, sample_replies
from rvlib.lm.training.policy_gradient import rollout

PROMPT = [{"role": "user", "content": "rain"}]
ASKED = "{% if add_generation_prompt %}<assistant> {% endif %}"
PREFILLED = "{% if add_generation_prompt %}<assistant> <think> {% endif %}"
# As of reasoning models that write the marks of reasoning into the last turn, whether there is any or not.
LAST_TURN_REASONS = (
    "{% for turn in messages %}<{{ turn.role }}> "
    "{% if loop.last and turn.role == 'assistant' %}<think> </think> {% endif %}{{ turn.content }} <end> {% endfor %}"
)

SYSTEM_FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"


pytestmark = pytest.mark.usefixtures("one_thread")


def make_policy(folder, template=TEMPLATE + ASKED, **settings):
    return policies.load_policy(make_llama(folder, architecture="LlamaForCausalLM", template=template, **settings))


def ids(text):
    return [WORDS.index(word) for word in text.split()]


@pytest.mark.parametrize(
    "template, expected",
    [
        (None, ""),
        (TEMPLATE, ""),
        (TEMPLATE + ASKED, ""),
        (TEMPLATE + PREFILLED, "<think> "),
        (LAST_TURN_REASONS + ASKED, ""),
        (LAST_TURN_REASONS + PREFILLED, "<think> "),
        (SYSTEM_FIRST + TEMPLATE + PREFILLED, "<think> "),
        ("{{ raise_exception('no') }}", ""),
    ],
)
def test_what_a_template_prefills_is_found(tmp_path, template, expected):
    make_tokenizer(tmp_path, template=template)
    assert chat.generation_prefill(transformers.AutoTokenizer.from_pretrained(tmp_path), PROMPT) == expected


def test_special_tokens_inside_a_reply_are_content(tmp_path):
    policy = make_policy(tmp_path, pad="<pad>")
    replies = [ids("<think> a </think> b <end>"), ids("a <pad> b <end>"), ids("<think> a"), ids("a <pad> <pad>"), []]
    assert decode_replies(policy, replies) == ["<think> a </think> b", "a <pad> b", "<think> a", "a", ""]


def test_what_the_template_prefills_is_the_beginning_of_the_reply(tmp_path):
    policy = make_policy(tmp_path, TEMPLATE + PREFILLED)
    assert [
        WORDS[i] for i in encode_prompt(policy.tokenizer, "rain")
    ] == "<user> rain <end> <assistant> <think>".split()
    assert decode_replies(policy, [ids("a </think> b <end>")]) == ["<think> a </think> b"]
    # The policy is taught to write what comes after it.
    assert encode_reply(policy, "rain", "<think> a </think> b") == ids("a </think> b <end>")


def test_a_drawn_reply_begins_with_what_the_template_prefills(tmp_path):
    policy = make_policy(tmp_path / "policy", TEMPLATE + PREFILLED)
    sampling = Sampling(num_generations=3, max_new_tokens=4)
    (record,) = sample_replies(policy, [Prompt("x", "rain", "")], tmp_path / "run", sampling, progress=False)
    assert all(reply.startswith("<think>") for reply in record["replies"])


def test_what_a_template_prefills_for_each_prompt_is_what_its_reward_is_of(tmp_path):
    thinks = "{% if messages[0].content == 'rain' %}<think> {% endif %}"
    by_prompt = "{% if add_generation_prompt %}<assistant> " + thinks + "{% endif %}"
    policy = make_policy(tmp_path / "policy", TEMPLATE + by_prompt)
    settings = recipe.load("tiny-4.1", ["runtime.batch_size=4", "policy_gradient.max_new_tokens=4"])
    prompts = [Prompt("x", "rain", ""), Prompt("y", "wind", ""), Prompt("z", "rain", "")]
    drawn = rollout(policy, policy, {}, prompts, 2, settings, (0, 0, 0))
    assert [text.startswith("<think>") for text in drawn.completions] == [True, True, False, False, True, True]


@pytest.mark.parametrize("pairs, expected", [("llama", "<bos> rain"), ("roberta", "<bos> rain"), (None, "rain")])
def test_a_prompt_without_a_template_does_not_end_before_its_reply(tmp_path, pairs, expected):
    make_tokenizer(tmp_path, template=None, pairs=pairs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert encode_prompt(tokenizer, "rain") == ids(expected)


def test_turns_are_asked_through_the_template_and_need_one(tmp_path):
    prompt = Prompt.of_turns("x", [("system", "a"), ("user", "rain"), ("assistant", "sun"), ("user", "wind")])
    policy = make_policy(tmp_path, TEMPLATE.replace("<{{ turn.role }}>", "{{ turn.role[0] }}") + ASKED)
    asked = policy.tokenizer.decode(encode_prompt(policy.tokenizer, prompt))
    assert asked == "<unk> a <end> <unk> rain <end> a sun <end> <unk> wind <end> <assistant>"
    policy.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="^A prompt of 4 turns needs a chat template, got [^\n]*\\.$"):
        encode_prompt(policy.tokenizer, prompt)
    assert Prompt.of_turns("x", [("user", "rain")]) == Prompt("x", "rain", "")
    assert prompt.text == "system: a\n\nuser: rain\n\nassistant: sun\n\nuser: wind"


def test_a_makers_settings_for_sampling_do_not_change_the_policy(tmp_path):
    plain = make_llama(tmp_path / "plain", architecture="LlamaForCausalLM")
    penalised = make_llama(tmp_path / "penalised", architecture="LlamaForCausalLM")
    settings = {"repetition_penalty": 50.0, "min_p": 0.9, "suppress_tokens": ids("a b"), "eos_token_id": 0}
    transformers.GenerationConfig(do_sample=True, **settings).save_pretrained(penalised)
    sampling, replies = Sampling(num_generations=8, max_new_tokens=8), []
    for folder in (plain, penalised):
        policy = policies.load_policy(folder)
        (record,) = sample_replies(policy, [Prompt("x", "rain", "")], folder / "run", sampling, progress=False)
        replies.append((record["tokens"], record["log_probs"]))
    assert replies[0] == replies[1] and policy.model.generation_config.eos_token_id == 0


# What is no policy, in one sentence


def test_a_classifier_is_not_sampled_with_a_random_head(tmp_path):
    make_llama(tmp_path)
    with pytest.raises(
        ValueError, match="^The policy must come with all its weights, got [^\n]* without lm_head.weight, [^\n]*\\.$"
    ):
        policies.load_policy(tmp_path)


@pytest.mark.parametrize("says_so", [True, False], ids=["by its configuration", "by its weights"])
def test_a_classifier_is_no_policy_where_its_embeddings_could_draw_tokens(tmp_path, says_so):
    config = transformers.LlamaConfig.from_pretrained(make_llama(tmp_path))
    config.tie_word_embeddings = True
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    if not says_so:
        config.architectures = None
        config.save_pretrained(tmp_path)
    kind = "LlamaForSequenceClassification" if says_so else "score.weight"
    expected = f"^The policy must be a causal language model, got [^\n]* a classifier \\({kind}\\); [^\n]*\\.$"
    with pytest.raises(ValueError, match=expected):
        policies.load_policy(tmp_path)


def test_weights_that_are_tied_are_all_there(tmp_path):
    config = transformers.LlamaConfig.from_pretrained(make_llama(tmp_path, architecture="LlamaForCausalLM"))
    config.tie_word_embeddings = True
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert policies.load_policy(tmp_path).model.lm_head.weight.shape == (len(WORDS), 32)


@pytest.mark.parametrize("kind, architecture", [("roberta", "RobertaForMaskedLM"), ("bert", "BertForMaskedLM")])
def test_an_encoder_is_no_policy(tmp_path, kind, architecture):
    make_encoder(tmp_path, kind, architecture=architecture)
    with pytest.raises(
        ValueError, match="^The policy must be a causal language model, got [^\n]*, as an encoder does; [^\n]*\\.$"
    ):
        policies.load_policy(tmp_path)


def test_other_families_are_policies(tmp_path):
    make_tokenizer(tmp_path)
    config = transformers.GPTNeoXConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    assert policies.load_policy(tmp_path).model.config.model_type == "gpt_neox"


def test_a_policy_without_an_ending_token_is_one_sentence(tmp_path):
    policy = make_policy(tmp_path)
    policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token_id = None
    with pytest.raises(ValueError, match="^The policy must have a token that ends a reply, got [^\n]*\\.$"):
        decode_replies(policy, [ids("a")])


def test_pickled_weights_alone_say_how_to_convert_them(tmp_path):
    make_llama(tmp_path, architecture="LlamaForCausalLM")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="its weights are pytorch_model.bin alone, a pickle, [^\n]* save_pretrained"):
        policies.load_policy(tmp_path)


def test_the_tokenizer_of_an_adapter_without_one_is_its_bases(tmp_path):
    import peft  # slow to import

    base = make_llama(tmp_path / "base", architecture="LlamaForCausalLM")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False, target_modules="all-linear")
    adapted = peft.get_peft_model(model, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    policy, text = policies.load_policy(tmp_path / "adapter"), torch.tensor([ids("rain sun a")])
    assert policy.tokenizer.chat_template == TEMPLATE
    with torch.inference_mode():
        assert torch.allclose(policy.model(text).logits, adapted(text).logits, atol=1e-5)
        assert not torch.allclose(policy.model(text).logits, policies.load_policy(base).model(text).logits, atol=1e-2)
