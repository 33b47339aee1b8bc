// Tables 10 to 12 of arXiv 2503.15477, written by `python -m rvlib.explore.tables`.
export default [
 {
  "label": "Pythia-1B, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.405,
   0.528,
   0.544,
   0.549
  ],
  "on_policy_accuracy": [
   0.7,
   0.7,
   0.705,
   0.639
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.176,
   0.148,
   0.173,
   0.108
  ],
  "proxy_increase": [
   0.322,
   0.272,
   0.457,
   0.474
  ]
 },
 {
  "label": "Llama-1B, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.5,
   0.562,
   0.6,
   0.644
  ],
  "on_policy_accuracy": [
   0.716,
   0.737,
   0.737,
   0.676
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.28,
   0.278,
   0.32,
   0.274
  ],
  "proxy_increase": [
   0.487,
   0.484,
   0.743,
   0.898
  ]
 },
 {
  "label": "Llama-1B-Instruct, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.261,
   0.323,
   0.299,
   0.336
  ],
  "on_policy_accuracy": [
   0.731,
   0.758,
   0.751,
   0.647
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.105,
   0.124,
   0.097,
   0.101
  ],
  "proxy_increase": [
   0.194,
   0.232,
   0.213,
   0.339
  ]
 },
 {
  "label": "Pythia-2.8B, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.419,
   0.518,
   0.527,
   0.54
  ],
  "on_policy_accuracy": [
   0.72,
   0.735,
   0.741,
   0.643
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.14,
   0.167,
   0.131,
   0.094
  ],
  "proxy_increase": [
   0.331,
   0.288,
   0.384,
   0.583
  ]
 },
 {
  "label": "Llama-3B, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.397,
   0.453,
   0.472,
   0.552
  ],
  "on_policy_accuracy": [
   0.736,
   0.763,
   0.756,
   0.674
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.248,
   0.272,
   0.248,
   0.243
  ],
  "proxy_increase": [
   0.415,
   0.418,
   0.554,
   0.87
  ]
 },
 {
  "label": "Llama-3B-Instruct, RLOO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.249,
   0.301,
   0.279,
   0.32
  ],
  "on_policy_accuracy": [
   0.714,
   0.743,
   0.73,
   0.651
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.096,
   0.099,
   0.091,
   0.094
  ],
  "proxy_increase": [
   0.184,
   0.223,
   0.227,
   0.255
  ]
 },
 {
  "label": "Pythia-1B, GRPO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.405,
   0.528,
   0.544,
   0.549
  ],
  "on_policy_accuracy": [
   0.7,
   0.7,
   0.705,
   0.639
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.131,
   0.067,
   0.101,
   0.08
  ],
  "proxy_increase": [
   0.296,
   0.229,
   0.43,
   0.477
  ]
 },
 {
  "label": "Llama-1B, GRPO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.5,
   0.562,
   0.6,
   0.644
  ],
  "on_policy_accuracy": [
   0.716,
   0.737,
   0.737,
   0.676
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.29,
   0.281,
   0.274,
   0.279
  ],
  "proxy_increase": [
   0.514,
   0.522,
   0.796,
   1.028
  ]
 },
 {
  "label": "Llama-1B-Instruct, GRPO",
  "models": [
   "GRM-Gemma-2-2B",
   "GRM-Llama-3.2-3B",
   "RM-Tulu-V2-8B",
   "RM-Gemma-2B"
  ],
  "reward_variance": [
   0.261,
   0.323,
   0.299,
   0.336
  ],
  "on_policy_accuracy": [
   0.731,
   0.758,
   0.751,
   0.647
  ],
  "off_policy_accuracy": [
   0.802,
   0.838,
   0.86,
   0.8
  ],
  "ground_truth_increase": [
   0.15,
   0.159,
   0.139,
   0.14
  ],
  "proxy_increase": [
   0.23,
   0.283,
   0.336,
   0.498
  ]
 }
];
