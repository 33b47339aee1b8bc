"""The callback for TRL's trainers: what it logs equals the audit's statistics of the same groups."""

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -r requirements-test.txt")
datasets = pytest.importorskip(
    "datasets", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
import transformers

from rvlib.audit.monitoring import GroupStatistics, group_statistics
from rvlib.lm.data import tiny
from rvlib.lm.models import policies

NAN = float("nan")


def test_the_numbers_of_a_batch_by_hand():
    # Variances ½, 0 and 2.
    rewards = np.array([[0.0, 1.0], [3.0, 3.0], [1.0, 3.0]])
    numbers = group_statistics(rewards)
    assert numbers["reward_variance"] == pytest.approx(2.5 / 3) and numbers["flat"] == pytest.approx(1 / 3)
    assert numbers["reward_variance_share"] == pytest.approx(2.5 / 3 / rewards.var(ddof=1))
    assert numbers["signal_to_noise"] == pytest.approx((2.5 / 3) / np.std([0.5, 0.0, 2.0], ddof=1))
    with_truth = group_statistics(rewards, np.array([[0.0, 2.0], [1.0, 0.0], [1.0, 0.0]]))  # covariances 1, 0, -1
    assert with_truth["covariance"] == with_truth["signal_to_noise"] == 0
    abstained = group_statistics(np.array([[0.0, 1.0, NAN], [NAN, NAN, NAN], [2.0, NAN, NAN]]))
    assert abstained["reward_variance"] == 0.5 and abstained["flat"] == 0.5 and np.isnan(abstained["signal_to_noise"])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(tmp_path_factory.mktemp("data")))
        yield policies.load_policy(tiny.TINY, device="cpu")


@pytest.mark.parametrize("kind", ["RLOO", "GRPO"])
def test_trls_trainer_logs_the_statistics_of_its_groups(policy, tmp_path, kind):
    batches = []

    def length(completions, **_):
        rewards = [float(len(turns[0]["content"])) for turns in completions]
        batches.append(np.reshape(rewards, (-1, 4)))
        return rewards

    def words(completions, **_):
        return [float(len(turns[0]["content"].split())) for turns in completions]

    config = getattr(trl, f"{kind}Config")(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=4,
        learning_rate=0.0,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        reward_weights=[1.0, 0.0],
    )
    rows = [{"prompt": [{"role": "user", "content": prompt.text}]} for prompt in tiny.prompts(4, 0)]
    trainer = getattr(trl, f"{kind}Trainer")(
        model=policy.model,
        reward_funcs=[length, words],
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=policy.tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with pytest.raises(
        ValueError, match="^ground_truth must be one of the reward functions length, words, got 'x'\\.$"
    ):
        GroupStatistics(trainer, ground_truth="x")
    trainer.add_callback(GroupStatistics(trainer, ground_truth="words"))
    trainer.train()
    logged = [line for line in trainer.state.log_history if "reward_std" in line]
    assert len(logged) == len(batches) == 2
    for line, rewards in zip(logged, batches):
        assert rewards.shape == (2, 4)
        assert line["groups/reward_variance"] == pytest.approx(rewards.var(-1, ddof=1).mean(), rel=1e-5)
        assert line["groups/flat"] == pytest.approx((np.ptp(rewards, axis=-1) == 0).mean())
        assert line["groups/flat"] == pytest.approx(line["frac_reward_zero_std"])
        assert line["reward_std"] ** 2 == pytest.approx(rewards.var(ddof=1), rel=1e-4)  # TRL's is over the batch
        assert line["groups/covariance"] > 0 and "groups/signal_to_noise" in line
    assert "_calculate_rewards" not in vars(trainer)  # as it was


def test_another_trainer_is_one_sentence():
    with pytest.raises(
        ValueError, match="^The trainer must be TRL's RLOOTrainer or GRPOTrainer, got object [^\n]*\\.$"
    ):
        GroupStatistics(object())
