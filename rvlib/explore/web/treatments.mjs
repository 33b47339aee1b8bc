// @ts-check
// Remedies for low variance: two prompts that share a step, the rewards of the second nearly equal, and training on them
// with and without a remedy. Every step is the expected update of sampled groups, summed over all groups that there are:
//
//   E[ (1/k) Σ_i A_i (e_{y_i} - π) ],    A_i = (r_i - mean) / (deviation + 1e-4)^p,    over the k samples of six that are used
//
// a port of rvlib.tabular.remedies.expected_update, in the world of rvlib.explore.remedies.two_prompts.

import { expectation, softmax } from "./flow.mjs";
import { clamp, number } from "./plot.mjs";
import { normals, random } from "./rewards.mjs";

export const TRUTH = Float64Array.of(1, 1 / 3, 1 / 3, -1 / 3, -1 / 3, -1);
const N = TRUTH.length;
export const PROMPTS = ["loud", "quiet"];
export const [SAMPLES, STEPS] = [6, 150];
const MODELS = 11;
const STD_FLOOR = 1e-4; // as in rvlib.tabular.estimators
const DITHERED = 4; // levels

// ---- the world, and what each remedy does to its rewards ------------------------------------------------------------------

/** @typedef {ReturnType<typeof twoPrompts>} TwoPrompts */
/** @typedef {"fixed" | "plain"} Rule of a step's length: fixed, or that of the gradient */

/**
 * Logits, and scores [model][prompt][output]; the first model is the teacher.
 * @param {{error: number, quiet: number, skill: number, seed: number}} setting
 */
export function twoPrompts({ error, quiet, skill, seed }) {
  const normal = normals(random(seed));
  const logits = PROMPTS.map(() => TRUTH.map((truth) => normal() + 2 * skill * truth));
  const offsets = PROMPTS.map(() => 0.5 * normal());
  const scores = Array.from({ length: MODELS }, () =>
    PROMPTS.map((_, p) => TRUTH.map((truth) => (p ? quiet : 1) * (truth + error * normal()) + offsets[p])),
  );
  return { logits, scores, probs: logits.map(softmax) };
}

const expit = (/** @type {number} */ x) => 1 / (1 + Math.exp(-x));

/**
 * The rewards at the middles of even steps between the least and the largest; rvlib.tabular.remedies.discretised.
 * @type {(reward: Float64Array, levels: number) => Float64Array}
 */
function discretised(reward, levels) {
  const [low, high] = [Math.min(...reward), Math.max(...reward)];
  const unit = high > low ? high - low : 1;
  return reward.map(
    (r) => low + ((clamp(Math.floor(((r - low) / unit) * levels), 0, levels - 1) + 0.5) / levels) * (high - low),
  );
}

/**
 * A Bradley–Terry model trained on all pairs; rvlib.tabular.remedies.fit_bradley_terry.
 * @type {(reward: Float64Array, options: {smoothing?: number, margin?: number}) => Float64Array}
 */
function bradleyTerry(reward, { smoothing = 0, margin = 0 }) {
  const target = Array.from(reward, (a) => Array.from(reward, (b) => (1 - 2 * smoothing) * expit(a - b) + smoothing));
  let fitted = /** @type {Float64Array} */ (new Float64Array(N));
  for (let step = 0; step < 300; step++) {
    const moved = fitted.map((x) => x * (1 - 1e-3));
    for (let a = 0; a < N; a++)
      for (let b = 0; b < N; b++) {
        if (a === b) continue;
        const wrong = (4 / N) * target[a][b] * expit(margin - fitted[a] + fitted[b]);
        moved[a] += wrong;
        moved[b] -= wrong;
      }
    fitted = moved;
  }
  return fitted.map((x) => Math.round(x * 1e12) / 1e12); // outputs that were tied stay so
}

/** The place of each output among those of its prompt, in [-1, 1]. @type {(reward: Float64Array) => Float64Array} */
function places(reward) {
  const out = new Float64Array(N);
  Array.from(reward, (_, y) => y)
    .sort((i, j) => reward[i] - reward[j] || i - j)
    .forEach((y, place) => (out[y] = (2 * place) / (N - 1) - 1));
  return out;
}

/**
 * A remedy that changes each prompt's rewards.
 * @type {(change: (reward: Float64Array, strength: number, probs: Float64Array) => Float64Array) =>
 *   (world: TwoPrompts, strength: number) => {reward: Float64Array[]}}
 */
const onRewards = (change) => (world, strength) => ({
  reward: world.scores[0].map((reward, p) => change(reward, strength, world.probs[p])),
});
/** @type {(reward: Float64Array, probs: Float64Array, share?: number) => Float64Array} */
const centred = (reward, probs, share = 1) => {
  const mean = expectation(probs, reward);
  return reward.map((r) => r - share * mean);
};

/**
 * For each remedy its name, its strength in words, and what training has after it: rewards, the deviation's power p, and the
 * noise on each sample. `before` is what untreated training has, where that is more than the teacher's rewards.
 * @typedef {"none" | "scale" | "centre" | "bounded" | "smoothing" | "margin" | "ensemble" | "discretise" | "dither" | "spread" |
 *   "grpo" | "undivided"} Name
 * @typedef {{title: string, words: (strength: number) => string, before?: {power: number},
 *   after: (world: TwoPrompts, strength: number) => {reward?: Float64Array[], power?: number, noise?: number}}} Remedy
 * @type {Record<Name, Remedy>}
 */
export const REMEDIES = {
  none: { title: "No remedy", words: () => "–", after: () => ({}) },
  scale: {
    title: "Multiplied",
    words: (s) => `×${number(10 ** (s / 10), 2)}`,
    after: onRewards((reward, s) => reward.map((r) => 10 ** (s / 10) * r)),
  },
  centre: {
    title: "Centred",
    words: (s) => `${10 * s} %`,
    after: onRewards((reward, s, probs) => centred(reward, probs, s / 10)),
  },
  bounded: {
    title: "Bounded (PAR)",
    words: (s) => `slope ×${number(10 ** (s / 10), 2)}`,
    after: onRewards((reward, s, probs) => centred(reward, probs).map((r) => expit(10 ** (s / 10) * r))),
  },
  smoothing: {
    title: "Smooth labels",
    words: (s) => `ε = ${(s / 25).toFixed(2)}`,
    after: onRewards((reward, s) => bradleyTerry(reward, { smoothing: s / 25 })),
  },
  margin: {
    title: "Margin",
    words: (s) => `m = ${(s / 5).toFixed(1)}`,
    after: onRewards((reward, s) => bradleyTerry(reward, { margin: s / 5 })),
  },
  ensemble: {
    title: "Ensemble",
    words: (s) => (s ? `${1 + s} models` : "1 model"),
    after: ({ scores }, s) => ({
      reward: PROMPTS.map((_, p) =>
        TRUTH.map((_, y) => scores.slice(0, 1 + s).reduce((sum, model) => sum + model[p][y], 0) / (1 + s)),
      ),
    }),
  },
  discretise: {
    title: "Discretised",
    words: (s) => `${12 - s} levels`,
    after: onRewards((reward, s) => discretised(reward, 12 - s)),
  },
  dither: {
    title: "Dithered (ReDit)",
    words: (s) => `±${(s / 40).toFixed(3)}`,
    after: (world, s) => ({ ...onRewards((reward) => discretised(reward, DITHERED))(world, s), noise: s / 40 }),
  },
  spread: {
    title: "Spread ranking",
    words: (s) => `${10 * s} %`,
    after: onRewards((reward, s) => {
      const even = places(reward);
      return reward.map((r, y) => (1 - s / 10) * r + (s / 10) * even[y]);
    }),
  },
  grpo: {
    title: "Divided by deviation (GRPO)",
    words: (s) => `p = ${(s / 10).toFixed(1)}`,
    after: (_, s) => ({ power: s / 10 }),
  },
  undivided: {
    title: "Less division (Dr. GRPO)",
    words: (s) => `p = ${(1 - s / 10).toFixed(1)}`,
    before: { power: 1 },
    after: (_, s) => ({ power: 1 - s / 10 }),
  },
};

// ---- the expected update ------------------------------------------------------------------------------------------------

/** All groups of six samples, as counts of each output, and how many orders each has. */
const GROUPS = (() => {
  /** @type {Uint8Array[]} */
  const counts = [];
  const fill = (/** @type {number[]} */ counted, /** @type {number} */ left) => {
    if (counted.length === N - 1) counts.push(Uint8Array.from([...counted, left]));
    else for (let c = 0; c <= left; c++) fill([...counted, c], left - c);
  };
  fill([], SAMPLES);
  const factorial = [1, 1, 2, 6, 24, 120, 720];
  const orders = counts.map((group) => group.reduce((product, c) => product / factorial[c], factorial[SAMPLES]));
  return { counts, orders };
})();

/**
 * Mean of the listed values, and the sum of their squared deviations from it.
 * @type {(values: Float64Array, listed: number[]) => {mean: number, squares: number}}
 */
function spreadOf(values, listed) {
  let [mean, squares] = [0, 0];
  for (const i of listed) mean += values[i] / listed.length;
  for (const i of listed) squares += (values[i] - mean) ** 2;
  return { mean, squares };
}

/**
 * The largest variance of `size` of the sorted values: some of the lowest, and some of the highest.
 * @type {(values: Float64Array, size: number) => number}
 */
function largestVariance(values, size) {
  let most = 0;
  for (let low = 0; low <= size; low++) {
    const listed = Array.from({ length: size }, (_, i) => (i < low ? i : values.length - size + i));
    most = Math.max(most, spreadOf(values, listed).squares / size);
  }
  return most;
}

/**
 * For each group, Σ_i A_i/k at each output, (groups × outputs), and the variance of the samples used, with the largest that
 * so many of them can have. Where samples tie, each is as likely as the others to be used.
 * @param {Float64Array} reward
 * @param {number} power of the deviation by which advantages are divided
 * @param {number[]} ranks of the samples that are used, 0 the lowest reward
 */
export function groupTable(reward, power, ranks) {
  const order = Array.from(reward, (_, y) => y).sort((i, j) => reward[i] - reward[j] || i - j);
  const table = new Float64Array(GROUPS.counts.length * N);
  const [used, largest] = [new Float64Array(GROUPS.counts.length), new Float64Array(GROUPS.counts.length)];
  const k = ranks.length;
  const values = new Float64Array(SAMPLES);
  if (k >= 2)
    GROUPS.counts.forEach((counts, g) => {
      let place = 0;
      for (const y of order) for (let c = 0; c < counts[y]; c++) values[place++] = reward[y] - reward[order[0]];
      const { mean, squares } = spreadOf(values, ranks);
      used[g] = squares / k;
      largest[g] = largestVariance(values, k);
      if (values[ranks[k - 1]] === values[ranks[0]]) return; // a rounding error of the mean would be a direction
      const over = (Math.sqrt(squares / (k - 1)) + STD_FLOOR) ** power;
      for (let from = 0, to = 0; from < SAMPLES; from = to) {
        while (to < SAMPLES && values[to] === values[from]) to++;
        const share = ranks.filter((i) => i >= from && i < to).length / (to - from);
        const advantage = (share * (values[from] - mean)) / over / k;
        for (let y = 0; y < N; y++)
          if (counts[y] && reward[y] - reward[order[0]] === values[from]) table[g * N + y] = counts[y] * advantage;
      }
    });
  return { table, used, largest };
}

/**
 * Probability of each group under a policy.
 * @param {Float64Array} probs (outputs,)
 * @param {Float64Array} [out] where they are written, (groups,)
 */
export function groupProbabilities(probs, out = new Float64Array(GROUPS.counts.length)) {
  const powers = new Float64Array(N * (SAMPLES + 1));
  for (let y = 0; y < N; y++) {
    powers[y * (SAMPLES + 1)] = 1;
    for (let c = 1; c <= SAMPLES; c++) powers[y * (SAMPLES + 1) + c] = powers[y * (SAMPLES + 1) + c - 1] * probs[y];
  }
  const { counts, orders } = GROUPS;
  for (let g = 0; g < counts.length; g++) {
    let p = orders[g];
    for (let y = 0; y < N; y++) p *= powers[y * (SAMPLES + 1) + counts[g][y]];
    out[g] = p;
  }
  return out;
}

const buffer = new Float64Array(GROUPS.counts.length);

/**
 * Training by expected updates: the mean ground truth before and after each step, and that of each prompt.
 * @param {TwoPrompts} world
 * @param {ReturnType<typeof groupTable>[]} groups of each prompt
 * @param {{rule: Rule, step: number}} setting
 */
export function train({ logits }, groups, { rule, step }) {
  const theta = logits.map((row) => Float64Array.from(row));
  const each = PROMPTS.map(() => new Float64Array(STEPS + 1));
  const truth = new Float64Array(STEPS + 1);
  const update = PROMPTS.map(() => new Float64Array(N));
  for (let t = 0; t <= STEPS; t++) {
    let length = 0;
    theta.forEach((row, p) => {
      const probs = softmax(row);
      each[p][t] = expectation(probs, TRUTH);
      truth[t] += each[p][t] / PROMPTS.length;
      groupProbabilities(probs, buffer);
      const moved = update[p].fill(0);
      for (let g = 0; g < buffer.length; g++)
        for (let y = 0; y < N; y++) moved[y] += buffer[g] * groups[p].table[g * N + y];
      const total = moved.reduce((sum, x) => sum + x, 0);
      for (let y = 0; y < N; y++) {
        moved[y] -= probs[y] * total;
        length += moved[y] ** 2;
      }
    });
    const factor = rule === "plain" ? step : length > 0 ? step / Math.sqrt(length) : 0;
    theta.forEach((row, p) => row.forEach((x, y) => (row[y] = x + factor * update[p][y])));
  }
  return { truth, each };
}
