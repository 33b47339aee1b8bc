"""The benchmark of a machine, run whole on a small model: what it writes is consistent, and both ways of a step compute the same."""

import json
import runpy

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("torch", reason="needs the language models' packages")

from rvlib import cli  # noqa: E402
from rvlib.lm import need  # noqa: E402
from rvlib.lm.experiments import bench, plan  # noqa: E402
from rvlib.lm.experiments import recipe as recipes  # noqa: E402
from rvlib.lm.models.policies import Policy  # noqa: E402
from rvlib.lm.optim import adam  # noqa: E402
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs  # noqa: E402

CHANGES = ["policy_gradient.max_new_tokens=24", "policy_gradient.batch_size=8", "runtime.micro_batch=4"]
ARGUMENTS = [
    "bench",
    "cpu",
    "--model",
    "tiny",
    "--recipe",
    "tiny-4.1",
    *(part for change in CHANGES for part in ("--set", change)),
]
EXACT = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.2-1b": 1_235_814_400,
    "smollm2-135m": 134_515_008,
    "pythia-2.8b": 2_775_208_960,
    "pythia-1b": 1_011_781_632,
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "result.json"
    cli.main([*ARGUMENTS, "--out", str(out)])
    return json.loads(out.read_text())


def test_rates_are_those_of_what_was_done(result):
    assert (
        list(result["stages"]) == [stage for stage in bench.STAGES if stage != "memory"] and result["parameters"] > 1e5
    )
    rate, bandwidth = result["machine_rates"]["matrix_rate"], result["machine_rates"]["bandwidth"]
    for name, stage in result["stages"].items():
        assert stage["tokens_per_second"] == pytest.approx(stage["tokens"] / stage["seconds"]), name
    layers = (
        2 * (64 * (64 + 64 + 32 + 32) + 3 * 64 * 192 + 2 * 64) + 64
    )  # attention, feed-forward and norms of two layers, and the last norm
    replies = result["stages"]["sampling"]["tokens"]
    for name, operations in (
        ("scoring", lambda t: 2 * layers * t),
        ("update", lambda t: 6 * (layers * t + 512 * 64 * replies)),
    ):
        stage = result["stages"][name]
        assert stage["share_of_matrix_rate"] == pytest.approx(operations(stage["tokens"]) / stage["seconds"] / rate)
    sampling = result["stages"]["sampling"]
    assert sampling["bytes"] > 4 * (layers + 512 * 64) * sampling["steps"] and sum(sampling["lengths"]) == replies
    assert sampling["share_of_bandwidth"] == pytest.approx(sampling["bytes"] / sampling["seconds"] / bandwidth)
    assert result["official_over_ours"] == pytest.approx(
        result["stages"]["step"]["tokens_per_second"] / result["stages"]["official"]["tokens_per_second"]
    )
    assert result["made"]["versions"]["torch"] and result["made"]["device"]


@pytest.mark.parametrize("name", EXACT)
def test_architectures_are_the_real_ones(name):
    transformers = need("transformers")
    with need("torch").device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**bench.ARCHITECTURES[name])
        )
    assert model.num_parameters() == EXACT[name]
    ours = [size for key, size in plan.MODELS.items() if key.rpartition("/")[2].lower() == name]
    assert all(size.parameters == pytest.approx(EXACT[name], rel=1e-3) for size in ours)


@pytest.mark.parametrize("recomputed", [False, True])
def test_operations_are_those_that_pytorch_counts(recomputed):
    """Of matrices with weights; attention between tokens, which is left out, is a few per cent at these lengths."""
    torch, transformers = need("torch"), need("transformers")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    config = transformers.AutoConfig.for_model(**bench.ARCHITECTURES["llama-3.1-8b"] | {"num_hidden_layers": 2})
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counted:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(True)
        with adam.gradient_checkpointing(model, recomputed):
            reply_log_probs(Policy(model, None, {}), [[1] * 200] * 4, [[2] * 200] * 4).sum().backward()
        head = model.get_output_embeddings().weight.numel()
        layers = model.base_model.num_parameters() - head
    by_kind = counted.get_flop_counts()["Global"]
    attention = sum(count for kind, count in by_kind.items() if "attention" in str(kind))
    each = (
        6 * layers + 2 * (layers - 2 * 4096 * 14336) * recomputed
    )  # recomputing stops before a layer's last matrix, whose result nobody asks for
    assert sum(by_kind.values()) - attention == pytest.approx(each * 4 * 399 + 6 * head * 4 * 200, rel=0.001)
    assert attention < 0.02 * sum(by_kind.values())


@pytest.mark.parametrize("rows, micro_batch, reply", [(16, 4, 24), (64, 16, 64)])
def test_the_memory_of_a_step_at_its_longest_is_what_is_planned(rows, micro_batch, reply):
    """Every allocation counted, on the CPU, where torch does not count them itself."""
    counter = runpy.run_path(str(ROOT / "benchmarks/memory.py"))["Counter"]()
    with counter:
        this = bench.Bench(
            "tiny",
            recipes.load(
                "tiny-4.1",
                [
                    f"runtime.batch_size={rows}",
                    f"runtime.micro_batch={micro_batch}",
                    f"policy_gradient.max_new_tokens={reply}",
                ],
            ),
            "cpu",
        )
        this.memory()  # now there are moments
        found = this.memory()
    assert counter.peak == pytest.approx(found["planned_memory"], rel=0.1)


def test_both_ways_of_a_step_compute_the_same():
    this = bench.Bench("tiny", recipes.load("tiny-4.1", CHANGES), "cpu")
    this.sampling()
    together = log_probs(this.policy, this.ids, this.replies)
    assert np.allclose(
        together, [bench.one_log_prob(this.policy.model, *row).item() for row in zip(this.ids, this.replies)], atol=1e-3
    )
    this.scoring()
    alone = [
        [this.teacher([prompt], [[reply]]).item() for reply in some] for prompt, some in zip(this.batch, this.written)
    ]
    assert np.allclose(this.rewards, alone, atol=1e-4)
    ends = this.policy.model.generation_config.eos_token_id
    assert all(len(reply) == 24 or reply[-1] in ends for reply in this.replies)


def test_a_stage_that_fails_does_not_lose_the_others(monkeypatch, tmp_path):
    def fail(self):
        raise MemoryError("no room")

    monkeypatch.setattr(bench.Bench, "scoring", fail)
    written = []
    found = bench.measure(
        "tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda result: written.append(json.dumps(result))
    )
    assert found["stages"]["scoring"] == {"failed": "MemoryError: no room"} and "seconds" in found["stages"]["official"]
    assert "sampling" in json.loads(written[0])["stages"] and "scoring" not in json.loads(written[0])["stages"]
    assert "no room" in bench.table(found)


def test_fewer_layers_are_a_smaller_model():
    found = bench.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda result: None, layers=1)
    layer = 64 * (64 + 64 + 32 + 32) + 3 * 64 * 192 + 2 * 64
    assert found["layers"] == 1 and found["parameters"] == layer + 64 + 2 * 512 * 64


def test_a_repetition_that_would_not_end_in_time_is_left_out(monkeypatch):
    runs = []
    monkeypatch.setattr(bench.Bench, "official", lambda self: runs.append(1) or {"seconds": 1e6, "tokens": 1})
    found = bench.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda result: None)
    assert len(runs) == 1 and found["stages"]["official"]["warm"] is False and found["stages"]["step"]["warm"] is True


def test_what_hangs_on_a_stage_that_failed_says_so(monkeypatch):
    monkeypatch.setattr(bench.Bench, "_draw", lambda *_: 1 / 0)
    found = bench.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda result: None)
    assert (
        "sampling failed" in found["stages"]["scoring"]["failed"]
        and "sampling failed" in found["stages"]["update"]["failed"]
    )


def test_models_that_do_not_fit_leave_a_result(monkeypatch):
    def full(self, *_):
        raise MemoryError("no room for the weights\nand more")

    monkeypatch.setattr(bench.Bench, "_made", full)
    written = []
    found = bench.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, written.append)
    assert (
        written == [found]
        and found["failed"] == "MemoryError: no room for the weights"
        and "no room" in bench.table(found)
    )


def test_time_that_is_over_is_said():
    found = bench.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 0, lambda result: None)
    assert (
        all("--minutes" in stage["failed"] for stage in found["stages"].values()) and "official_over_ours" not in found
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cpu", "--model", "lama-3.1-8b"], "did you mean 'llama-3.1-8b'?"),
        (["gpu", "--recipe", "tiny-4.1"], "torch sees none"),
        (["cpu", "--layers", "0"], "at least one"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, sentence, monkeypatch):
    monkeypatch.setattr(need("torch").cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=sentence.replace("?", r"\?")):
        bench.main(arguments)
