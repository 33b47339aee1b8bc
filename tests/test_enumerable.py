"""Transformers small enough to enumerate: the enumeration against the model, and the paper's bounds on 200 of them."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from rvlib import results
from rvlib.tabular import autoregressive, bounds

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib.lm.enumerable import rarity, study
from rvlib.lm.enumerable.enumeration import Enumeration, integrate_flow

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def transformers():
    """Measurements of 200 random transformers; half a minute."""
    return study.many_transformers()


@pytest.fixture(scope="module")
def small():
    enumeration = Enumeration(vocabulary=3, length=2, prompts=2, hidden=4)
    return enumeration, enumeration.start([[1], [2]])


def test_the_table_is_what_the_transformer_says(small):
    """`def-policy`: π(y) is the product of its tokens' softmax."""
    enumeration, vectors = small
    model = enumeration.model
    torch.nn.utils.vector_to_parameters(torch.tensor(vectors[1]), model.parameters())
    table = np.exp(autoregressive.log_probs(enumeration.logits(vectors)))[1]
    for prompt, probs in enumerate(table):
        for y, prob in zip(itertools.product(range(3), repeat=2), probs):
            expected = 1.0
            for position, token in enumerate(y):
                with torch.no_grad():
                    logits = model(torch.tensor([[3 + prompt, *y[:position]]])).logits[0, -1, :3]
                expected *= float(torch.softmax(logits, -1)[token])
            assert prob == pytest.approx(expected, rel=1e-12)


def test_automatic_differentiation_meets_the_formula(small):
    """`prop-bridge`, with G from `lem-log-derivative` and `lem-tokens`."""
    enumeration, vectors = small
    rng = np.random.default_rng(0)
    reward = rng.uniform(-1, 1, (2, 2, enumeration.outputs))
    reference, logits, kl_coef = enumeration.logits(vectors + 0.1), enumeration.logits(vectors), np.array([0.0, 0.3])
    gradient = enumeration.gradient(vectors, reward, reference, kl_coef)
    jacobian = enumeration.jacobian(vectors)
    values = autoregressive.kl_reward(logits, reward, reference, kl_coef[:, None])
    by_formula = np.einsum("bshvp,bshv->bsp", jacobian, autoregressive.policy_gradient(logits, values))
    np.testing.assert_allclose(gradient, by_formula, atol=1e-12)
    np.testing.assert_allclose(
        enumeration.mean_gradient(vectors, reward, reference, kl_coef), gradient.mean(1), atol=1e-12
    )
    direction = rng.normal(size=vectors.shape)
    difference = (
        enumeration.logits(vectors + 1e-6 * direction) - enumeration.logits(vectors - 1e-6 * direction)
    ) / 2e-6
    np.testing.assert_allclose(np.einsum("bshvp,bp->bshv", jacobian, direction), difference, atol=1e-7)


def test_the_flow_climbs_its_objective_as_fast_as_its_gradient_is_steep(small):
    enumeration, vectors = small
    reward = np.random.default_rng(1).uniform(-1, 1, (2, 2, enumeration.outputs))
    path = integrate_flow(enumeration, vectors, reward, [0.1, 0.05], kl_coef=[0.0, 0.2], points=41, tolerance=1e-8)
    objective = (path.probs * path.kl_reward).sum(-1).mean(-1)
    steep = np.stack(
        [(enumeration.mean_gradient(v, reward, path.logits[0], path.kl_coef) ** 2).sum(-1) for v in path.vectors]
    )
    np.testing.assert_allclose(objective[-1] - objective[0], np.trapezoid(steep, path.t, axis=0), rtol=1e-3)
    assert (np.diff(objective, axis=0) > 0).all()


def check_gradient(bound, measured):
    rows = measured["gradient"]
    most = bound(rows["variance"], rows["length"], rows["jacobian_norm"], rows["largest"])
    assert (rows["gradient_norm"] <= most * (1 + 1e-9)).all()


def check_time(bound, measured):
    rows = measured["time"]
    assert (
        rows["time"] >= bound(rows["variance"], rows["gain"], rows["length"], rows["jacobian_norm"], rows["kl_coef"])
    ).all()


def sharper_gradient(variance, length, jacobian_norm, reward_bound):
    return bounds.sharper_gradient_norm_bound(variance, length, jacobian_norm)


def sharper_time(variance, gain, length, jacobian_norm, kl_coef):
    return bounds.sharper_slow_time_bound(variance, gain, length, jacobian_norm)


@pytest.mark.parametrize("bound", [bounds.gradient_norm_bound, sharper_gradient])
def test_gradient_bounds(bound, transformers):
    # 100 transformers with one prompt and 100 with two, each at two times
    assert len(transformers["gradient"]["length"]) == 600
    check_gradient(bound, transformers)


@pytest.mark.parametrize("bound", [bounds.slow_time_bound, sharper_time])
def test_time_bounds(bound, transformers):
    assert len(transformers["time"]["gain"]) > 120
    check_time(bound, transformers)


def test_every_step_of_both_proofs(transformers):
    for chain in transformers["steps"]:
        steps = np.stack(list(chain.values()))
        assert (steps[1:] >= steps[:-1] * (1 - 1e-9)).all()
        np.testing.assert_allclose(chain["gradient norm"], transformers["gradient"]["gradient_norm"], rtol=1e-8)


@pytest.mark.parametrize(
    "check, broken",
    [
        (check_gradient, lambda *a: bounds.gradient_norm_bound(*a) / 40),
        (check_gradient, lambda *a: sharper_gradient(*a) / 2),
        (check_time, lambda *a: 4000 * bounds.slow_time_bound(*a)),
        (check_time, lambda *a: 10 * sharper_time(*a)),
    ],
)
def test_a_broken_bound_is_caught(check, broken, transformers):
    with pytest.raises(AssertionError):
        check(broken, transformers)


def test_the_numbers_of_the_book_are_these_models():
    """What is committed holds to the bounds too, and begins where the same code begins here."""
    book = results.load_enumerated_transformers()
    for check, bound in [(check_gradient, sharper_gradient), (check_time, sharper_time)]:
        check(bound, book["survey"])
    now = study.one_transformer(points=3)
    for name in ("proxy", "ground_truth", "variance", "gradient_norm", "jacobian_norm"):
        np.testing.assert_allclose(np.array(now[name])[:, [0, 2]], book["example"][name][:, [0, -1]], rtol=1e-3)


def test_the_numbers_of_the_book_are_read_without_torch():
    code = (
        "import sys; from rvlib import results; results.load_enumerated_transformers(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_errors_say_what_to_do(small):
    with pytest.raises(ValueError, match="prompts must be a whole number of at least 1"):
        Enumeration(prompts=0)
    with pytest.raises(ValueError, match="vocabulary must be a whole number of at least 2"):
        Enumeration(vocabulary=1)


def test_the_page_runs_the_same_transformer(node, tmp_path):
    cases = []
    for vocabulary, length, hidden in [(2, 1, 4), (3, 3, 4), (4, 2, 8)]:
        enumeration = Enumeration(vocabulary, length, hidden=hidden)
        vectors = enumeration.start([[5]], spread=0.4) + 0.1 * np.random.default_rng(0).normal(
            size=enumeration.num_parameters
        )
        logits, jacobian = enumeration.logits(vectors)[0, 0], enumeration.jacobian(vectors)[0, 0]
        values = np.random.default_rng(1).uniform(-1, 1, enumeration.outputs)
        cases.append(
            {
                "vocabulary": vocabulary,
                "length": length,
                "width": hidden,
                "vector": vectors[0].tolist(),
                "values": values.tolist(),
                "logits": logits.ravel().tolist(),
                "jacobian": jacobian.reshape(-1, enumeration.num_parameters).T.tolist(),
                "norm": float(autoregressive.jacobian_norm(jacobian)),
                "steps": [
                    [float(value) for value in chain.values()]
                    for chain in autoregressive.proof_steps(logits, values, jacobian)
                ],
            }
        )
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    result = node("--test", "tests/transformer.test.mjs", env={**os.environ, "CASES": str(tmp_path / "cases.json")})
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_natural_gradient_of_a_transformer_rises_at_the_rate_of_the_variance():
    """`prop-natural-network`, where the scores span every direction."""
    students = rarity.Students(4)
    probs, step = students.praised_probs(students.vectors), 1e-5
    for direction, rate in (
        (students.natural_direction(students.vectors), 4 * probs * (1 - probs)),  # the scores span every direction
        (students.gradient(students.vectors), (students.gradient(students.vectors) ** 2).sum(-1)),
    ):
        ends = [2 * students.praised_probs(students.vectors + way * direction) - 1 for way in (step, -step)]
        assert np.allclose((ends[0] - ends[1]) / (2 * step), rate, rtol=1e-4)


def test_the_time_until_half_counts_a_part_of_the_last_step():
    class Logits:  # students whose one parameter is the logit of the praised output
        vectors = np.array([[-1.0], [-2.6]])

        def praised_probs(self, vectors):
            return 1 / (1 + np.exp(-vectors[:, 0]))

    def climb(vectors, _):
        return vectors + 0.4, np.full(2, 0.2)  # at two units of the logit a unit of time

    assert rarity.time_until_half(Logits(), climb, 50) == pytest.approx([0.5, 1.3])
    assert rarity.time_until_half(Logits(), climb, 4)[1] == np.inf
