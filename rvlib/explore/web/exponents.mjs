// @ts-check
// Exponents: least times to gain γ against the initial reward variance, as theorems have them and as training takes them.
//
//   the paper's Theorem 4:   t_γ ≥ min{1 - e^{-γ/9}, 1 - e^{-7/(3λ)}} / (8 L²J²) · Var^{-1/3}
//   ours:                    t_γ ≥ 2 (1 - e^{-γ√L}) / (L^{3/2} J²) · Var^{-1/2}

import { policy, policyGradient, shapeOf, sharperSlowTimeBound, slowTimeBound, timeToGain } from "./autoregressive.mjs";
import { tabularSlowTimeBound } from "./flow.mjs";
import { random } from "./rewards.mjs";
import { axes, clipped, dot, fitted, line, logarithmic, number, px, rows, tag } from "./plot.mjs";
import { explorable } from "./ui.mjs";
import { finished } from "./work.mjs";

/** @typedef {{variance: number, gain: number, kl_coef: number, length: number, jacobian: number}} State */
/** @typedef {ReturnType<typeof compute>} View */

const RUNS = 20; // of each kind
const PART = 4; // runs that are drawn at once
const LOW = 1e-8;
const KINDS = [
  ["proxy", "the proxy's rewards are small"],
  ["good", "the policy is nearly sure"],
];

/** @typedef {{kind: number, variance: number, time: number}} Run the kind: a place in KINDS */

/**
 * Trained tables of logits over two tokens, J = 1, measured in a reward of ±1 that the proxy scales down.
 * @param {Pick<State, "length" | "gain" | "kl_coef">} state
 * @returns {Generator<Run[] | undefined>}
 */
function* prepare({ length, gain, kl_coef: klCoef }) {
  const [prefixes, outputs] = shapeOf(2, length);
  /** @type {Run[]} */
  const points = [];
  for (let k = 0; k < 2 * RUNS; k++) {
    const i = (17 * k) % (2 * RUNS); // so that those drawn first are of all kinds
    const uniform = random(1000 + i);
    const [kind, share] = [i % 2, (Math.floor(i / 2) + uniform()) / RUNS];
    // The habit is the output of the first token throughout; a habit that has no reward has it all to gain.
    const habit = kind === 1 ? 14 * share : 0;
    const logits = Float64Array.from(
      { length: 2 * prefixes },
      (_, k) => 0.4 * (uniform() - 0.5) + (k % 2 === 0 ? habit : 0),
    );
    const measured = Float64Array.from({ length: outputs }, () => (uniform() < 0.5 ? -1 : 1));
    measured[0] = -1;
    measured[outputs - 1] = 1;
    const scale = kind === 0 ? 10 ** (-4 * share) : 1;
    const reward = measured.map((r) => scale * r);
    const { variance } = policyGradient(policy(logits, 2, length), reward, 2);
    const time = timeToGain(logits, reward, gain, 2, length, {
      measured,
      klCoef,
      tMax: 1e9,
      tolerance: 1e-4,
      maxSteps: 300,
    });
    points.push({ kind, variance, time });
    yield k % PART === PART - 1 ? points : undefined;
  }
}

/** @param {State} state @param {Run[]} trained */
function compute(state, trained = finished(prepare(state))) {
  const { length, jacobian, gain, kl_coef: klCoef, variance } = state;
  const points = trained.map((p) => ({ ...p, time: p.time / jacobian ** 2 }));
  /** @type {Record<"paper" | "ours" | "tabular", (variance: number) => number>} */
  const bounds = {
    paper: (v) => slowTimeBound(v, gain, length, jacobian, klCoef),
    ours: (v) => sharperSlowTimeBound(v, gain, length, jacobian),
    tabular: (v) => tabularSlowTimeBound(v, gain) / jacobian ** 2,
  };
  const [byGain, byPenalty] = [-Math.expm1(-gain / 9), -Math.expm1(-7 / (3 * klCoef))];
  const seen = points.filter((p) => Number.isFinite(p.time));
  return {
    state,
    points,
    seen,
    bounds,
    binding: byGain <= byPenalty ? "gain" : "penalty",
    at: { paper: bounds.paper(variance), ours: bounds.ours(variance), tabular: bounds.tabular(variance) },
  };
}

/** @type {Draw<View>} */
function draw({ state, seen, bounds }, width) {
  const key = rows(
    48,
    34,
    width - 56,
    KINDS.map(([tone, words]) => ({ mark: tone, words: `measured: ${words}`, class: "rv-note" })),
  );
  const box = {
    left: 48,
    top: 58 + key.height,
    width: width - 56,
    height: Math.round(Math.min(420, Math.max(280, 0.6 * width))),
  };
  const bottomValue = 10 ** Math.floor(Math.log10(bounds.paper(1)));
  const topValue =
    10 ** Math.ceil(Math.log10(Math.max(bounds.ours(LOW), bounds.paper(LOW), ...seen.map((p) => p.time))) + 0.2);
  const x = logarithmic([LOW, 1], [box.left, box.left + box.width]);
  const y = logarithmic([bottomValue, topValue], [box.top + box.height, box.top]);
  const ends = [LOW, 1];
  /** @type {(bound: (variance: number) => number, dash?: string, tone?: string) => string} */
  const curve = (bound, dash, tone = "ink") =>
    tag("path", {
      d: line(x, y, ends, ends.map(bound)),
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": "1.9",
      "stroke-dasharray": dash,
      fill: "none",
    });
  const dots = seen.map((p) =>
    tag("circle", {
      cx: x(p.variance),
      cy: y(p.time),
      r: 3.6,
      style: `fill:var(--rv-${KINDS[p.kind][0]})`,
      "fill-opacity": "0.8",
    }),
  );
  const forbidden = tag("path", {
    d: `${line(x, y, ends, ends.map(bounds.ours))}V${box.top + box.height}H${px(x(LOW))}Z`,
    style: "fill:var(--rv-bound)",
    "fill-opacity": "0.12",
    stroke: "none",
  });
  const here = tag("path", {
    d: `M${px(x(state.variance))} ${box.top}v${box.height}`,
    style: "stroke:var(--rv-line)",
    "stroke-dasharray": "2 3",
  });
  const marks = [bounds.paper, bounds.ours].map((bound) => dot(x(state.variance), y(bound(state.variance)), "ink"));
  let out = axes(box, x, y, {
    xTicks: width < 560 ? 4 : 8,
    yTicks: 7,
    xTitle: "reward variance of the initial policy",
  });
  out += clipped(
    box,
    forbidden,
    here,
    curve(bounds.paper, "6 4"),
    curve(bounds.ours),
    state.length === 1 ? curve(bounds.tabular, "2 3", "quiet") : "",
    ...dots,
    ...marks,
  );
  /** @type {(bound: (variance: number) => number, words: string) => string} */
  const label = (bound, words) =>
    fitted(box.left + 10, y(bound(x.invert(box.left + 150))) + 18, words, [box.left, width], {
      class: "rv-halo",
      "font-weight": 600,
    });
  out += label(bounds.paper, "the paper’s Theorem 4: slope −⅓") + label(bounds.ours, "ours: slope −½");
  out += fitted(box.left, 14, "Time to gain γ", [0, width], { class: "rv-title" }) + key.markup;
  return { height: box.top + box.height + 40, parts: [out] };
}

/** @type {(at: View["at"]) => Readout} */
const tabular = (at) => [
  "the paper’s Prop. 3 at the mark",
  number(at.tabular),
  "bound",
  "With one token the policy is tabular, so it holds too",
];

/** @type {Readouts<View>} */
const readouts = ({ points, seen, at, binding, state }) => [
  ["the paper’s Theorem 4 at the mark", number(at.paper), "bound", "Least time to gain γ by it at the chosen variance"],
  ["ours at the mark", number(at.ours), "bound", "Least time to gain γ by our bound at the chosen variance"],
  [
    "the min is set by",
    binding === "gain" ? "γ" : "λ",
    "",
    "Which of the two terms of the minimum in the paper's Theorem 4 is smaller",
  ],
  ...(state.length === 1 ? [tabular(at)] : []),
  [
    "runs that gain γ",
    `${seen.length} of ${points.length}`,
    "",
    "The others come to rest first: held by the KL penalty, or by a start above the end",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, seen, points, at }) =>
  `Least time to gain ${number(state.gain)} against initial reward variance, both logarithmic, for ${state.length} tokens, Jacobian norm ${number(state.jacobian)} and KL coefficient ${number(state.kl_coef)}. ` +
  `At variance ${number(state.variance)} the paper's Theorem 4 says ${number(at.paper)} and our bound ${number(at.ours)}. ${seen.length} of ${points.length} trained policies gain it, all above both lines: ` +
  `where the proxy's rewards are small, along slope minus one half; where the policy is nearly sure, more steeply.`;

export default explorable({
  name: "exponents",
  prepare,
  keys: ["length", "gain", "kl_coef"],
  compute,
  draw,
  readouts,
  describe,
});
