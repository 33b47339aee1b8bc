// @ts-check
// Reward models made to order, the teachers of the paper's Theorem 5, and Best-of-N:
// a port of rvlib/tabular/rewards.py and best_of_n.py, on flow.mjs.

import { expectation, rewardCovariance, rewardVariance } from "./flow.mjs";

// ---- reward models made to order: rvlib/tabular/rewards.py, for ground truths without ties ----------------------------------

/**
 * The generator mulberry32: () => the next number in [0, 1), the same as rvlib.tabular.rewards.random draws.
 * @param {number} seed
 * @returns {() => number}
 */
export function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let b = Math.imul(a ^ (a >>> 15), a | 1);
    b = ((b + Math.imul(b ^ (b >>> 7), b | 61)) ^ b) >>> 0;
    return ((b ^ (b >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Standard normal numbers, by Box and Muller, from numbers in [0, 1).
 * @param {() => number} uniform
 * @returns {() => number}
 */
export const normals = (uniform) => () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

/** @type {(n: number) => number} */
const pairsOf = (n) => (n * (n - 1)) / 2;

/**
 * Every accuracy that a reward model for distinct ground truth rewards can have: the multiples of one over the pairs.
 * @param {Numbers} groundTruth (n,)
 * @returns {Float64Array} (n(n-1)/2 + 1,)
 */
export const attainableAccuracies = (groundTruth) =>
  Float64Array.from({ length: pairsOf(groundTruth.length) + 1 }, (_, right) => right / pairsOf(groundTruth.length));

/**
 * Levels, 0 the worst, of a reward model with this accuracy: outputs ranked by noise - c · rank, with c between the slopes that
 * turn over the last pair to be misordered and the next; see rvlib/tabular/rankings.py.
 * @type {(groundTruth: Numbers, accuracy: number, seed: number) => number[]}
 */
function ranking(groundTruth, accuracy, seed) {
  const n = groundTruth.length;
  const right = Math.round(accuracy * pairsOf(n));
  if (!(Math.abs(right - accuracy * pairsOf(n)) < 1e-6 && accuracy >= 0 && accuracy <= 1))
    throw new RangeError(`accuracy must be a multiple of one over ${pairsOf(n)} pairs in [0, 1], got ${accuracy}.`);
  const best = Array.from({ length: n }, (_, i) => i).sort((i, j) => groundTruth[j] - groundTruth[i]);
  if (best.some((y, i) => i && groundTruth[y] === groundTruth[best[i - 1]]))
    throw new RangeError("groundTruth must be free of ties in the page; rvlib.tabular takes them.");
  const next = random(seed + 2 ** 31);
  const noise = Float64Array.from({ length: n }, next);
  const rank = Array.from({ length: n }, (_, i) => n - 1 - i);
  const slopes = new Float64Array(pairsOf(n));
  let count = 0;
  for (let i = 0; i < n; i++)
    for (let j = i + 1; j < n; j++) slopes[count++] = (noise[i] - noise[j]) / (rank[i] - rank[j]);
  slopes.sort();
  const wrong = count - right;
  const c =
    wrong === 0 ? slopes[0] - 1 : wrong === count ? slopes[count - 1] + 1 : (slopes[wrong - 1] + slopes[wrong]) / 2;
  const order = rank.map((_, i) => i).sort((i, j) => c * rank[i] - noise[i] - (c * rank[j] - noise[j]) || i - j);
  // Slopes that are equal, or nearly, leave a pair too many or too few: neighbours change places until the number is right.
  let missing = wrong;
  for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) missing -= Number(order[j] < order[i]);
  while (missing)
    for (let i = 0; i + 1 < n; i++) {
      if (!missing || order[i] < order[i + 1] !== missing > 0) continue;
      [order[i], order[i + 1]] = [order[i + 1], order[i]];
      missing -= Math.sign(missing);
    }
  /** @type {number[]} */
  const levels = new Array(n);
  order.forEach((i, place) => (levels[best[i]] = n - 1 - place));
  return levels;
}

/**
 * The step, -1 below some level and 1 from it on, whose variance is largest.
 * @type {(levels: number[], probs: Numbers) => number[]}
 */
function stepOf(levels, probs) {
  const n = levels.length;
  const mass = new Float64Array(n);
  levels.forEach((level, y) => (mass[level] = probs[y]));
  const [below, above] = [Float64Array.from(mass), Float64Array.from(mass)];
  for (let level = 1; level < n; level++) below[level] += below[level - 1];
  for (let level = n - 2; level >= 0; level--) above[level] += above[level + 1];
  const variance = below.subarray(0, n - 1).map((p, level) => p * above[level + 1]);
  const most = variance.reduce((a, b) => Math.max(a, b));
  const split = variance.findIndex((v) => v >= most * (1 - 1e-12)); // the first of equals, whatever their last digit
  return levels.map((level) => (level > split ? 1 : -1));
}

/**
 * [low, high]: makeRewardModel reaches every reward variance v with low < v <= high at this accuracy and seed.
 * @param {Numbers} groundTruth (n,)
 * @param {Numbers} probs (n,)
 * @param {number} accuracy one of attainableAccuracies
 * @param {number} seed
 * @returns {[number, number]}
 */
export function attainableVariance(groundTruth, probs, accuracy, seed) {
  return [0, rewardVariance(stepOf(ranking(groundTruth, accuracy, seed), probs), probs)];
}

/**
 * Rewards in [-1, 1] with exactly this accuracy and this variance under probs.
 * @param {Numbers} groundTruth (n,)
 * @param {Numbers} probs (n,)
 * @param {number} accuracy one of attainableAccuracies
 * @param {number} variance in attainableVariance
 * @param {number} seed
 * @returns {Float64Array} (n,)
 */
export function makeRewardModel(groundTruth, probs, accuracy, variance, seed) {
  const levels = ranking(groundTruth, accuracy, seed);
  const n = levels.length;
  const [even, step] = [levels.map((level) => (2 * level) / (n - 1) - 1), stepOf(levels, probs)];
  const largest = rewardVariance(step, probs);
  if (variance === 0 && largest === 0) return Float64Array.from(even);
  if (!(variance > 0 && variance <= largest * (1 + 1e-12)))
    throw new RangeError(`variance must be in (0, ${largest}] for this accuracy and seed, got ${variance}.`);
  const mix = (/** @type {number} */ rest) => Float64Array.from(even, (r, y) => rest * r + (1 - rest) * step[y]); // rest = 1 - τ
  const away = step.map((r, y) => r - even[y]);
  const [falls, rises] = [-rewardCovariance(even, away, probs), rewardCovariance(step, away, probs)];
  const start = falls > 0 && rises > 0 ? Math.min(falls / (falls + rises), 1 - APART) : 0;
  const base = mix(1 - start);
  const gentle = rewardVariance(base, probs);
  if (variance <= gentle || n === 2) return base.map((r) => r * Math.min(Math.sqrt(variance / gentle), 1));
  const missing = Math.max(largest - variance, 0);
  const rest = missing / (rises + Math.sqrt(Math.max(rises ** 2 - rewardVariance(away, probs) * missing, 0)));
  return mix(Math.min(Math.max(rest, APART), 1 - start));
}

const APART = 1e-10; // keeps neighbours distinct in double precision

// ---- the teachers of the paper's Theorem 5 --------------------------------------------------------------------------------

/**
 * The slow teacher: rewards in (0, 1/T) with this accuracy; rvlib.tabular.accurate_but_slow.
 * @param {Numbers} groundTruth (n,)
 * @param {number} accuracy one of attainableAccuracies
 * @param {number} slowness T
 * @param {number} seed
 * @returns {Float64Array} (n,)
 */
export function accurateButSlow(groundTruth, accuracy, slowness, seed) {
  const levels = ranking(groundTruth, accuracy, seed);
  return Float64Array.from(levels, (level) => (level + 1) / (levels.length + 1) / slowness);
}

/**
 * The fast teacher: 1 on output 0, which must be the best, the others between 0 and its probability, with this accuracy;
 * rvlib.tabular.inaccurate_but_fast.
 * @param {Numbers} groundTruth (n,)
 * @param {Numbers} probs (n,)
 * @param {number} accuracy right pairs over all pairs, at least the n - 1 pairs of output 0
 * @param {number} seed
 * @returns {Float64Array} (n,)
 */
export function inaccurateButFast(groundTruth, probs, accuracy, seed) {
  const n = groundTruth.length;
  const levels = n > 2 ? ranking(groundTruth.slice(1), (accuracy * pairsOf(n) - (n - 1)) / pairsOf(n - 1), seed) : [0];
  return Float64Array.from(groundTruth, (_, y) => (y ? (probs[0] * (levels[y - 1] + 1)) / n : 1));
}

/**
 * Upper bounds on t_γ under the fast teacher, of the paper's Theorem 5 and ours; in the units of the flow, for λ = 0.
 * @param {Numbers} groundTruth (n,)
 * @param {Numbers} probs (n,)
 * @param {Numbers} reward (n,)
 * @param {number} gain
 */
export function fastTimeBounds(groundTruth, probs, reward, gain) {
  const rho = (expectation(probs, groundTruth) + gain + 1) / (groundTruth[0] + 1);
  const wait = 1 / probs[0] - 1 / rho;
  return {
    paper: (4 / (1 - rho) ** 4) * wait,
    ours: (1.6 / ((1 - rho) ** 2 * (1 - expectation(probs, reward)))) * wait,
  };
}

// ---- Best-of-N --------------------------------------------------------------------------------------------------------

/**
 * Distribution of the output that Best-of-n keeps, a tie broken evenly among the samples; rvlib.tabular.best_of_n_probs.
 * @param {Numbers} probs (n,)
 * @param {Numbers} reward (n,)
 * @param {number} n samples
 * @returns {Float64Array} (n,)
 */
export function bestOfNProbs(probs, reward, n) {
  const order = Array.from(reward, (_, y) => y).sort((a, b) => reward[b] - reward[a]); // best first
  const kept = new Float64Array(reward.length);
  let [above, power] = [0, 1]; // the probability of better levels; of no sample among them
  for (let i = 0, end; i < order.length; i = end) {
    let mass = 0;
    for (end = i; end < order.length && reward[order[end]] === reward[order[i]]; end++) mass += probs[order[end]];
    above = Math.min(above + mass, 1);
    const below = end === order.length ? 0 : Math.exp(n * Math.log1p(-above)); // from the top down: digits near 1 are kept
    for (let k = i; k < end; k++) kept[order[k]] = mass > 0 ? (probs[order[k]] / mass) * Math.max(power - below, 0) : 0;
    power = below;
  }
  return kept;
}
