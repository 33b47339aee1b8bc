// @ts-check
// Training on samples: REINFORCE, RLOO and GRPO, by plain steps or by Adam, beside the same steps with the exact gradient.
//
//   ĝ = (1/k) Σ_i A_i (e_{y_i} - π),     A_i from the group's rewards as rvlib.tabular.estimators has them

import { LABELS } from "./estimators.mjs";
import { expectation, softmax } from "./flow.mjs";
import { normals, random } from "./rewards.mjs";
import { axes, clipped, fitted, line, linear, logarithmic, number, px, rows, tag } from "./plot.mjs";
import { problem, rangeOf, teacher } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/**
 * @typedef {{accuracy: number, variance: number, multiplier: number, noise: number, group: number, step: number, kl_coef: number,
 *   seed: number, estimator: keyof typeof LABELS, optimiser: "plain" | "adam"}} State
 */
/** @typedef {ReturnType<typeof compute>} View */

const [OUTPUTS, STEPS, RUNS] = [8, 300, 6];
const ADAM = 0.05; // Adam's step, as a share of the plain one
const STD_FLOOR = 1e-4; // TRL's

/**
 * A_i of one group from its rewards; a port of rvlib.tabular.estimators.advantages, whose registry has the same names.
 * @param {Numbers} rewards of the k samples
 * @param {string} estimator "rloo", "grpo", "dr_grpo" or "reinforce"; another name is an error
 * @param {Numbers} [out] where they are written, (k,)
 */
export function advantages(rewards, estimator, out = new Array(rewards.length)) {
  const k = rewards.length;
  let [total, squares] = [0, 0];
  for (let i = 0; i < k; i++) total += rewards[i];
  const mean = estimator === "reinforce" ? 0 : total / k;
  for (let i = 0; i < k; i++) {
    out[i] = rewards[i] - mean;
    squares += out[i] * out[i];
  }
  /** @type {Record<string, Pair>} */
  const factors = {
    rloo: [k, k - 1],
    grpo: [1, Math.sqrt(squares / (k - 1)) + STD_FLOOR],
    dr_grpo: [1, 1],
    reinforce: [1, 1],
  };
  if (!Object.hasOwn(factors, estimator))
    throw new Error(`The estimator must be one of ${Object.keys(factors).join(", ")}, got ${estimator}.`);
  const [times, over] = factors[estimator];
  for (let i = 0; i < k; i++) out[i] = (out[i] * times) / over;
  return out;
}

/** @typedef {{drawn: Float64Array, noise?: Float64Array}} Chance of one step, (group,) each */

/**
 * Each step's chance of one run: a group's numbers in [0, 1), by which outputs are drawn, then its label noise.
 * @type {(seed: number, group: number, noisy: boolean) => Chance[]}
 */
function chance(seed, group, noisy) {
  const uniform = random(seed);
  const normal = normals(uniform);
  return Array.from({ length: STEPS + 1 }, () => ({
    drawn: Float64Array.from({ length: group }, uniform),
    noise: noisy ? Float64Array.from({ length: group }, normal) : undefined,
  }));
}

/** All runs' chances, which only the seed, the group and whether there is noise change: drawn once, not at each move of a slider. */
const chances = remembering((/** @type {{seed: number, group: number, noisy: boolean}} */ { seed, group, noisy }) =>
  Array.from({ length: RUNS }, (_, i) => chance(1000 * seed + i, group, noisy)),
);

/**
 * The ground truth reward after each step of one run; no sampling, and no estimator, without `steps`, its chances. Where steps
 * are so large that a number overflows, or a probability with a KL term falls to zero, the run has diverged: `end` is the
 * last step before, whose reward the rest of the curve keeps.
 * @type {(world: World, reward: Float64Array, state: State, steps?: Chance[]) => Run}
 */
function run(
  { logits, groundTruth },
  reward,
  { estimator, optimiser, group, step, noise, multiplier, kl_coef: klCoef },
  steps,
) {
  const theta = Float64Array.from(logits);
  const reference = softmax(logits);
  const [m, v, probs, regularised, gradient] = Array.from({ length: 5 }, () => new Float64Array(OUTPUTS));
  const [outputs, rewards, scores] = [new Uint8Array(group), new Float64Array(group), new Float64Array(group)];
  const curve = new Float64Array(STEPS + 1);
  for (let t = 0; t <= STEPS; t++) {
    let [top, sum] = [theta[0], 0];
    for (let y = 1; y < OUTPUTS; y++) top = Math.max(top, theta[y]);
    for (let y = 0; y < OUTPUTS; y++) sum += probs[y] = Math.exp(theta[y] - top);
    for (let y = 0; y < OUTPUTS; y++) {
      probs[y] /= sum;
      regularised[y] = multiplier * reward[y] - (klCoef ? klCoef * Math.log(probs[y] / reference[y]) : 0);
    }
    const reached = expectation(probs, groundTruth);
    if (!Number.isFinite(reached) || !regularised.every(Number.isFinite)) {
      const end = Math.max(t - 1, 0);
      return { curve: curve.fill(curve[end], t), end };
    }
    curve[t] = reached;
    if (steps) {
      const { drawn, noise: deviations } = steps[t];
      for (let i = 0; i < group; i++) {
        let [y, left] = [0, drawn[i] - probs[0]];
        while (left > 0 && y < OUTPUTS - 1) left -= probs[++y];
        outputs[i] = y;
        rewards[i] = regularised[y] + (deviations ? multiplier * noise * deviations[i] : 0);
      }
      advantages(rewards, estimator, scores);
      let total = 0;
      gradient.fill(0);
      for (let i = 0; i < group; i++) {
        gradient[outputs[i]] += scores[i] / group;
        total += scores[i] / group;
      }
      for (let y = 0; y < OUTPUTS; y++) gradient[y] -= total * probs[y];
    } else {
      const mean = expectation(probs, regularised);
      for (let y = 0; y < OUTPUTS; y++) gradient[y] = probs[y] * (regularised[y] - mean);
    }
    for (let y = 0; y < OUTPUTS; y++) {
      if (optimiser === "plain") theta[y] += step * gradient[y];
      else {
        m[y] = 0.9 * m[y] + 0.1 * gradient[y];
        v[y] = 0.999 * v[y] + 0.001 * gradient[y] ** 2;
        theta[y] += (ADAM * step * (m[y] / (1 - 0.9 ** (t + 1)))) / (Math.sqrt(v[y] / (1 - 0.999 ** (t + 1))) + 1e-8);
      }
    }
  }
  return { curve, end: STEPS };
}

/** @param {State} state */
function compute(state) {
  const world = problem({ outputs: OUTPUTS, peakedness: 0.5, skill: -0.7, seed: state.seed });
  const made = teacher(world, state.accuracy, state.variance, state.seed);
  const { seed, group, noise } = state;
  const runs = chances({ seed, group, noisy: noise > 0 }).map((steps) => run(world, made.reward, state, steps));
  const mean = new Float64Array(STEPS + 1);
  for (const { curve } of runs) for (let t = 0; t <= STEPS; t++) mean[t] += curve[t] / RUNS;
  const exact = run(world, made.reward, state);
  // That it then changes nothing is for the reader to try: it stays a slider.
  const cancelled = state.optimiser === "adam" && state.kl_coef === 0;
  /** @type {Record<string, Limit>} */
  const scale = cancelled ? { multiplier: { hint: "Adam cancels it while λ = 0" } } : {};
  return { state, made, runs, mean, exact, limits: { ...rangeOf(made, state.variance), ...scale } };
}

/** @typedef {{curve: Float64Array, end: number}} Run */
/** @type {(run: Run) => boolean} */
const diverges = ({ end }) => end < STEPS;

/** @type {(view: {runs: Run[], exact: Run}) => string} which runs diverge, in words; "" where none does */
const diverged = ({ runs, exact }) => {
  const count = runs.filter(diverges).length;
  const parts = count ? [`${count} of ${RUNS} runs`] : [];
  if (diverges(exact)) parts.push("the exact gradient");
  return parts.length ? `diverges: ${parts.join(", ")}` : "";
};

/** @type {Draw<View>} */
function draw({ state, runs, mean, exact }, width) {
  const key = rows(44, 32, width - 58, [
    { words: `${LABELS[state.estimator]}, ${state.group} samples`, tone: "truth", weight: 600 },
    { words: "dashed: the exact gradient", class: "rv-note" },
    ...(diverged({ runs, exact }) ? [{ words: `✗ ${diverged({ runs, exact })}`, weight: 600 }] : []),
  ]);
  const box = { left: 44, top: 46 + key.height, width: width - 58, height: width < 560 ? 220 : 280 };
  const steps = Float64Array.from({ length: STEPS + 1 }, (_, t) => t + 1);
  const seen = [0, ...new Set(Array.from({ length: 80 }, (_, i) => Math.round(STEPS ** (i / 79))))]; // on a logarithmic axis
  const x = logarithmic([1, STEPS + 1], [box.left, box.left + box.width]);
  const y = linear([-1, 1], [box.top + box.height, box.top]);
  const at = (/** @type {Float64Array} */ curve, end = STEPS) => {
    const drawn = [...seen.filter((t) => t < end), end];
    return line(
      x,
      y,
      drawn.map((t) => steps[t]),
      drawn.map((t) => curve[t]),
    );
  };
  const faint = runs.map(({ curve, end }) =>
    tag("path", { d: at(curve, end), style: "stroke:var(--rv-truth)", "stroke-width": 1, "stroke-opacity": 0.35 }),
  );
  const middle = tag("path", {
    d: at(mean, Math.max(...runs.map(({ end }) => end))), // no further than some run goes
    style: "stroke:var(--rv-truth)",
    "stroke-width": 3,
    "stroke-linejoin": "round",
  });
  const smooth = tag("path", {
    d: at(exact.curve, exact.end),
    style: "stroke:var(--rv-ink)",
    "stroke-width": 1.8,
    "stroke-dasharray": "6 4",
  });
  // A run that diverges ends in a cross.
  const ends = [...runs.map((sampled) => ({ ...sampled, tone: "truth" })), { ...exact, tone: "ink" }].filter(diverges);
  const crosses = ends.map(({ curve, end, tone }) =>
    tag("path", {
      d: `M${px(x(steps[end]) - 4)} ${px(y(curve[end]) - 4)}l8 8m0 -8l-8 8`,
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": 2,
    }),
  );
  const title = fitted(box.left, 14, "Ground truth reward against steps", [0, width], { class: "rv-title" });
  const out = title + key.markup + axes(box, x, y, { xTicks: 4, xTitle: "step" });
  return { height: box.top + box.height + 38, parts: [out, clipped(box, ...faint, middle, smooth) + crosses.join("")] };
}

/** @type {Readouts<View>} */
const readouts = ({ made, mean, exact, runs, state }) => [
  [
    "mean at the end",
    number(mean[STEPS], 2),
    "truth",
    `Ground truth reward after ${STEPS} steps, mean of ${RUNS} runs`,
  ],
  [
    "lowest and highest run",
    `${number(Math.min(...runs.map((r) => r.curve[STEPS])), 2)} <small>to</small> ${number(Math.max(...runs.map((r) => r.curve[STEPS])), 2)}`,
    "truth",
  ],
  ["exact gradient", number(exact.curve[STEPS], 2), "", "The same optimiser with the exact gradient"],
  [
    "standard deviation, reward : noise",
    state.noise ? number(Math.sqrt(made.variance) / state.noise, 2) : "∞",
    "proxy",
    "Standard deviation of the reward under the initial policy, over that of the label noise",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, made, mean, runs, exact }) =>
  `Ground truth reward over ${STEPS} steps of ${LABELS[state.estimator]} with groups of ${state.group} samples, ${RUNS} runs and their mean, and the same steps with the exact gradient. Teacher: accuracy ${number(made.accuracy, 2)}, reward variance ${number(made.variance, 2)}, times ${number(state.multiplier, 2)}, label noise ${number(state.noise, 2)}. ` +
  `At the end the mean is ${number(mean[STEPS], 2)}; with the exact gradient ${number(exact.curve[STEPS], 2)}.${diverged({ runs, exact }) ? ` With steps so large it ${diverged({ runs, exact })}.` : ""}`;

export default explorable({ name: "samples", compute, draw, readouts, describe });
