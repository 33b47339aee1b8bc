// @ts-check
// The problem that the explorables pose: n outputs, their ground truth rewards, and a policy to start from.
//
//   r_G(y_i) = 1 - 2 (i + 1/2 + jitter_i)/n,     logits θ_i = peakedness · z_i + skill · r_G(y_i),     z_i standard normal

import { gradientFlow, softmax, timeToGain } from "./flow.mjs";
import { naturalGradientFlow, naturalTimeToGain } from "./geometry.mjs";
import { attainableAccuracies, attainableVariance, makeRewardModel, normals, random } from "./rewards.mjs";
import { number, power } from "./plot.mjs";

/** @typedef {{outputs: number, peakedness: number, skill?: number, seed: number}} Setting of the sliders */
/** @typedef {{groundTruth: Float64Array, logits: Float64Array, probs: Float64Array}} World each (n,) */
/** @typedef {"euclidean" | "natural"} Metric of the gradient: that of the logits, or Fisher's */

/**
 * Outputs in order of their ground truth reward, best first; the same for the same seed.
 * @param {Setting} setting
 * @returns {World}
 */
export function problem({ outputs, peakedness, skill = 0, seed }) {
  const uniform = random(seed);
  const normal = normals(uniform);
  const groundTruth = Float64Array.from(
    { length: outputs },
    (_, i) => 1 - (2 * (i + 0.5 + 0.7 * (uniform() - 0.5))) / outputs,
  );
  const logits = groundTruth.map((r) => peakedness * normal() + skill * r);
  return { groundTruth, logits, probs: softmax(logits) };
}

/**
 * A reward model as near to the given accuracy and variance as can be, with the attained values. n outputs without ties have
 * n(n-1)/2 pairs, so accuracy goes in steps; variance has a largest value, which depends on the policy and on the ranking.
 * @param {World} world
 * @param {number} accuracy
 * @param {number} variance
 * @param {number} seed
 */
export function teacher({ groundTruth, probs }, accuracy, variance, seed) {
  const steps = attainableAccuracies(groundTruth);
  const nearest = steps.reduce((best, a) => (Math.abs(a - accuracy) < Math.abs(best - accuracy) ? a : best), steps[0]);
  const [low, high] = attainableVariance(groundTruth, probs, nearest, seed);
  const attained = Math.min(Math.max(variance, low), high);
  const reward = makeRewardModel(groundTruth, probs, nearest, attained, seed);
  return {
    reward,
    accuracy: nearest,
    variance: attained,
    minVariance: low,
    maxVariance: high,
    pairs: (groundTruth.length * (groundTruth.length - 1)) / 2,
  };
}

/**
 * What the sliders show when a teacher could not be had as asked.
 * @param {ReturnType<typeof teacher>} made
 * @param {number} variance that was asked for
 */
export const rangeOf = (made, variance) => ({
  accuracy: { value: made.accuracy },
  variance: {
    value: made.variance,
    max: made.maxVariance,
    hint:
      made.variance === variance
        ? `up to ${number(made.maxVariance, 2)} here`
        : `no ${made.variance < variance ? "more" : "less"} at this accuracy`,
  },
});

/**
 * Teachers A and B of a figure in which each has sliders of its own.
 * @typedef {Record<`${"a" | "b"}_${"accuracy" | "variance"}`, number>} TwoTeachers
 */
export const LETTERS = /** @type {const} */ (["a", "b"]);

/** @type {(world: World, setting: TwoTeachers & {seed: number}, letter: "a" | "b") => ReturnType<typeof teacher>} */
export const teacherOf = (world, setting, letter) =>
  teacher(
    world,
    setting[/** @type {const} */ (`${letter}_accuracy`)],
    setting[/** @type {const} */ (`${letter}_variance`)],
    setting.seed,
  );

/** What the sliders of both show. @type {(made: ReturnType<typeof teacher>[], setting: TwoTeachers) => Record<string, Limit>} */
export const rangesOf = (made, setting) =>
  Object.fromEntries(
    LETTERS.flatMap((letter, i) =>
      Object.entries(rangeOf(made[i], setting[/** @type {const} */ (`${letter}_variance`)])).map(([key, limit]) => [
        `${letter}_${key}`,
        limit,
      ]),
    ),
  );

const LEAST_GAIN = 0.05; // of the sliders below

/**
 * What a slider of the gain says where the gain is cut off at `most`; it cannot be moved where even the least gain is.
 * @param {number} gain
 * @param {number} most
 * @returns {Limit}
 */
export const gainLimit = (gain, most) => ({
  value: Math.min(gain, most),
  hint: most < gain || most <= LEAST_GAIN ? `no more than ${number(most, 2)} can be had` : undefined,
  idle: most <= LEAST_GAIN,
});

/**
 * Times at which to draw a flow: the grid, and the integrator's own times inside it, which lie close where much happens.
 * @param {{t: Float64Array}} flow
 * @param {number[]} grid
 */
export const drawn = (flow, grid) =>
  Float64Array.from([...grid, ...flow.t.filter((t) => t > grid[0] && t < grid[grid.length - 1])]).sort();

const LATEST = 9; // decades; a student that has not finished by then is not followed further

/**
 * The flow along the gradient in a metric: see gradientFlow.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} tMax
 * @param {{metric?: Metric, groundTruth?: Numbers, klCoef?: number, tolerance?: number}} [options]
 */
export const flowIn = (logits, reward, tMax, { metric = "euclidean", ...options } = {}) =>
  (metric === "natural" ? naturalGradientFlow : gradientFlow)(logits, reward, tMax, options);

/**
 * t_γ to eight digits; Infinity where it is certain that it never comes, NaN where it comes after 10⁹ if at all. Under the natural
 * gradient it is known however late it comes.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} gain
 * @param {{metric?: Metric, measured?: Numbers, klCoef?: number}} [options]
 * @returns {number}
 */
export const gainTime = (logits, reward, gain, { metric = "euclidean", ...options } = {}) =>
  metric === "natural"
    ? naturalTimeToGain(logits, reward, gain, options)
    : timeToGain(logits, reward, gain, { ...options, tMax: 10 ** LATEST, undecided: NaN, tolerance: 1e-8 });

/** A time t_γ in words. @type {(time: number) => string} */
export const when = (time) =>
  time === Infinity ? "never" : Number.isNaN(time) ? `after ${power(LATEST)}` : number(time);

/**
 * The same at a time that is shown, of which the last is `last`: a reader who predicts a time is not told it before it is
 * there.
 * @type {(reached: number, shown: number, last: number) => string}
 */
export const whenReached = (reached, shown, last) => (reached <= shown || shown >= last ? when(reached) : "not yet");
