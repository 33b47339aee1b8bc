// @ts-check
// Gradient: thousands of random autoregressive policies, gradient norm against the variance of the KL-regularised reward.
//
//   ‖∇φ‖ ≤ 6 M^{1/3} L J Var^{1/3}    (the paper's Prop. 2)        ‖∇φ‖ ≤ J √(L Var/2)    (ours)
//
// Policies are tables of logits, so J = 1: a row for each prefix, or one row for all prefixes.

import {
  gradientNormBound,
  penaltyLimits,
  policy,
  policyGradient,
  shapeOf,
  shared,
  sharperGradientNormBound,
} from "./autoregressive.mjs";
import { normals, random } from "./rewards.mjs";
import { axes, clipped, fitted, line, logarithmic, number, power, px, rows, tag } from "./plot.mjs";
import { explorable } from "./ui.mjs";
import { finished, remembering } from "./work.mjs";

/** @typedef {{length: number, vocabulary: number, kl_coef: number, drift: number, seed: number, one_row: boolean}} State */
/** @typedef {Pick<State, "length" | "vocabulary" | "one_row" | "seed">} Family what the policies are drawn by */
/** @typedef {ReturnType<typeof compute>} View */

const MOST = 3000; // policies
const WORK = 4e5; // outputs of all policies together, so that a figure takes about a tenth of a second
const PART = 5e3; // outputs of the policies that are drawn at once, while a worker makes them all
const KEYS = /** @type {(keyof State)[]} */ (["vocabulary", "length", "kl_coef", "drift", "one_row", "seed"]);
const KINDS = [
  ["noise", "truth", "each output has a reward of its own"],
  ["sum", "proxy", "every token adds its own"],
  ["needle", "good", "one output above all others"],
];

/**
 * Rewards in [-1, 1] of all outputs, of one of the KINDS.
 * @type {(kind: string, vocabulary: number, length: number, outputs: number, uniform: () => number) => Float64Array}
 */
function rewards(kind, vocabulary, length, outputs, uniform) {
  const even = () => 2 * uniform() - 1;
  if (kind === "noise") return Float64Array.from({ length: outputs }, even);
  if (kind === "needle") {
    const best = Math.floor(uniform() * outputs);
    return Float64Array.from({ length: outputs }, (_, y) => (y === best ? 1 : -1));
  }
  let total = new Float64Array(1);
  for (let l = 0; l < length; l++) {
    const token = Float64Array.from({ length: vocabulary }, () => even() / length);
    total = Float64Array.from(
      { length: total.length * vocabulary },
      (_, y) => total[Math.floor(y / vocabulary)] + token[y % vocabulary],
    );
  }
  return total;
}

/**
 * Tables of logits: a row for each prefix, or one row for all.
 * @type {(family: Family, spread: number, normal: () => number) => Float64Array}
 */
function table({ vocabulary, length, one_row: oneRow }, spread, normal) {
  const logits = new Float64Array(shapeOf(vocabulary, length)[0] * vocabulary);
  const own = oneRow ? vocabulary : logits.length;
  for (let i = 0; i < own; i++) logits[i] = spread * normal();
  for (let i = own; i < logits.length; i++) logits[i] = logits[i - vocabulary];
  return logits;
}

/** @typedef {{kind: number, logits: Float64Array, now: Policy, reward: Float64Array}} Drawn a policy and a reward model */

/**
 * One policy and reward model after the other.
 * @param {Family} family
 * @returns {Generator<Drawn>}
 */
function* policies(family) {
  const { vocabulary, length, seed } = family;
  const uniform = random(seed);
  const normal = normals(uniform);
  for (let i = 0; ; i++) {
    const kind = i % KINDS.length;
    const logits = table(family, 4 * uniform() ** 2, normal);
    const scale = 10 ** (-4 * uniform() ** 2);
    const reward = rewards(KINDS[kind][0], vocabulary, length, vocabulary ** length, uniform);
    for (let y = 0; y < reward.length; y++) reward[y] *= scale;
    yield { kind, logits, now: policy(logits, vocabulary, length), reward };
  }
}

/**
 * ln(π/π_ref) of the outputs of each of those policies; the drift has its own random numbers, so that λ does not exchange the
 * policies.
 * @param {Family & {drift: number}} family with the drift
 * @returns {Generator<Float64Array>}
 */
function* logRatios({ drift, ...family }) {
  const { vocabulary, length, seed } = family;
  const normal = normals(random(seed + 1000));
  const policyOf = policiesOf(family);
  for (let i = 0; ; i++) {
    const { logits, now } = policyOf(i);
    const before = table(family, drift, normal);
    for (let k = 0; k < before.length; k++) before[k] = logits[k] - before[k];
    const ratio = policy(before, vocabulary, length).logProbs;
    for (let y = 0; y < ratio.length; y++) ratio[y] = now.logProbs[y] - ratio[y];
    yield ratio;
  }
}

/**
 * The elements of an endless list, each made once.
 * @template T
 * @param {Generator<T>} source
 * @returns {(i: number) => T}
 */
function listed(source) {
  /** @type {T[]} */
  const list = [];
  return (i) => {
    while (list.length <= i) list.push(source.next().value);
    return list[i];
  };
}

// While λ moves, the policies and their ratios stay.
const policiesOf = remembering((/** @type {Family} */ family) => listed(policies(family)));
const ratiosOf = remembering((/** @type {Family & {drift: number}} */ drifted) => listed(logRatios(drifted)));

/** @typedef {{state: State, points: {kind: number, variance: number, norm: number}[], outputs: number, largest: number}} Data */

/**
 * Policies with `most` outputs together, after undefined for each.
 * @param {State} state
 * @returns {Generator<Data | undefined>}
 */
function* prepare(state, most = WORK) {
  const { kl_coef: klCoef, drift, ...family } = state;
  const { vocabulary, one_row: oneRow } = family;
  const outputs = vocabulary ** family.length;
  const policyOf = policiesOf(family);
  const ratioOf = klCoef ? ratiosOf({ drift, ...family }) : undefined;
  /** @type {Data["points"]} */
  const points = [];
  let largest = 0; // M of the paper's Prop. 2, the least that holds for all of them
  for (let i = 0; i < Math.floor(Math.min(MOST, most / outputs)); i++) {
    const { kind, now, reward } = policyOf(i);
    const [values, ratio] = [reward.slice(), ratioOf?.(i)];
    if (ratio) for (let y = 0; y < outputs; y++) values[y] -= klCoef * ratio[y];
    for (let y = 0; y < outputs; y++) largest = Math.max(largest, Math.abs(values[y]));
    const { gradient, variance } = policyGradient(now, values, vocabulary);
    const norm = Math.sqrt((oneRow ? shared(gradient, vocabulary) : gradient).reduce((sum, g) => sum + g * g, 0));
    if (variance > 0 && norm > 0) points.push({ kind, variance, norm });
    yield undefined;
  }
  yield { state, points, outputs, largest };
}

/**
 * What is drawn for a state, of fewer policies where the data are another's.
 * @param {State} state
 * @param {Data} data
 */
function compute(state, data = finished(prepare(state))) {
  const asked = KEYS.every((key) => data.state[key] === state[key]);
  /** @type {Data} */
  const { state: made, points, outputs, largest } = asked ? data : finished(prepare(state, PART));
  const { length } = made;
  const paper = (/** @type {number} */ variance) => gradientNormBound(variance, length, 1, largest);
  const ours = (/** @type {number} */ variance) => sharperGradientNormBound(variance, length, 1);
  const nearest = (/** @type {typeof paper} */ bound) => Math.max(...points.map((p) => p.norm / bound(p.variance)));
  const over = points.filter((p) => p.norm > ours(p.variance) * (1 + 1e-9)).length;
  /** @type {Record<string, Limit>} */
  const oneRow = state.length === 1 ? { one_row: { hint: "one token has one prefix", idle: true } } : {};
  const limits = { ...penaltyLimits(state), ...oneRow };
  return { limits, state: made, points, outputs, largest, paper, ours, nearest: [nearest(paper), nearest(ours)], over };
}

const LOW = 1e-9;

/** @type {Draw<View>} */
function draw({ points, largest, paper, ours }, width) {
  const key = rows(
    44,
    34,
    width - 52,
    KINDS.map(([, tone, words]) => ({ mark: tone, words, class: "rv-note" })),
  );
  const box = {
    left: 44,
    top: 58 + key.height,
    width: width - 52,
    height: Math.round(Math.min(420, Math.max(260, 0.6 * width))),
  };
  const high = Math.max(10, 10 ** Math.ceil(Math.log10(2 * largest ** 2)));
  const x = logarithmic([LOW, high], [box.left, box.left + box.width]);
  const y = logarithmic([1e-6, Math.max(100, 2 * paper(high))], [box.top + box.height, box.top]);
  const ends = [LOW, high];
  const radius = points.length > 1500 ? 2.6 : 3.4;
  const dots = KINDS.map(([, tone], kind) =>
    tag("path", {
      // One path for all: a point is a line of no length with a round end.
      d: points
        .filter((p) => p.kind === kind)
        .map((p) => `M${px(x(p.variance))} ${px(y(p.norm))}h0`)
        .join(""),
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": `${radius}`,
      "stroke-linecap": "round",
      "stroke-opacity": "0.6",
    }),
  );
  const bounds = [
    { bound: paper, dash: "6 4" },
    { bound: ours, dash: undefined },
  ].map(({ bound, dash }) =>
    tag("path", {
      d: line(x, y, ends, ends.map(bound)),
      style: "stroke:var(--rv-ink)",
      "stroke-width": "1.8",
      "stroke-dasharray": dash,
      fill: "none",
    }),
  );
  const forbidden = tag("path", {
    d: `${line(x, y, ends, ends.map(ours))}V${box.top}H${px(x(LOW))}Z`,
    style: "fill:var(--rv-bound)",
    "fill-opacity": "0.1",
    stroke: "none",
  });
  let out = axes(box, x, y, {
    xTicks: width < 560 ? 4 : 8,
    yTicks: 6,
    xTitle: "variance of the reward under the policy",
  });
  out += clipped(box, forbidden, ...dots, ...bounds);
  /** @type {(bound: (variance: number) => number, words: string) => string} */
  const label = (bound, words) =>
    fitted(box.left + 14, y(bound(x.invert(box.left + 130))) - 9, words, [box.left, width], {
      class: "rv-halo",
      "font-weight": 600,
    });
  out += label(paper, "the paper’s Prop. 2: slope ⅓") + label(ours, "ours: slope ½");
  out += fitted(box.left, 14, "Gradient norm", [0, width], { class: "rv-title" }) + key.markup;
  return { height: box.top + box.height + 40, parts: [out] };
}

/** @type {Readouts<View>} */
const readouts = ({ points, outputs, largest, nearest, over }) => [
  ["policies, outputs each", `${points.length}, ${outputs}`],
  ["above our line", String(over), "", "No policy may lie in the shaded region"],
  [
    "highest, of the paper’s",
    number(nearest[0], 2),
    "bound",
    "The largest gradient norm over its bound by the paper's Prop. 2",
  ],
  ["highest, of ours", number(nearest[1], 2), "bound", "The largest gradient norm over its bound J √(L Var/2)"],
  [
    "<i>M</i>",
    number(largest, 2),
    "",
    "The largest absolute value of the KL-regularised reward of all outputs and policies: the line of the paper's Prop. 2 is drawn for it",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, points, nearest, over }) =>
  `${points.length} random policies that write ${state.length} tokens from a vocabulary of ${state.vocabulary}: gradient norm against the variance of the reward, both logarithmic, from ${power(-9)} on. ` +
  `Two lines bound the points from above: the paper's Prop. 2 with slope one third, which the highest point reaches to ${number(nearest[0], 2)}, and ours with slope one half, which it reaches to ${number(nearest[1], 2)}. ` +
  `${over} points lie above the lower line.`;

export default explorable({ name: "gradient", prepare, keys: KEYS, compute, draw, readouts, describe });
