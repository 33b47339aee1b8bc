"""Language models: sample a policy, score its replies, train on the rewards, and run the paper's experiments.

Rooms, each of which may import those before it: `data`, `models`, `sampling`, `optim`, `training`, `experiments`;
`enumerable` stands beside. Importing this package needs neither torch nor transformers. Start with `experiments.run`.
"""

import logging

from rvlib._terminal import missing

__all__ = ["missing"]

# transformers imports torchao, which warns of other machines' kernels, and makes torch warn.
for _logger in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_logger).setLevel(logging.ERROR)
