// @ts-check
// Which predictor tells a good teacher? Random reward models for one policy: a number known before training against what
// training brings.
//
//   d/dt V_G = Σ π² (r_RM - V_RM)(r_G - V_G)     at the start

import { expectation, gradientFlow, rankingAccuracy, rewardCovariance, rewardVariance, sum } from "./flow.mjs";
import { normals, random } from "./rewards.mjs";
import { axes, clipped, fitted, linear, measure, number, rows, tag, text } from "./plot.mjs";
import { problem } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/** @typedef {Setting & {grade: keyof typeof PREDICTORS, time: number, kl_coef: number, error: number, scales: number}} State */
/** @typedef {ReturnType<typeof compute>} View */

const MODELS = 36;

const PREDICTORS = {
  accuracy: "accuracy",
  onpolicy: "on-policy accuracy",
  variance: "reward variance",
  both: "mean of variance and on-policy accuracy",
  product: "deviation × (2 on-policy accuracy − 1)",
  covariance: "within-prompt covariance",
  weighted: "π²-weighted covariance",
};

/** @typedef {keyof typeof PREDICTORS} Predictor */
const KEYS = /** @type {Predictor[]} */ (Object.keys(PREDICTORS));

/**
 * All predictors of one teacher; rvlib.tabular.predictors.exact_predictors.
 * @param {Numbers} probs (n,)
 * @param {Numbers} reward (n,)
 * @param {Numbers} groundTruth (n,)
 * @returns {Record<Predictor, number>}
 */
export function exactPredictors(probs, reward, groundTruth) {
  const n = probs.length;
  let [agree, total] = [0, 0];
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++) {
      const weight = probs[i] * probs[j];
      total += weight;
      if (Math.sign(reward[i] - reward[j]) === Math.sign(groundTruth[i] - groundTruth[j])) agree += weight;
    }
  const [proxy, truth] = [expectation(probs, reward), expectation(probs, groundTruth)];
  const variance = rewardVariance(reward, probs);
  const onpolicy = agree / total;
  return {
    accuracy: rankingAccuracy(reward, groundTruth),
    onpolicy,
    variance,
    both: (variance + onpolicy) / 2,
    product: Math.sqrt(variance) * (2 * onpolicy - 1),
    covariance: rewardCovariance(reward, groundTruth, probs),
    weighted: sum(n, (y) => probs[y] * probs[y] * (reward[y] - proxy) * (groundTruth[y] - truth)),
  };
}

/** Mean ranks, ties sharing theirs. @type {(values: number[]) => number[]} */
function ranks(values) {
  const order = values.map((_, i) => i).sort((i, j) => values[i] - values[j]);
  /** @type {number[]} */
  const out = new Array(values.length);
  for (let i = 0, end; i < order.length; i = end) {
    for (end = i; end < order.length && values[order[end]] === values[order[i]]; end++);
    for (let k = i; k < end; k++) out[order[k]] = (i + end - 1) / 2;
  }
  return out;
}

/**
 * Spearman's correlation; NaN where all of one list are the same.
 * @param {number[]} xs
 * @param {number[]} ys of the same length
 * @returns {number}
 */
export function spearman(xs, ys) {
  const [a, b] = [ranks(xs), ranks(ys)].map((r) => r.map((x) => x - (r.length - 1) / 2));
  /** @type {(u: number[], v: number[]) => number} */
  const dot = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** The reward models and their predictors: what does not depend on the time looked at, made once while that moves. */
const models = remembering((/** @type {Omit<State, "time" | "grade">} */ setting) => {
  const { groundTruth, logits, probs } = problem(setting);
  const uniform = random(setting.seed + 777);
  const normal = normals(uniform);
  const all = Array.from({ length: MODELS }, () => {
    const [error, scale] = [setting.error * uniform(), 10 ** (-setting.scales * uniform())];
    const raw = groundTruth.map((truth) => (1 - error) * truth + error * normal());
    const most = Math.max(...raw.map(Math.abs), 1);
    const reward = raw.map((r) => (scale * r) / most);
    return { reward, predictors: exactPredictors(probs, reward, groundTruth) };
  });
  const train = (/** @type {number} */ until) =>
    all.map(({ reward }) =>
      gradientFlow(logits, reward, until, { groundTruth, klCoef: setting.kl_coef, tolerance: 1e-5 }),
    );
  /** @type {Record<number, Flow[]>} */
  const trained = {};
  return { start: expectation(probs, groundTruth), all, train, trained };
});

/** @param {State} state */
function compute(state) {
  const { time, grade, ...setting } = state;
  const { start, all, train, trained } = models(setting);
  const until = 4 ** Math.ceil(Math.log2(time) / 2); // trained a little further than is looked at, and looked at many times
  const paths = (trained[until] ??= train(until));
  const now = all.map((model, i) => ({
    predictors: model.predictors,
    gained: paths[i].at([time]).groundTruth[0] - start,
  }));
  const gained = now.map((m) => m.gained);
  const table = /** @type {Record<Predictor, number>} */ ({});
  for (const key of KEYS)
    table[key] = spearman(
      now.map((m) => m.predictors[key]),
      gained,
    );
  return { state, models: now, table };
}

/** @type {Draw<View>} */
function draw({ state, models, table }, width) {
  const narrow = width < 560;
  const across = narrow ? width - 60 : width * 0.55 - 50;
  const note = rows(46, 31, across, [
    { words: `each dot a reward model, against its ${PREDICTORS[state.grade]}`, class: "rv-note" },
  ]);
  const box = { left: 46, top: 46 + note.height, width: across, height: narrow ? 170 : 270 };
  const values = models.map((m) => m.predictors[state.grade]);
  const gained = models.map((m) => m.gained);
  /** @type {(xs: number[]) => [number, number]} */
  const range = (xs) => {
    const [low, high] = [Math.min(...xs), Math.max(...xs)];
    const pad = (high - low || 1) * 0.06;
    return [low - pad, high + pad];
  };
  const x = linear(range(values), [box.left, box.left + box.width]);
  const y = linear(range(gained), [box.top + box.height, box.top]);
  const dots = models.map((_, i) =>
    tag("circle", {
      cx: x(values[i]),
      cy: y(gained[i]),
      r: 4.5,
      style: "fill:var(--rv-truth);stroke:var(--rv-paper)",
      "fill-opacity": 0.8,
    }),
  );
  let out = fitted(
    box.left,
    14,
    "True reward gained by the time set",
    [0, narrow ? width : box.left + box.width + 20],
    {
      class: "rv-title",
    },
  );
  out += note.markup;
  out +=
    axes(box, x, y, { xTicks: narrow ? 3 : 4, yTicks: 5, xTitle: PREDICTORS[state.grade] }) + clipped(box, ...dots);

  // ---- all predictors, each with its correlation
  const side = narrow
    ? { left: 4, top: box.top + box.height + 88, width: width - 12 }
    : { left: box.left + box.width + 40, top: 46, width: width - box.left - box.width - 48 };
  const row = narrow ? 32 : 38;
  const scale = linear([-1, 1], [side.left, side.left + side.width]);
  let bars = fitted(side.left, side.top - (narrow ? 24 : 32), "Spearman correlation with it", [side.left, width], {
    class: "rv-title",
  });
  KEYS.forEach((key, i) => {
    const top = side.top + i * row;
    const selected = key === state.grade;
    // A predictor that is the same for all has no correlation, and no bar.
    const [from, to] = [scale(0), scale(table[key] || 0)].sort((a, b) => a - b);
    const value = number(table[key], 2);
    const until = side.left + side.width - measure(value, "", 600) - 8;
    bars += fitted(side.left, top + 2, PREDICTORS[key], [side.left, until], {
      class: selected ? "" : "rv-tick",
      "font-weight": selected ? 600 : undefined,
    });
    bars += tag("rect", {
      x: from,
      y: top + 8,
      width: Math.max(to - from, 0.6),
      height: 10,
      rx: 2,
      style: `fill:var(--rv-${selected ? "truth" : "quiet"})`,
      "fill-opacity": selected ? 1 : 0.55,
    });
    bars += text(side.left + side.width, top + 2, value, {
      "text-anchor": "end",
      class: selected ? "" : "rv-tick",
      "font-weight": selected ? 600 : undefined,
    });
  });
  bars += tag("path", {
    class: "rv-axis",
    d: KEYS.map((_, i) => `M${scale(0).toFixed(1)} ${side.top + i * row + 6}v14`).join(""),
  });
  return { height: Math.max(box.top + box.height + 40, side.top + KEYS.length * row), parts: [out, bars] };
}

/** @type {Readouts<View>} */
const readouts = ({ state, table }) => [
  [
    "this predictor",
    number(table[state.grade], 2),
    "truth",
    "Spearman correlation over the reward models of the predictor with the true reward gained",
  ],
  [
    "best predictor here",
    PREDICTORS[KEYS.reduce((a, b) => (table[a] >= table[b] || Number.isNaN(table[b]) ? a : b))],
    "",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, table }) =>
  `${MODELS} random reward models for one policy; the true reward each has brought by time ${number(state.time)} against its ${PREDICTORS[state.grade]}. Spearman correlations: ` +
  KEYS.map((key) => `${PREDICTORS[key]} ${number(table[key], 2)}`).join("; ") +
  ".";

export default explorable({ name: "grades", compute, draw, readouts, describe });
