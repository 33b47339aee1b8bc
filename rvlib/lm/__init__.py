"""Language models: sample a policy, score its replies, train on the rewards, and run the paper's experiments.

The packages, each of which may import those before it, are `data`, `models`, `sampling` beside `optim`, `training`, and
`experiments` beside `enumerable`. Importing this package needs neither torch nor transformers. Start with
`experiments.run`.
"""

import logging

from rvlib._terminal import missing

__all__ = ["missing"]  # for notebooks

# transformers imports torchao, which warns of kernels for other machines and makes torch warn too.
for _logger in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_logger).setLevel(logging.ERROR)
