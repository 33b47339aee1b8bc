// Labels of the advantage estimators, written by `python -m rvlib.explore.samples`.
export const LABELS = {"rloo": "RLOO", "grpo": "GRPO", "dr_grpo": "Dr. GRPO", "reinforce": "REINFORCE"};
