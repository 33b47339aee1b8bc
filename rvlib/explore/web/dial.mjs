// @ts-check
// The dial: a reward model's two properties, set apart from each other. Each output is a line from its ground truth reward
// to its proxy reward; two lines cross exactly where the pair is misordered.
//
//   accuracy = 1 - crossings / pairs,     variance = Var_π r,     after normalising over prompts: Var / (Var + between²)

import { rewardCovariance } from "./flow.mjs";
import { clamp, fitted, linear, number, px, shortened, tag } from "./plot.mjs";
import { problem, rangeOf, teacher } from "./problem.mjs";
import { explorable } from "./ui.mjs";

/** @typedef {Setting & {accuracy: number, variance: number, scale: number, between: number, normalise: boolean}} State */
/** @typedef {ReturnType<typeof compute>} View */

/** @param {State} state */
function compute(state) {
  const world = problem(state);
  const made = teacher(world, state.accuracy, state.variance, state.seed);
  const { groundTruth, probs } = world;
  const c = state.scale;
  const variance = c * c * made.variance;
  // The law of total variance: over prompts whose mean rewards have standard deviation c × between, the joint scheme
  // divides by the square root of the sum of both parts.
  const joint = Math.sqrt(variance + (c * state.between) ** 2);
  const mean = made.reward.reduce((total, r, i) => total + probs[i] * c * r, 0);
  const shown = made.reward.map((r) => (state.normalise ? (c * r - mean) / joint : c * r));
  const unit = state.normalise ? joint : 1;
  return {
    state,
    groundTruth,
    probs,
    made,
    shown,
    mean: state.normalise ? 0 : mean,
    deviation: Math.sqrt(variance) / unit,
    variance,
    covariance: rewardCovariance(shown, groundTruth, probs),
    normalised: variance / joint ** 2,
    wrong: Math.round((1 - made.accuracy) * made.pairs),
    limits: rangeOf(made, state.variance),
  };
}

/** @type {Draw<View>} */
function draw({ state, groundTruth, probs, shown, mean, deviation, made, wrong }, width, id) {
  const narrow = width < 520;
  const [top, height] = [50, narrow ? 300 : 340];
  const bottom = top + height;
  const side = clamp(width * 0.2, 52, 150);
  const [left, right] = [side + 34, width - side - 34];
  const reach = state.normalise ? 3 : Math.max(1, ...shown.map(Math.abs));
  const truth = linear([-1, 1], [bottom, top]);
  const proxy = linear([-reach, reach], [bottom, top]);
  const likeliest = Math.max(...probs);
  const bar = (/** @type {number} */ p) => Math.max(1.5, (side * p) / likeliest);
  const faint = (/** @type {number} */ p) => (0.35 + 0.65 * Math.sqrt(p / likeliest)).toFixed(2);

  let out = tag(
    "defs",
    {},
    tag(
      "linearGradient",
      { id: `${id}-both`, gradientUnits: "userSpaceOnUse", x1: left, x2: right },
      tag("stop", { offset: "0", style: "stop-color:var(--rv-truth)" }),
      tag("stop", { offset: "1", style: "stop-color:var(--rv-proxy)" }),
    ),
  );

  // The proxy's spread under the policy: the deviation whose square is the reward variance.
  const [upper, lower] = [proxy(mean + deviation), proxy(mean - deviation)];
  out += tag("rect", {
    x: right,
    y: upper,
    width: side + 10,
    height: Math.max(lower - upper, 1),
    style: "fill:var(--rv-proxy)",
    "fill-opacity": "0.13",
  });

  // Both axes, with the policy's probabilities as bars that grow outwards.
  for (const { scale, at, outwards, anchor } of [
    { scale: truth, at: left, outwards: -1, anchor: "end" },
    { scale: proxy, at: right, outwards: 1, anchor: "start" },
  ]) {
    for (const value of scale.ticks(4)) {
      out += tag("path", { class: "rv-grid", d: `M${px(at)} ${px(scale(value))}h${px(outwards * (side + 2))}` });
      out += fitted(at + outwards * (side + 7), scale(value) + 3.5, scale.say(value), [0, width], {
        class: "rv-tick",
        "text-anchor": anchor,
      });
    }
    out += tag("path", { class: "rv-axis", d: `M${px(at)} ${px(top - 6)}V${px(bottom + 6)}` });
  }
  for (let i = 0; i < probs.length; i++) {
    const [from, to] = [truth(groundTruth[i]), proxy(shown[i])];
    out += tag("path", {
      d: `M${px(left)} ${px(from)}h${px(-bar(probs[i]))}`,
      style: "stroke:var(--rv-truth)",
      "stroke-width": 4,
      opacity: "0.75",
    });
    out += tag("path", {
      d: `M${px(right)} ${px(to)}h${px(bar(probs[i]))}`,
      style: "stroke:var(--rv-proxy)",
      "stroke-width": 4,
      opacity: "0.75",
    });
    out += tag("path", {
      d: `M${px(left)} ${px(from)}L${px(right)} ${px(to)}`,
      stroke: `url(#${id}-both)`,
      "stroke-width": "1.4",
      opacity: faint(probs[i]),
    });
  }
  for (let i = 0; i < probs.length; i++) {
    out += tag("circle", {
      cx: left,
      cy: truth(groundTruth[i]),
      r: 4,
      style: "fill:var(--rv-truth);stroke:var(--rv-paper)",
    });
    out += tag("circle", {
      cx: right,
      cy: proxy(shown[i]),
      r: 4,
      style: "fill:var(--rv-proxy);stroke:var(--rv-paper)",
    });
  }
  // Outputs are in order of ground truth, best first: a pair is misordered where the later one has the higher proxy reward.
  for (let i = 0; i < probs.length; i++)
    for (let j = i + 1; j < probs.length; j++) {
      if (shown[j] <= shown[i]) continue;
      const [a, b] = [truth(groundTruth[j]) - truth(groundTruth[i]), proxy(shown[i]) - proxy(shown[j])];
      const share = a / (a + b);
      const y = truth(groundTruth[i]) + share * (proxy(shown[i]) - truth(groundTruth[i]));
      out += tag("circle", {
        cx: left + share * (right - left),
        cy: y,
        r: 2.6,
        style: "fill:var(--rv-paper);stroke:var(--rv-ink)",
        "stroke-width": "1.2",
      });
    }
  const half = width / 2 - 5;
  /** @type {(x: number, ways: string[], note: string, tone: string, room: Pair) => string} */
  const title = (x, ways, note, tone, room) =>
    fitted(x, 16, shortened(ways, Math.min(half, 2 * left), "rv-title"), room, {
      class: "rv-title",
      "text-anchor": "middle",
      style: `fill:var(--rv-${tone})`,
    }) + fitted(x, 33, note, room, { class: "rv-tick", "text-anchor": "middle" });
  out += title(left, ["Ground truth reward", "Ground truth"], "bars: probability", "truth", [0, half]);
  out += title(
    right,
    [...(state.normalise ? ["Proxy reward, normalised"] : []), "Proxy reward", "Proxy"],
    "band: mean ± 1 s.d.",
    "proxy",
    [width - half, width],
  );
  out += fitted(
    width / 2,
    bottom + 28,
    `<tspan font-weight="700">○</tspan> ${wrong} of ${made.pairs} pairs misordered: accuracy ${number(made.accuracy)}`,
    [0, width],
    { "text-anchor": "middle" },
  );
  return { height: bottom + 38, parts: [out] };
}

/** @type {Readouts<View>} */
const readouts = ({ variance, covariance, normalised }) => [
  ["reward variance", number(variance), "proxy", "Variance of the proxy reward under the policy (the paper’s Def. 2)"],
  [
    "standard deviation",
    number(Math.sqrt(variance)),
    "proxy",
    "Square root of the reward variance: half the width of the band",
  ],
  [
    "variance, normalised",
    number(normalised),
    "proxy",
    "Divided by the reward's variance over all prompts together: within this prompt and between prompts",
  ],
  ["covariance with ground truth", number(covariance), "", "Under the policy, of the rewards as drawn"],
];

/** @type {Describe<View>} */
const describe = ({ state, made, variance, wrong, probs }) =>
  `Slope chart of ${probs.length} outputs: ground truth reward on the left, proxy reward on the right, one line an output. ` +
  `${wrong} of ${made.pairs} pairs of lines cross, which are the misordered pairs: accuracy ${number(made.accuracy)}. ` +
  `The proxy's reward variance under the policy is ${number(variance)}${state.normalise ? ", drawn normalised over prompts" : ""}.`;

export default explorable({ name: "dial", compute, draw, readouts, describe });
