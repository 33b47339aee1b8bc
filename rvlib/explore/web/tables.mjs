// @ts-check
// The paper's public reward models (Tables 10 to 12): a property before training against what training brought, and their correlation.
//
//   all nine pairs together: both standardised within each pair of policy and algorithm, over the reward models that are ticked

import { spearman } from "./grades.mjs";
import PAIRS from "./papertables.mjs";
import { axes, clipped, fitted, fixed, linear, rows, shortened, tag } from "./plot.mjs";
import { explorable } from "./ui.mjs";

/**
 * @typedef {{property: keyof typeof PROPERTIES, outcome: keyof typeof OUTCOMES, pair: string} &
 *   Record<keyof typeof MODELS, boolean>} State
 */
/** @typedef {ReturnType<typeof compute>} View */

/** @typedef {(typeof PAIRS)[number]} Pairing of a policy and an algorithm */
/** @typedef {Record<Exclude<keyof Pairing, "label" | "models">, number>} Row one reward model's numbers in it */

const MODELS = {
  grm_gemma: "GRM-Gemma-2-2B",
  grm_llama: "GRM-Llama-3.2-3B",
  tulu: "RM-Tulu-V2-8B",
  gemma: "RM-Gemma-2B",
};
const COLOURS = ["pin-4", "pin-2", "pin-0", "pin-5"];
/** @type {Record<"variance" | "onpolicy" | "offpolicy" | "accuracy" | "both" | "product", [string, (row: Row) => number]>} */
const PROPERTIES = {
  variance: ["reward variance", (row) => row.reward_variance],
  onpolicy: ["on-policy accuracy", (row) => row.on_policy_accuracy],
  offpolicy: ["off-policy accuracy", (row) => row.off_policy_accuracy],
  accuracy: ["mean of both accuracies", (row) => (row.on_policy_accuracy + row.off_policy_accuracy) / 2],
  both: [
    "mean of variance and accuracy",
    (row) => (row.reward_variance + (row.on_policy_accuracy + row.off_policy_accuracy) / 2) / 2,
  ],
  product: [
    "deviation × (2 on-policy accuracy − 1)",
    (row) => Math.sqrt(row.reward_variance) * (2 * row.on_policy_accuracy - 1),
  ],
};
/** @type {Record<"truth" | "proxy", [string, keyof Row]>} */
const OUTCOMES = { truth: ["ground truth reward", "ground_truth_increase"], proxy: ["proxy reward", "proxy_increase"] };

/**
 * Pearson's correlation; NaN for fewer than two points or no spread.
 * @param {number[]} xs
 * @param {number[]} ys of the same length
 * @returns {number}
 */
export function pearson(xs, ys) {
  const centred = (/** @type {number[]} */ values) =>
    values.map((v) => v - values.reduce((sum, w) => sum + w, 0) / values.length);
  /** @type {(u: number[], v: number[]) => number} */
  const dot = (u, v) => u.reduce((sum, a, i) => sum + a * v[i], 0);
  const [a, b] = [centred(xs), centred(ys)];
  return xs.length > 1 ? dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) : NaN;
}

/**
 * Less the mean, over the standard deviation (of the population, as rvlib.paper.within_groups); zeros where there is none.
 * @type {(values: number[]) => number[]}
 */
function standardised(values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
  return values.map((v) => (deviation > 0 ? (v - mean) / deviation : 0));
}

/**
 * The points of a state.
 * @param {State} state
 * @returns {{model: string, pair: string, x: number, y: number}[]}
 */
export function points(state) {
  const ticked = /** @type {(keyof typeof MODELS)[]} */ (Object.keys(MODELS))
    .filter((key) => state[key])
    .map((key) => MODELS[key]);
  const [, property] = PROPERTIES[state.property];
  const [, outcome] = OUTCOMES[state.outcome];
  const selected = state.pair === "all" ? PAIRS : [PAIRS[Number(state.pair)]];
  return selected.flatMap((pair) => {
    const kept = pair.models.map((_, i) => i).filter((i) => ticked.includes(pair.models[i]));
    const rows = kept.map(
      (i) =>
        /** @type {Row} */ (Object.fromEntries(Object.entries(pair).map(([key, values]) => [key, Number(values[i])]))),
    );
    let [xs, ys] = [rows.map(property), rows.map((row) => row[outcome])];
    if (state.pair === "all") [xs, ys] = [standardised(xs), standardised(ys)];
    return kept.map((i, k) => ({ model: pair.models[i], pair: pair.label, x: xs[k], y: ys[k] }));
  });
}

/** @param {State} state */
function compute(state) {
  const cloud = points(state);
  const [xs, ys] = [cloud.map((p) => p.x), cloud.map((p) => p.y)];
  return { state, cloud, pearson: pearson(xs, ys), spearman: cloud.length > 1 ? spearman(xs, ys) : NaN };
}

/** @type {Draw<View>} */
function draw({ state, cloud, pearson: r }, width) {
  const all = state.pair === "all";
  const names = Object.values(MODELS);
  const colour = (/** @type {string} */ model) => COLOURS[names.indexOf(model)];
  const left = 52;
  const note = all
    ? "in standard deviations within a pair; the paper's"
    : `${PAIRS[Number(state.pair)].label}; the paper's numbers`;
  const under = rows(left, 31, width - 76, [{ words: note, class: "rv-note" }]);
  const key = rows(
    left,
    50 + under.height,
    width - 60,
    all ? names.map((name) => ({ mark: colour(name), words: name, class: "rv-tick" })) : [],
  );
  const box = { left, top: 66 + under.height + key.height, width: width - 76, height: 280 };
  /** @type {(values: number[]) => [number, number]} */
  const range = (values) => {
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    const pad = (high - low || Math.abs(high) || 1) * 0.12;
    return [low - pad, high + pad];
  };
  const x = linear(range(cloud.map((p) => p.x)), [box.left, box.left + box.width]);
  const y = linear(range(cloud.map((p) => p.y)), [box.top + box.height, box.top]);
  const dots = cloud.map((p) =>
    tag(
      "circle",
      {
        cx: x(p.x),
        cy: y(p.y),
        r: all ? 5 : 7,
        style: `fill:var(--rv-${colour(p.model)});stroke:var(--rv-paper)`,
        "fill-opacity": 0.85,
      },
      tag("title", {}, `${p.model}, ${p.pair}`),
    ),
  );
  if (Number.isFinite(r)) {
    const [mx, my] = /** @type {const} */ (["x", "y"]).map(
      (key) => cloud.reduce((sum, p) => sum + p[key], 0) / cloud.length,
    );
    const slope =
      cloud.reduce((sum, p) => sum + (p.x - mx) * (p.y - my), 0) / cloud.reduce((sum, p) => sum + (p.x - mx) ** 2, 0);
    const [from, to] = [box.left, box.left + box.width].map((at) => x.invert(at));
    dots.unshift(
      tag("path", {
        d: `M${x(from).toFixed(1)} ${y(my + slope * (from - mx)).toFixed(1)}L${x(to).toFixed(1)} ${y(my + slope * (to - mx)).toFixed(1)}`,
        style: "stroke:var(--rv-quiet)",
        "stroke-dasharray": "5 4",
        fill: "none",
      }),
    );
  }
  const labels = all
    ? []
    : cloud.map((p) => {
        const right = x(p.x) > box.left + box.width * 0.6;
        return fitted(x(p.x) + (right ? -11 : 11), y(p.y) + 4, p.model, [0, width], {
          "text-anchor": right ? "end" : "start",
          class: "rv-tick",
        });
      });
  const [property] = PROPERTIES[state.property];
  const [outcome] = OUTCOMES[state.outcome];
  const out =
    fitted(left, 14, `Increase of the ${outcome}`, [0, width], { class: "rv-title" }) + under.markup + key.markup;
  const area = axes(box, x, y, {
    xTicks: width < 560 ? 4 : 6,
    yTicks: 5,
    xTitle: all
      ? shortened(
          [`${property}, standardised within a pair`, `${property}, standardised`, property],
          width - 28,
          "rv-tick",
        )
      : property,
  });
  return { height: box.top + box.height + 42, parts: [out, area + clipped(box, ...dots) + labels.join("")] };
}

const say = (/** @type {number} */ r) => (Number.isFinite(r) ? fixed(r, 2) : "–");

/** @type {Readouts<View>} */
const readouts = ({ cloud, pearson: r, spearman: rho }) => [
  ["Pearson", say(r), "truth", "Correlation of the points shown"],
  ["Spearman", say(rho), "", "Correlation of their ranks"],
  ["points", String(cloud.length), ""],
];

/** @type {Describe<View>} */
const describe = ({ state, cloud, pearson: r, spearman: rho }) =>
  `Increase of the ${OUTCOMES[state.outcome][0]} against ${PROPERTIES[state.property][0]} for ${cloud.length} public reward models of the paper's Tables 10 to 12, ` +
  `${state.pair === "all" ? "nine pairs of policy and algorithm standardised each by itself" : PAIRS[Number(state.pair)].label}. Pearson's correlation is ${say(r)}, Spearman's ${say(rho)}.`;

export default explorable({ name: "tables", compute, draw, readouts, describe });
