"""A causal language model small enough to enumerate: expectations, gradients and Jacobians exact, over all V^L outputs.

    θ ↦ f_θ(x, h) for every prefix h,   D = ∂f/∂θ,   ∇φ(θ; x) = Σ_h D_hᵀ (π(h) p_h ⊙ A_h),   J = max_h ‖D_h‖

The transformer is one of transformers' own; what it says of each prefix is a table of logits, and from there on
`rvlib.tabular.autoregressive` has the formulas. Parameters are flat vectors, so that SciPy can integrate the gradient
flow, and come in batches (B, P): many models of one architecture move together.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import transformers
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from rvlib import _checks
from rvlib.metrics import reward_variance
from rvlib.tabular import autoregressive

Array = NDArray[np.float64]


class Enumeration:
    """All outputs of `length` tokens from a vocabulary, for prompts of one token each, of transformers of one shape.

    vocabulary V >= 2, length L >= 1, prompts S >= 1; hidden: width of the GPT-2, an even number. Tokens 0 to V - 1 are
    written, V to V + S - 1 are the prompts. Everything is float64.
    """

    def __init__(
        self, vocabulary: int = 3, length: int = 3, prompts: int = 1, *, hidden: int = 8, layers: int = 1
    ) -> None:
        self.prefixes, self.outputs = autoregressive.shape_of(vocabulary, length)
        self.vocabulary, self.length, self.prompts = vocabulary, length, _checks.whole("prompts", prompts)
        # GPT-2 and not Llama, whose norms, rotations and attention pass through 32-bit floats whatever the weights are.
        config = transformers.GPT2Config(
            vocab_size=vocabulary + prompts,
            n_embd=hidden,
            n_layer=layers,
            n_head=2,
            n_positions=length,
            n_inner=2 * hidden,
            tie_word_embeddings=False,
            use_cache=False,
            attn_implementation="eager",
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model = transformers.GPT2LMHeadModel(config).double().eval()
        self.shapes = {name: tuple(value.shape) for name, value in self.model.named_parameters()}
        self.num_parameters = sum(int(np.prod(shape)) for shape in self.shapes.values())
        # A prefix is read off the first string that begins with it, since a causal model sees nothing of what follows.
        strings = torch.tensor(list(itertools.product(range(vocabulary), repeat=length - 1)), dtype=torch.long)
        heads = torch.arange(vocabulary, vocabulary + prompts).repeat_interleave(len(strings))
        self.ids = torch.cat([heads[:, None], strings.repeat(prompts, 1)], 1)
        first = [h * vocabulary ** (length - 1 - depth) for depth in range(length) for h in range(vocabulary**depth)]
        depth = [depth for depth in range(length) for _ in range(vocabulary**depth)]
        self.rows, self.columns = torch.tensor(first), torch.tensor(depth)

    def start(self, seed_paths: Sequence[Sequence[int]], spread: float = 0.5) -> Array:
        """Random parameters (B, P), a model for each path of whole numbers, which are its seed together.

        Normal with standard deviation `spread`; gains of the norms at 1, biases at 0.
        """
        vectors = np.empty((len(seed_paths), self.num_parameters))
        for row, seed_path in zip(vectors, seed_paths):
            generator = np.random.default_rng(seed_path)
            parts = [
                spread * generator.normal(size=shape)
                if len(shape) > 1
                else np.full(shape, float(name.endswith("weight")))
                for name, shape in self.shapes.items()
            ]
            row[:] = np.concatenate([part.ravel() for part in parts])
        return vectors

    def logits(self, vectors: ArrayLike) -> Array:
        """f_θ of every prefix: (B, S, prefixes, V) from parameters (B, P)."""
        with torch.no_grad():
            return torch.func.vmap(self._table)(torch.as_tensor(vectors)).numpy()

    def summed_logits(self, vectors: ArrayLike) -> Array:
        """Σ_l f_θ(x, y_{<l})_{y_l} of every output: (B, S, V^L), what a reward model of this shape makes of it."""
        table, total = self.logits(vectors), np.zeros((len(np.asarray(vectors)), self.prompts, 1))
        for depth, start in enumerate(np.cumsum([0, *(self.vocabulary**depth for depth in range(self.length - 1))])):
            rows = table[:, :, start : start + self.vocabulary**depth]
            total = (total[..., None] + rows).reshape(*total.shape[:2], -1)
        return total

    def token_logits(self, vectors: torch.Tensor, prompts: ArrayLike, outputs: ArrayLike) -> torch.Tensor:
        """f_θ(x, y_{<l})_{y_l} of these outputs, (B, N, L), with a gradient in vectors (B, P).

        prompts, outputs: whole numbers (B, N), the outputs in the order of all V^L.
        """
        ids, tokens = self.token_ids(prompts, outputs)
        logits = torch.func.vmap(self._forward)(vectors, ids)[..., : self.vocabulary]
        return logits.gather(-1, tokens[..., None])[..., 0]

    def output_log_probs(self, vectors: torch.Tensor, prompts: ArrayLike, outputs: ArrayLike) -> torch.Tensor:
        """The ln π_θ(y|x) of these outputs, (B, N), with a gradient in vectors (B, P); arguments: `token_logits`'s."""
        ids, tokens = self.token_ids(prompts, outputs)
        logits = torch.func.vmap(self._forward)(vectors, ids)[..., : self.vocabulary]
        return torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0].sum(-1)

    def token_ids(self, prompts: ArrayLike, outputs: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model reads and what it is to write, (B, N, L) each, for prompts and outputs (B, N)."""
        digits = np.array(np.unravel_index(np.asarray(outputs), (self.vocabulary,) * self.length))
        tokens = torch.from_numpy(np.moveaxis(digits, 0, -1))
        heads = torch.from_numpy(np.asarray(prompts) + self.vocabulary)[..., None]
        return torch.cat([heads, tokens[..., :-1]], -1), tokens

    def draw(self, vectors: torch.Tensor, prompts: ArrayLike, uniform: Array) -> NDArray[np.intp]:
        """Outputs drawn from π_θ, whole numbers (B, N), a token for each of the numbers `uniform` (N, L) in [0, 1).

        vectors (B, P); prompts (B, N). All models are given the same random numbers.
        """
        ids = torch.from_numpy(np.asarray(prompts) + self.vocabulary)[..., None]
        for position in range(self.length):
            with torch.no_grad():
                logits = torch.func.vmap(self._forward)(vectors, ids)[:, :, -1, : self.vocabulary]
            below = torch.softmax(logits, -1).cumsum(-1) <= torch.from_numpy(uniform[:, position])[:, None]
            ids = torch.cat([ids, below.sum(-1, keepdim=True).clamp(max=self.vocabulary - 1)], -1)
        tokens = np.moveaxis(ids[..., 1:].numpy(), -1, 0)
        return np.ravel_multi_index(tuple(tokens), (self.vocabulary,) * self.length)

    def jacobian(self, vectors: ArrayLike) -> Array:
        """∂f/∂θ: (B, S, prefixes, V, P), by automatic differentiation."""
        return torch.func.vmap(torch.func.jacrev(self._table))(torch.as_tensor(vectors)).numpy()

    def gradient(self, vectors: ArrayLike, reward: ArrayLike, reference_logits: Array, kl_coef: ArrayLike) -> Array:
        """∇φ(θ; x), by automatic differentiation of the sum over all outputs: (B, S, P), a row for each prompt.

        vectors (B, P); reward (B, S, V^L); reference_logits (B, S, prefixes, V); kl_coef (B,).
        """
        tensors = _tensors(vectors, reward, autoregressive.log_probs(reference_logits), kl_coef)
        return torch.func.vmap(torch.func.jacrev(self._objectives))(*tensors).numpy()

    def mean_gradient(
        self, vectors: ArrayLike, reward: ArrayLike, reference_logits: Array, kl_coef: ArrayLike
    ) -> Array:
        """∇φ(θ), the mean over the prompts, (B, P): one backward pass. Arguments as of `gradient`."""
        tensors = _tensors(vectors, reward, autoregressive.log_probs(reference_logits), kl_coef)
        return torch.func.vmap(torch.func.grad(lambda *a: self._objectives(*a).mean()))(*tensors).numpy()

    def _table(self, vector: torch.Tensor) -> torch.Tensor:
        """(S, prefixes, V) from a tensor (P,): one forward pass over all strings of all prompts."""
        all_logits = self._forward(vector, self.ids)
        by_prompt = all_logits.reshape(self.prompts, -1, self.length, self.vocabulary + self.prompts)
        return by_prompt[:, self.rows, self.columns, : self.vocabulary]

    def _forward(self, vector: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits (N, tokens, V + S) from a tensor (P,) and token ids (N, tokens)."""
        start, parameters = 0, {}
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            parameters[name] = vector[start : start + size].reshape(shape)
            start += size
        return torch.func.functional_call(self.model, parameters, (), {"input_ids": ids}).logits

    def _objectives(
        self, vector: torch.Tensor, reward: torch.Tensor, ref_logprobs: torch.Tensor, kl_coef: torch.Tensor
    ) -> torch.Tensor:
        """φ(θ; x) of each prompt, (S,), in torch. reward, ref_logprobs: of all outputs, (S, V^L)."""
        table, start = torch.log_softmax(self._table(vector), -1), 0
        logprobs = torch.zeros(self.prompts, 1, dtype=torch.float64)
        for depth in range(self.length):
            rows = table[:, start : start + self.vocabulary**depth]
            logprobs = (logprobs[..., None] + rows).reshape(self.prompts, -1)
            start += self.vocabulary**depth
        return (torch.exp(logprobs) * (reward - kl_coef * (logprobs - ref_logprobs))).sum(-1)


def _tensors(*values: ArrayLike) -> list[torch.Tensor]:
    return [torch.tensor(np.asarray(value, dtype=float)) for value in values]


@dataclass(frozen=True)
class ParameterFlow:
    """A gradient flow of B models, seen at K times, and what it maximised."""

    enumeration: Enumeration
    t: Array  # (K, B)
    vectors: Array  # (K, B, P)
    logits: Array  # (K, B, S, prefixes, V)
    reward: Array  # (B, S, V^L)
    kl_coef: Array  # (B,)

    @cached_property
    def probs(self) -> Array:
        """π_θ(t) of all outputs, (K, B, S, V^L)."""
        return np.exp(autoregressive.log_probs(self.logits))

    @cached_property
    def kl_reward(self) -> Array:
        """r^KL, (K, B, S, V^L)."""
        return autoregressive.kl_reward(self.logits, self.reward, self.logits[:1], self.kl_coef[:, None])

    @cached_property
    def variance(self) -> Array:
        """Var of r^KL, (K, B, S); at time 0 the reward variance."""
        return reward_variance(self.kl_reward, self.probs)

    def expected(self, reward: ArrayLike) -> Array:
        """E_π of a reward (B, S, V^L): (K, B, S)."""
        return (self.probs * np.asarray(reward, dtype=float)).sum(-1)

    def gradient_norm(self, k: int) -> Array:
        """‖∇φ(θ; x)‖ at the k-th time, (B, S), by automatic differentiation."""
        gradient = self.enumeration.gradient(self.vectors[k], self.reward, self.logits[0], self.kl_coef)
        return np.linalg.norm(gradient, axis=-1)

    def jacobian_norm(self, k: int) -> Array:
        """J_x at the k-th time, (B, S): the largest spectral norm over the prefixes."""
        return autoregressive.jacobian_norm(self.enumeration.jacobian(self.vectors[k]))


def integrate_flow(
    enumeration: Enumeration,
    vectors: Array,
    reward: ArrayLike,
    t_max: ArrayLike,
    *,
    kl_coef: ArrayLike = 0.0,
    points: int = 41,
    tolerance: float = 1e-6,
) -> ParameterFlow:
    """Gradient flow on the RLHF objective from `vectors` (B, P) to t_max (B,), seen at `points` even times.

    reward (B, S, V^L); kl_coef: a number or (B,); tolerance: of a step's error, relative and absolute. Runge-Kutta
    steps by SciPy, common to the batch, each model on its own clock. RuntimeError, in one sentence, if they get stuck.
    """
    reward, t_max = np.asarray(reward, dtype=float), np.asarray(t_max, dtype=float)
    kl_coef = np.broadcast_to(np.asarray(kl_coef, dtype=float), len(vectors))
    initial_logits = enumeration.logits(vectors)

    def velocity(_: float, flat: Array) -> Array:
        gradient = enumeration.mean_gradient(flat.reshape(vectors.shape), reward, initial_logits, kl_coef)
        return (t_max[:, None] * gradient).ravel()

    share = np.linspace(0, 1, points)
    path = solve_ivp(velocity, (0.0, 1.0), vectors.ravel(), t_eval=share, rtol=tolerance, atol=tolerance)
    if not path.success:
        raise RuntimeError(
            f"The flow must be integrated to t_max, but stopped at {path.t[-1]:.3g} of it ({path.message}); "
            "choose a shorter t_max."
        )
    states = path.y.T.reshape(points, *vectors.shape)
    logits = np.stack([enumeration.logits(state) for state in states])
    return ParameterFlow(enumeration, share[:, None] * t_max, states, logits, reward, kl_coef)
