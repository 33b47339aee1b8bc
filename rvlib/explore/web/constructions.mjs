// @ts-check
// The two teachers of the paper's Theorem 5: A is as accurate as you like and as slow, B inaccurate and fast.
//
//   A   rewards in (0, 1/T)                        t_γ ≥ 2 (1 - e^{-γ/2}) T
//   B   1 on the best output, else below π(best)   t_γ ≤ 4/(1-ρ)⁴ (1/π(best) - 1/ρ),   ρ = (V_G(0) + γ + 1)/(r_G(best) + 1)

import { expectation, gradientFlow, rankingAccuracy, rewardVariance, tabularSlowTimeBound } from "./flow.mjs";
import { accurateButSlow, fastTimeBounds, inaccurateButFast } from "./rewards.mjs";
import { T_GAMMA, axes, clipped, fitted, line, linear, logarithmic, number, px, rows, tag } from "./plot.mjs";
import { drawn, gainLimit, gainTime, problem, when } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/** @typedef {Setting & {slowness: number, a_accuracy: number, b_accuracy: number, gain: number}} State */
/** @typedef {ReturnType<typeof compute>} View */

const [START, END] = [0.1, 1e8];
const GRID = Array.from({ length: 110 }, (_, i) => START * (END / START) ** (i / 109));
const MOST = 1e6; // the largest T
const SHARE = 0.98; // of what there is to gain, at most

/** Everything but T, which only stretches time. */
const solve = remembering((/** @type {Omit<State, "slowness">} */ setting) => {
  const { groundTruth, logits, probs } = problem(setting);
  const n = groundTruth.length;
  const pairs = (n * (n - 1)) / 2;
  const start = expectation(probs, groundTruth);
  const most = SHARE * (groundTruth[0] - start);
  const gain = Math.min(setting.gain, most);
  /** @type {(accuracy: number, least: number) => number} */
  const nearest = (accuracy, least) => Math.max(Math.round(accuracy * pairs), least) / pairs;
  const follow = (/** @type {Float64Array} */ reward) => ({
    reward,
    accuracy: rankingAccuracy(reward, groundTruth),
    variance: rewardVariance(reward, probs),
    time: gainTime(logits, reward, gain, { measured: groundTruth }),
    flow: gradientFlow(logits, reward, END, { groundTruth, tolerance: 1e-6 }),
  });
  const slow = follow(accurateButSlow(groundTruth, nearest(setting.a_accuracy, 0), 1, setting.seed)); // T = 1
  const fast = follow(inaccurateButFast(groundTruth, probs, nearest(setting.b_accuracy, n - 1), setting.seed));
  const times = drawn(fast.flow, GRID);
  return {
    gain,
    most,
    start,
    slow,
    fast: { ...fast, curve: fast.flow.at(times, { exact: false }).groundTruth },
    times,
    top: groundTruth[0],
    notAfter: fastTimeBounds(groundTruth, probs, fast.reward, gain),
    least: (n - 1) / pairs,
  };
});

/** @param {State} state */
function compute(state) {
  const { slowness: T, ...setting } = state;
  const solved = solve(setting);
  const { slow, fast, gain } = solved;
  // Rewards divided by T: the same path, T times as slow.
  const times = drawn({ t: slow.flow.t.map((t) => t * T) }, GRID);
  const curve = slow.flow.at(
    times.map((t) => t / T),
    { exact: false },
  ).groundTruth;
  const limits = {
    gain: gainLimit(state.gain, solved.most),
    a_accuracy: { value: slow.accuracy },
    b_accuracy: { value: fast.accuracy, hint: `at least ${number(solved.least, 2)} with the best first` },
  };
  return {
    state,
    ...solved,
    limits,
    a: {
      times,
      curve,
      time: slow.time * T,
      variance: slow.variance / T ** 2,
      notBefore: tabularSlowTimeBound(1, gain) * T,
    },
  };
}

/** @type {Draw<View>} */
function draw({ state, start, gain, slow, fast, times, notAfter, a }, width) {
  const narrow = width < 560;
  const left = 44;
  const across = narrow ? width - left - 14 : (width - left - 14) * 0.54;
  const key = rows(left, 31, across, [
    { words: `A, accuracy ${number(slow.accuracy, 2)}`, tone: "a", weight: 600 },
    { words: `B, accuracy ${number(fast.accuracy, 2)}`, tone: "b", weight: 600 },
  ]);
  const reward = { left, top: 46 + key.height, width: across, height: narrow ? 190 : 250 };
  const sweep = narrow
    ? { left, top: reward.top + reward.height + 92, width: across, height: 190 }
    : { left: left + across + 66, top: reward.top, width: width - left - across - 80, height: 250 };
  const bottom = reward.top + reward.height;

  // ---- ground truth reward against time
  const x = logarithmic([START, END], [reward.left, reward.left + reward.width]);
  const y = linear([-1, 1], [bottom, reward.top]);
  /** @type {(tone: string, more?: Attributes) => Attributes} */
  const stroke = (tone, more) => ({
    style: `stroke:var(--rv-${tone})`,
    "stroke-width": "2.4",
    "stroke-linejoin": "round",
    ...more,
  });
  const until = Math.min(x(a.notBefore), reward.left + reward.width);
  const ruled = tag("rect", {
    x: reward.left,
    y: reward.top,
    width: Math.max(until - reward.left, 0),
    height: reward.height,
    style: "fill:var(--rv-bound)",
    "fill-opacity": "0.14",
  });
  const late = tag("path", {
    d: `M${px(x(notAfter.ours))} ${reward.top}V${bottom}`,
    style: "stroke:var(--rv-b)",
    "stroke-dasharray": "2 4",
    "stroke-width": "1.4",
  });
  const goal = tag("path", {
    d: `M${px(reward.left)} ${px(y(start + gain))}h${px(reward.width)}`,
    style: "stroke:var(--rv-ink)",
    "stroke-dasharray": "6 4",
  });
  const curves =
    tag("path", { d: line(x, y, a.times, a.curve), ...stroke("a") }) +
    tag("path", { d: line(x, y, times, fast.curve), ...stroke("b") });
  /** @type {(time: number, tone: string) => string} */
  const dot = (time, tone) =>
    time <= END
      ? tag("circle", {
          cx: x(time),
          cy: y(start + gain),
          r: 4.5,
          style: `fill:var(--rv-${tone});stroke:var(--rv-paper)`,
          "stroke-width": "1.5",
        })
      : "";
  let out = axes(reward, x, y, { xTicks: narrow ? 5 : 6, xTitle: "time" });
  out += clipped(reward, ruled, late, goal, curves, dot(a.time, "a"), dot(fast.time, "b"));
  const room = [reward.left, reward.left + reward.width];
  out += fitted(reward.left, 14, "Ground truth reward under each", room, { class: "rv-title" }) + key.markup;
  out += fitted(reward.left + 5, bottom - 8, "A: not yet", room, { class: "rv-tick rv-halo" });

  // ---- t_γ against T
  const u = logarithmic([1, MOST], [sweep.left, sweep.left + sweep.width]);
  const v = logarithmic([START, 1e10], [sweep.top + sweep.height, sweep.top]);
  const ends = [1, MOST];
  /** @type {(at: (T: number) => number, tone: string, more?: Attributes) => string} */
  const straight = (at, tone, more) =>
    tag("path", {
      d: line(u, v, ends, ends.map(at)),
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": "2.2",
      ...more,
    });
  const forbidden = tag("path", {
    d: `${line(
      u,
      v,
      ends,
      ends.map((T) => (a.notBefore / state.slowness) * T),
    )}V${sweep.top + sweep.height}H${px(sweep.left)}Z`,
    style: "fill:var(--rv-bound)",
    "fill-opacity": "0.14",
  });
  const here = tag("path", { d: `M${px(u(state.slowness))} ${sweep.top}v${sweep.height}`, class: "rv-axis" });
  const marks = [
    { time: a.time, tone: "a" },
    { time: fast.time, tone: "b" },
  ].map(({ time, tone }) =>
    Number.isFinite(time)
      ? tag("circle", {
          cx: u(state.slowness),
          cy: v(time),
          r: 4.5,
          style: `fill:var(--rv-${tone});stroke:var(--rv-paper)`,
          "stroke-width": "1.5",
        })
      : "",
  );
  const lines = [
    Number.isFinite(slow.time) ? straight((T) => slow.time * T, "a") : "",
    Number.isFinite(fast.time) ? straight(() => fast.time, "b") : "",
    straight(() => notAfter.ours, "b", { "stroke-dasharray": "2 4", "stroke-width": "1.4" }),
    straight(() => notAfter.paper, "b", { "stroke-dasharray": "7 5", "stroke-width": "1.2" }),
  ];
  let second =
    axes(sweep, u, v, { xTicks: 4, yTicks: 6, xTitle: "T" }) + clipped(sweep, forbidden, here, ...lines, ...marks);
  const beside = [sweep.left, sweep.left + sweep.width];
  second += fitted(sweep.left, sweep.top - 32, `${T_GAMMA} against T`, beside, { class: "rv-title" });
  second += fitted(sweep.left, sweep.top - 15, "B not after: dashed; ours dotted", beside, { class: "rv-tick" });
  return { height: sweep.top + sweep.height + 40, parts: [out, second] };
}

/** @type {Readouts<View>} */
const readouts = ({ a, fast, notAfter }) => [
  [
    "A: <i>t</i><sub>γ</sub>",
    when(a.time),
    "a",
    "First time at which the ground truth reward has risen by γ under teacher A",
  ],
  [
    "A: not before",
    number(a.notBefore),
    "bound",
    "Lower bound of the paper's Theorem 5, for any reward model with rewards in (0, 1/T)",
  ],
  ["A: reward variance", number(a.variance, 2), "", "Variance of A's reward under the initial policy"],
  [
    "B: <i>t</i><sub>γ</sub>",
    when(fast.time),
    "b",
    "First time at which the ground truth reward has risen by γ under teacher B",
  ],
  ["B: not after", number(notAfter.paper), "bound", "Upper bound of the paper's Theorem 5 for teacher B"],
  ["B: not after, ours", number(notAfter.ours), "bound", "This book's upper bound for teacher B"],
];

/** @type {Describe<View>} */
const describe = ({ state, slow, fast, gain, a, notAfter }) =>
  `Ground truth reward against time under two teachers, and the time to gain ${number(gain, 2)} against T. Teacher A has accuracy ${number(slow.accuracy, 2)} and, at T = ${number(state.slowness)}, reward variance ${number(a.variance, 2)}; its time to gain: ${when(a.time)}, not before ${number(a.notBefore)}. ` +
  `Teacher B has accuracy ${number(fast.accuracy, 2)}; its time: ${when(fast.time)}, whatever T is, and at most ${number(notAfter.ours)}.`;

export default explorable({ name: "constructions", compute, draw, readouts, describe });
