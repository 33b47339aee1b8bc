// @ts-check
// Plateau: three outputs, and a reward model that may be wrong about one. An error is harmful, benign or beneficial by what it
// does to the time in which the ground truth reward gains γ, t_γ, in gradient flow (arXiv 2604.25872).

import { expectation, gradientFlow, rewardVariance, timeToGain } from "./flow.mjs";
import { exactPredictors } from "./grades.mjs";
import {
  T_GAMMA,
  axes,
  clipped,
  dot,
  fitted,
  line,
  linear,
  logarithmic,
  measure,
  number,
  px,
  rows,
  tag,
  text,
} from "./plot.mjs";
import { drawn, gainLimit } from "./problem.mjs";
import { explorable } from "./ui.mjs";

/** @typedef {Record<"mediocre" | "good" | "bad" | "gain" | "truth" | "rare" | "common", number>} State */
/** @typedef {ReturnType<typeof compute>} View */

const [START, END] = [0.1, 1e7];
const GRID = Array.from({ length: 100 }, (_, i) => START * (END / START) ** (i / 99));
const OUTPUTS = ["good", "mediocre", "bad"];
const SURE = 0.9; // the probability of one output from which on the policy is on a plateau
const BENIGN = 0.05; // the change of t_γ up to which an error is benign

/**
 * The times [from, to] in which the policy gives an output that is not the good one with a probability of at least 0.9.
 * @type {(logits: Numbers, reward: Numbers, probs: Numbers) => [number, number][]}
 */
function plateaus(logits, reward, probs) {
  /** @type {[number, number][]} */
  const spans = [];
  for (let k = 1; k < OUTPUTS.length; k++) {
    const measured = OUTPUTS.map((_, y) => Number(y === k));
    const from = probs[k] >= SURE ? 0 : timeToGain(logits, reward, SURE - probs[k], { measured });
    if (from === Infinity) continue;
    const [now] = from ? gradientFlow(logits, reward, from).at([from]).logits : [logits];
    // It is left when the probability has fallen by a millionth: it rises first, unless training began here.
    const above = Math.max(from ? 0 : probs[k] - SURE, 0) + 1e-6;
    spans.push([from, from + timeToGain(now, reward, above, { measured: measured.map((m) => -m) })]);
  }
  return spans;
}

/**
 * Share of the pairs drawn from the policy that the reward orders rightly, or whose worse output has less than the mean reward:
 * policy gradient lowers that one's logit all the same. rvlib.metrics.harm_aware_accuracy has it for sampled replies.
 * @type {(reward: Numbers, truth: Numbers, probs: Numbers) => number}
 */
function harmAwareAccuracy(reward, truth, probs) {
  const mean = expectation(probs, reward);
  let [pairs, harmless] = [0, 0];
  for (let better = 0; better < truth.length; better++)
    for (let worse = 0; worse < truth.length; worse++) {
      if (!(truth[better] > truth[worse])) continue;
      const weight = probs[better] * probs[worse];
      pairs += weight;
      if (reward[better] > reward[worse] || reward[worse] < mean) harmless += weight;
    }
  return harmless / pairs;
}

/** @param {State} state */
function compute(state) {
  const common = Math.min(state.common, 1 - state.rare - 0.01);
  const probs = [state.rare, common, 1 - state.rare - common];
  const logits = probs.map(Math.log);
  const truth = [1, state.truth, -1];
  const start = expectation(probs, truth);
  const most = 0.98 * (1 - start);
  const gain = Math.min(state.gain, most);
  const solve = (/** @type {number[]} */ reward) => {
    const flow = gradientFlow(logits, reward, END, { groundTruth: truth, tolerance: 1e-6 });
    const times = drawn(flow, GRID);
    const waits = plateaus(logits, reward, probs);
    return {
      reward,
      times,
      flow: flow.at(times, { exact: false }),
      time: timeToGain(logits, reward, gain, { measured: truth }),
      plateaus: waits,
      waited: waits.reduce((sum, [from, to]) => sum + to - from, 0),
      variance: rewardVariance(reward, probs),
    };
  };
  const reference = solve(truth);
  const same = [state.good, state.mediocre, state.bad].every((r, y) => Math.abs(r - truth[y]) < 1e-9);
  const run = same ? reference : solve([state.good, state.mediocre, state.bad]);
  const ratio = run.time / reference.time;
  const kind = same ? "none" : ratio > 1 + BENIGN ? "harmful" : ratio < 1 - BENIGN ? "beneficial" : "benign";
  return {
    state,
    probs,
    truth,
    start,
    gain,
    run,
    reference,
    kind,
    accuracy: exactPredictors(probs, run.reward, truth).onpolicy,
    harmAware: harmAwareAccuracy(run.reward, truth, probs),
    limits: {
      gain: gainLimit(state.gain, most),
      common: { value: common, hint: common < state.common ? "the bad one keeps 0.01" : undefined },
    },
  };
}

/** @type {(time: number) => string} */
const spent = (time) => (time === 0 ? "none" : time === Infinity ? "for ever" : number(time));
/** @type {(time: number) => string} */
const when = (time) => (time === Infinity ? "never" : number(time));

/** @type {Draw<View>} */
function draw({ probs, truth, start, gain, run, reference, kind }, width) {
  const narrow = width < 520;
  const left = 38;
  const across = width - left - 14;

  // ---- each output's true reward and the reward model's
  const names = OUTPUTS.map((name, y) => `${name}, π ${number(probs[y], 2)}`);
  const from = left + Math.max(...names.map((name) => measure(name, "rv-tick"))) + 8;
  const value = linear([-1.5, 1.5], [from, left + across - 4]);
  const ROW = 19;
  let out = fitted(left, 14, "Rewards of the outputs", [left, left + across], { class: "rv-title" });
  out += rows(left, 31, across, [
    { words: "ground truth", tone: "truth", weight: 600, class: "rv-tick" },
    { words: "reward model", tone: "proxy", weight: 600, class: "rv-tick" },
  ]).markup;
  OUTPUTS.forEach((_, y) => {
    const at = 48 + y * ROW;
    out += text(left, at + 4, names[y], { class: "rv-tick" });
    out += tag("path", { class: "rv-grid", d: `M${px(from)} ${at}H${px(left + across)}` });
    out += tag("path", {
      d: `M${px(value(truth[y]))} ${at}H${px(value(run.reward[y]))}`,
      style: "stroke:var(--rv-proxy)",
      "stroke-width": 2,
    });
    out += tag("path", {
      d: `M${px(value(truth[y]))} ${at - 7}v14`,
      style: "stroke:var(--rv-truth)",
      "stroke-width": 3,
    });
    out += dot(value(run.reward[y]), at, "proxy", 4.5);
  });
  const scaled = 48 + 2 * ROW + 6;
  for (const tick of value.ticks(3))
    out += text(value(tick), scaled + 13, value.say(tick), { class: "rv-tick", "text-anchor": "middle" });

  // ---- rewards against time
  const key = rows(left, scaled + 54, across, [
    { words: "ground truth", tone: "truth", weight: 600 },
    { words: "dashed: trained on itself", class: "rv-note" },
    { words: "proxy", tone: "proxy", weight: 600 },
    ...(run.waited ? [{ words: "shaded: the plateau", class: "rv-note" }] : []),
  ]);
  const box = { left, top: scaled + 66 + key.height, width: across, height: narrow ? 140 : 200 };
  const x = logarithmic([START, END], [left, left + across]);
  const y = linear(
    [Math.min(-1, ...run.reward) - 0.05, Math.max(1, ...run.reward) + 0.05],
    [box.top + box.height, box.top],
  );
  /** @type {(solution: View["run"], values: number[], tone: string, attributes: Attributes) => string} */
  const curve = ({ times }, values, tone, attributes) =>
    tag("path", {
      d: line(x, y, times, values),
      style: `stroke:var(--rv-${tone})`,
      "stroke-linejoin": "round",
      ...attributes,
    });
  const low = { top: box.top + box.height + 42, height: narrow ? 58 : 78 };
  const shade = run.plateaus
    .map(([begin, end]) => {
      const [a, b] = [begin, end].map((t) => Math.min(Math.max(x(Math.max(t, START)), left), left + across));
      return tag("rect", {
        x: a,
        y: box.top,
        width: b - a,
        height: box.height,
        style: "fill:var(--rv-bound)",
        "fill-opacity": "0.16",
      });
    })
    .join("");
  const goal = tag("path", {
    d: `M${px(left)} ${px(y(start + gain))}h${px(across)}`,
    style: "stroke:var(--rv-truth)",
    "stroke-dasharray": "2 4",
  });
  const reached = [
    { time: reference.time, radius: 3.5 },
    { time: run.time, radius: 5 },
  ].map(({ time, radius }) => (time <= END ? dot(x(time), y(start + gain), "truth", radius) : ""));
  out += fitted(left, scaled + 37, "Expected reward", [left, left + across], { class: "rv-title" }) + key.markup;
  out += axes(box, x, y, { xTicks: narrow ? 4 : 8, xLabels: false });
  out += clipped(
    box,
    shade,
    goal,
    curve(reference, reference.flow.groundTruth, "truth", { "stroke-width": 1.6, "stroke-dasharray": "6 4" }),
    curve(run, run.flow.groundTruth, "truth", { "stroke-width": 2.6 }),
    curve(run, run.flow.proxy, "proxy", {
      "stroke-width": 1.6,
      "stroke-dasharray": kind === "none" ? "4 5" : undefined,
    }),
    ...reached,
  );
  /** @type {Pair} */
  const room = [left, left + across];
  if (run.time <= END) {
    const words = `${T_GAMMA} = ${number(run.time)}`;
    const end = x(run.time) > left + measure(words, "", 600) + 8;
    const above = y(start + gain) - box.top > 20;
    out += fitted(x(run.time) + (end ? -8 : 8), y(start + gain) + (above ? -8 : 17), words, room, {
      class: "rv-halo",
      "text-anchor": end ? "end" : "start",
      "font-weight": 600,
      style: "fill:var(--rv-truth)",
    });
  } else
    out += fitted(left + across - 4, y(start + gain) + 15, `start + γ: ${when(run.time)}`, room, {
      class: "rv-tick rv-halo",
      "text-anchor": "end",
      style: "fill:var(--rv-truth)",
    });

  // ---- the probabilities against time, one upon the other
  const share = linear([0, 1], [low.top + low.height, low.top]);
  const { times, flow } = run;
  const tops = [0, 1].map((k) => flow.probs.map((p) => p.slice(0, k + 1).reduce((sum, q) => sum + q, 0)));
  /** @type {(upper: number[], style: string) => string} */
  const area = (upper, style) =>
    tag("path", {
      d: `${line(x, share, times, upper)}V${px(share(0))}H${px(x(times[0]))}Z`,
      style: `fill:${style};stroke:none`,
    });
  const tint = (/** @type {number} */ part) => `color-mix(in oklab, var(--rv-truth) ${part}%, var(--rv-faint))`;
  out += axes({ left, top: low.top, width: across, height: low.height }, x, share, {
    title: "Probabilities",
    xTicks: narrow ? 4 : 8,
    yTicks: 1,
    xTitle: "time",
  });
  out += clipped(
    { left, top: low.top, width: across, height: low.height },
    tag("rect", { x: left, y: low.top, width: across, height: low.height, style: `fill:${tint(0)}` }),
    area(tops[1], tint(35)),
    area(tops[0], tint(75)),
  );
  // Each name in the middle of the times at which its output is likeliest, in a band that is high enough for it.
  const labelled = OUTPUTS.map((name, k) => {
    const most = Math.max(...flow.probs.map((p) => p[k]));
    const likely = [...times].filter((_, i) => flow.probs[i][k] > most - 0.03);
    const at = times.findIndex(
      (t) => t >= Math.sqrt(Math.max(likely[0], START) * likely[likely.length - 1]) * (1 - 1e-9),
    );
    if (flow.probs[at][k] * low.height < 13) return "";
    const below = k ? tops[k - 1][at] : 0;
    const half = measure(name) / 2 + 3;
    return fitted(x(times[at]), share(below + flow.probs[at][k] / 2) + 4, name, [left + 3, left + across - 3], {
      class: "rv-halo",
      "text-anchor": x(times[at]) < left + half ? "start" : x(times[at]) > left + across - half ? "end" : "middle",
    });
  });
  out += labelled.join("");
  return { height: low.top + low.height + 36, parts: [out] };
}

/** @type {Record<string, string>} */
const TONES = { harmful: "proxy", beneficial: "truth" };
/** @type {(of: (x: number) => string, a: number, b: number) => string} */
const both = (of, a, b) => (of(a) === of(b) ? of(a) : `${of(a)} <small>→</small> ${of(b)}`);

/** @type {Readouts<View>} */
const readouts = ({ run, reference, kind, accuracy, harmAware }) => [
  [
    "the error is",
    kind === "none" ? "none yet" : kind,
    TONES[kind],
    "By its effect on the time to gain γ; benign: by 5 % at most",
  ],
  [
    "<i>t</i><sub>γ</sub>, truth → with the error",
    both(when, reference.time, run.time),
    "truth",
    "First time at which the ground truth reward has risen by γ, trained on the truth and on the reward model",
  ],
  [
    "time on the plateau",
    both(spent, reference.waited, run.waited),
    "bound",
    "Time in which the mediocre or the bad output has a probability of at least 0.9, trained on the truth and on the reward model",
  ],
  [
    "reward variance at the start",
    both((v) => number(v, 2), reference.variance, run.variance),
    "proxy",
    "Of the ground truth and of the reward model, under the initial policy",
  ],
  ["accuracy", number(accuracy, 2), "proxy", "Share of the pairs drawn from the initial policy in the right order"],
  [
    "harm-aware accuracy",
    number(harmAware, 2),
    "proxy",
    "A pair also counts if its worse output has less reward than the initial policy on average, since training then lowers its logit",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, run, reference, kind, gain, accuracy, harmAware }) =>
  `Expected ground truth and proxy reward against time, and the probabilities of three outputs. The reward model gives the good output ${number(state.good)}, the mediocre one ${number(state.mediocre)} and the bad one ${number(state.bad)}; the truth is 1, ${number(state.truth)} and −1. ` +
  `Kind of error: ${kind}. Time to gain ${number(gain, 2)}: ${when(run.time)}, and ${when(reference.time)} under the ground truth itself. Time on the plateau: ${spent(run.waited)}, and ${spent(reference.waited)}. ` +
  `Reward variance at the start ${number(run.variance, 2)}, accuracy ${number(accuracy, 2)}, harm-aware accuracy ${number(harmAware, 2)}.`;

export default explorable({ name: "plateau", compute, draw, readouts, describe });
