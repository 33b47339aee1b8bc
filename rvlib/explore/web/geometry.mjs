// @ts-check
// The natural gradient in the page: a port of rvlib/tabular/geometry.py. Nothing is integrated: the policy is known at every time.
//
//   dθ/dt = r^KL - E_π r^KL,     π_t ∝ π_ref exp(s r),     s = (1 - e^{-λt})/λ, or t where λ = 0

import { expectation, klDivergence, rewardVariance, softmax } from "./flow.mjs";

/** @typedef {import("./flow.mjs").Numbers} Numbers */
/** @typedef {import("./flow.mjs").Flow} Flow */

const [TINY, FOREVER] = [1e-300, 1e300]; // in place of 0 and ∞ where one divides
const MOVE = 0.2; // by how much probabilities move, at most, between two of a flow's own times

/** @type {(values: Numbers) => number} */
const largest = (values) => Math.max(...values);

/** @type {(time: number, klCoef: number) => number} */
const tiltAt = (time, klCoef) => (klCoef > 0 ? -Math.expm1(-klCoef * time) / klCoef : time);

/** @type {(tilt: number, klCoef: number) => number} */
const timeAt = (tilt, klCoef) => (klCoef > 0 ? -Math.log1p(-Math.min(klCoef * tilt, 1)) / klCoef : tilt);

/**
 * The natural gradient's flow until tMax, as gradientFlow gives the other: at(times) has the same numbers, all exact, but that
 * gradientNorm is the norm in the Fisher metric, √Var r^KL = e^{-λt} √Var r.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} tMax
 * @param {{groundTruth?: Numbers, klCoef?: number}} [options]
 * @returns {Flow}
 */
export function naturalGradientFlow(logits, reward, tMax, { groundTruth = reward, klCoef = 0 } = {}) {
  const best = largest(reward);
  const reference = softmax(logits);
  const logitsAt = (/** @type {number} */ tilt) => Float64Array.from(logits, (x, i) => x + tilt * (reward[i] - best));
  // Probabilities move at a rate of r_max - V at most, whose integral over all times is ln(1/P_0): so these are few.
  const t = [0];
  for (let tilt = 0; ;) {
    const lead = best - expectation(softmax(logitsAt(tilt)), reward);
    tilt = Math.min(tilt + MOVE / Math.max(lead, TINY), FOREVER);
    const time = timeAt(tilt, klCoef);
    if (!(time < tMax)) break;
    t.push(time);
  }
  t.push(tMax);

  /** @type {Flow["at"]} */
  const at = (times) => {
    const now = Array.from(times, (time) => logitsAt(tiltAt(time, klCoef)));
    const probs = now.map(softmax);
    const variance = probs.map((p) => rewardVariance(reward, p));
    return {
      t: times,
      logits: now,
      probs,
      proxy: probs.map((p) => expectation(p, reward)),
      groundTruth: probs.map((p) => expectation(p, groundTruth)),
      variance,
      kl: probs.map((p) => klDivergence(p, reference)),
      gradientNorm: variance.map((v, k) => Math.exp(-klCoef * times[k]) * Math.sqrt(v)),
    };
  };
  return { t: Float64Array.from(t), at };
}

/**
 * t_γ under the natural gradient, the first time the expected measured reward has risen by gain; Infinity if never: the search
 * of rvlib.tabular.geometry.natural_time_to_gain, which says why it passes over no crossing.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} gain
 * @param {{measured?: Numbers, klCoef?: number}} [options]
 * @returns {number}
 */
export function naturalTimeToGain(logits, reward, gain, { measured = reward, klCoef = 0 } = {}) {
  const [best, top] = [largest(reward), largest(measured)];
  const deviation = Float64Array.from(reward, (r) => r - best);
  const mark = Float64Array.from(measured, (m) => m - top);
  const n = deviation.length;
  const start = softmax(logits);
  const goal = expectation(start, mark) + gain; // below the largest measured reward
  let [onBest, limit] = [0, 0]; // the limit at s = ∞
  for (let i = 0; i < n; i++) if (deviation[i] === 0) [onBest, limit] = [onBest + start[i], limit + start[i] * mark[i]];
  limit /= Math.max(onBest, TINY);
  const spread = Math.max(...mark.map((m) => -m), TINY);
  const farthest = klCoef > 0 ? 1 / klCoef : FOREVER; // the supremum of s
  for (let tilt = 0; ;) {
    const probs = softmax(Float64Array.from(logits, (x, i) => x + tilt * deviation[i]));
    const lead = -expectation(probs, deviation); // r_max - V
    let [rest, slope, variance] = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      const centred = deviation[i] + lead;
      if (deviation[i] !== 0) rest += probs[i];
      slope += probs[i] * mark[i] * centred;
      variance += probs[i] * centred * centred;
    }
    const short = goal - expectation(probs, mark);
    const step = certainStep(short, slope, variance, lead, spread);
    if (!(short > 0 && step > 4e-16 * tilt)) return timeAt(tilt, klCoef);
    if (goal >= limit - rest * limit || tilt >= farthest) return Infinity;
    tilt = Math.min(tilt + step, farthest);
  }
}

/**
 * A step of s in which the mean of the measured reward cannot rise by `short`: see _certain_step in rvlib/tabular/geometry.py.
 * @type {(short: number, slope: number, variance: number, lead: number, spread: number) => number}
 */
function certainStep(short, slope, variance, lead, spread) {
  const deviation = Math.max(Math.sqrt(variance) * spread, TINY);
  const [ahead, bend] = [Math.max(lead, TINY), Math.max(Math.E * spread * variance, TINY)];
  const first =
    ahead * short < 1e-9 * deviation ? (2 * short) / deviation : (2 * Math.log1p((ahead * short) / deviation)) / ahead;
  const second = (2 * short) / Math.max(slope + Math.sqrt(slope * slope + 2 * bend * short), TINY);
  return Math.max(first, Math.min(second, 1 / ahead));
}

/**
 * Least t_γ under the natural gradient, for any measured reward in [-1, 1]: rvlib.tabular.geometry.natural_slow_time_bound.
 * @param {number} variance of the proxy under the initial policy
 * @param {number} gain
 * @param {number} range of the proxy: its largest value less its least
 * @returns {number}
 */
export function naturalSlowTimeBound(variance, gain, range) {
  const ratio = gain / Math.sqrt(variance);
  return range > 0 ? (2 * Math.log1p((range * ratio) / 2)) / range : ratio;
}
