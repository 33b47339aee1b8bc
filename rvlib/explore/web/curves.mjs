// @ts-check
// Curves: a policy's whole training, solved, under sliders. Ground truth and proxy reward, reward variance, KL and gradient
// norm against time; t_γ as measured, and the time before which it cannot come:
//
//   t_γ ≥ 2|S| (1 - exp(-γ/2)) / sqrt(Var_{π_θ(0)} r)                                  the paper's Prop. 3
//   t_γ ≥ (2/R) ln(1 + R γ / (2 sqrt(Var_{π_θ(0)} r)))                                 under the natural gradient

import { expectation, rewardVariance, tabularGradientBound, tabularSlowTimeBound } from "./flow.mjs";
import { naturalSlowTimeBound } from "./geometry.mjs";
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
  spread,
  tag,
  text,
} from "./plot.mjs";
import { drawn, flowIn, gainTime, problem, rangeOf, teacher, when } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/**
 * @typedef {Setting & {accuracy: number, variance: number, kl_coef: number, gain: number, horizon: number, metric: Metric,
 *   log_time: boolean, pins: State[]}} State
 */
/** @typedef {ReturnType<typeof compute>} View */

const POINTS = 90; // times at which a curve is drawn, besides the integrator's own
const START = 0.1; // where a logarithmic axis of time begins
const DRAWN = 1e-6; // the integrator's tolerance for what is only drawn

const KEPT = 60; // settings solved before: pins, mostly

const solve = remembering((/** @type {Omit<State, "pins">} */ setting) => {
  const world = problem(setting);
  const made = teacher(world, setting.accuracy, setting.variance, setting.seed);
  const { logits, groundTruth } = world;
  const { kl_coef: klCoef, gain, horizon, metric } = setting;
  const natural = metric === "natural";
  const grid = Array.from({ length: POINTS }, (_, i) =>
    setting.log_time ? START * (horizon / START) ** (i / (POINTS - 1)) : (horizon * i) / (POINTS - 1),
  );
  const path = flowIn(logits, made.reward, horizon, { metric, groundTruth, klCoef, tolerance: DRAWN });
  const times = drawn(path, grid);
  const flow = path.at(times, { exact: false });
  return {
    /** @type {Record<string, string>} */
    markup: {}, // of its curves, while it is a pin
    setting,
    made,
    times,
    flow,
    // The paper's Lemma 8 bounds the gradient by the deviation of the reward with its KL term; a constant in that, as between
    // logits and logarithms of probabilities, does not change its variance.
    // In the Fisher metric that deviation is the gradient's norm itself.
    gradientBound: natural
      ? undefined
      : flow.probs.map((probs, i) =>
          tabularGradientBound(
            klCoef
              ? rewardVariance(
                  made.reward.map((r, y) => r - klCoef * (flow.logits[i][y] - logits[y])),
                  probs,
                )
              : flow.variance[i],
          ),
        ),
    start: { proxy: expectation(world.probs, made.reward), groundTruth: expectation(world.probs, groundTruth) },
    truthTime: gainTime(logits, made.reward, gain, { metric, measured: groundTruth, klCoef }),
    proxyTime: gainTime(logits, made.reward, gain, { metric, klCoef }),
    bound: natural
      ? naturalSlowTimeBound(made.variance, gain, Math.max(...made.reward) - Math.min(...made.reward))
      : tabularSlowTimeBound(made.variance, gain),
  };
}, KEPT);
/** @typedef {ReturnType<typeof solve>} Solution */

/** @param {State} state */
function compute(state) {
  const { pins: pinned, ...setting } = state;
  const now = solve(setting);
  // A pin keeps its problem; the axis of time and its scale are the figure's.
  const pins = pinned.map((pin) => solve({ ...pin, horizon: state.horizon, log_time: state.log_time }));
  return { state, now, pins, limits: rangeOf(now.made, state.variance) };
}

const LETTERS = "ABCDEF";
/** @type {(values: number[]) => number} */
const last = (values) => values[values.length - 1];
const roundUp = (/** @type {number} */ x) =>
  [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].find((m) => m >= x) ?? x;

/**
 * A panel's curves of one solution: tone and values, the second dashed in a pin.
 * @typedef {(solution: Solution) => [tone: string, values: number[], dashed?: boolean][]} Tones
 * @typedef {{box: Box, x: Scale, y: Scale, values: ReturnType<Tones>}} Panel
 */

/** @type {Draw<View>} */
function draw({ state, now, pins }, width) {
  const natural = state.metric === "natural";
  const narrow = width < 560;
  const margin = { left: 38, right: pins.length ? 20 : 14 };
  const columns = narrow ? 1 : 3;
  const gutter = 52;
  const small = (width - margin.left - margin.right - (columns - 1) * gutter) / columns;
  /** @type {(left: number, across: number) => Scale} */
  const timeScale = (left, across) =>
    state.log_time
      ? logarithmic([START, state.horizon], [left, left + across])
      : linear([0, state.horizon], [left, left + across]);

  /** One panel's layers: axes, what lies under the curves, pins, the setting at hand. Axes and pins stay while a slider moves. */
  /** @type {Panel[]} */
  const probed = []; // what each panel says of a time
  /**
   * @type {(box: Box, y: Scale, options: Parameters<typeof axes>[3] & {tones: Tones, bound?: number[], under?: string,
   *   over?: string}) => {back: string, under: string, pinned: string, front: string}}
   */
  const panel = (box, y, { tones, bound, under = "", over = "", ...options }) => {
    const x = timeScale(box.left, box.width);
    probed.push({ box, x, y, values: tones(now) });
    /** @type {(solution: Solution, values: number[], tone: string, width: number, dashes?: string) => string} */
    const curve = ({ times }, values, tone, width, dashes) =>
      tag("path", {
        d: line(x, y, times, values),
        style: `stroke:var(--rv-${tone})`,
        "stroke-width": width,
        "stroke-dasharray": dashes,
        "stroke-linejoin": "round",
      });
    const place = [box.left, box.top, box.width, x.invert(0), x.invert(1), y.invert(0), y.invert(1)].join();
    const pinned = pins.map(
      (pin, i) =>
        (pin.markup[`${i},${place}`] ??= tones(pin)
          .map(([, values, second]) => curve(pin, values, `pin-${i}`, 1.5, second ? "5 3" : undefined))
          .join("")),
    );
    const ends = pins.map((solution) =>
      Math.min(box.top + box.height, Math.max(box.top, y(last(tones(solution)[0][1])))),
    );
    const letters = spread(ends, 12, box.top, box.top + box.height).map((at, i) =>
      text(box.left + box.width + 5, at + 4, LETTERS[i], {
        style: `fill:color-mix(in oklab, var(--rv-pin-${i}) 70%, var(--rv-ink))`,
        "font-weight": 600,
      }),
    );
    const current = [
      ...tones(now).map(([tone, values]) => curve(now, values, tone, 2.4)),
      bound ? curve(now, bound, "bound", 1.3, "2 3") : "",
    ];
    return {
      back: axes(box, x, y, options),
      under: under && clipped(box, under),
      pinned: clipped(box, ...pinned) + letters.join(""),
      front: clipped(box, ...current, over),
    };
  };

  // ---- expected reward, with the gain, t_γ and the bound
  const across = width - margin.left - margin.right;
  const key = rows(margin.left, 31, across, [
    { words: "ground truth", tone: "truth", weight: 600 },
    { words: "and", class: "rv-note", gap: 4 },
    { words: "proxy", tone: "proxy", weight: 600, gap: 4 },
    ...(pins.length ? [{ words: "pins: proxy dashed", class: "rv-note" }] : []),
    ...(natural
      ? [{ words: "shaded: the bound for the natural gradient, not the paper's Prop. 3", class: "rv-note" }]
      : []),
  ]);
  const reward = { left: margin.left, top: 44 + key.height, width: across, height: narrow ? 164 : 230 };
  const bottom = reward.top + reward.height;
  const x = timeScale(reward.left, reward.width);
  const y = linear([-1, 1], [bottom, reward.top]);
  const goal = now.start.groundTruth + state.gain;
  const until = Math.max(reward.left, Math.min(x(now.bound), reward.left + reward.width));
  let under = tag("rect", {
    x: reward.left,
    y: reward.top,
    width: until - reward.left,
    height: reward.height,
    style: "fill:var(--rv-bound)",
    "fill-opacity": "0.14",
  });
  under += tag("path", {
    d: `M${px(until)} ${reward.top}V${bottom}`,
    style: "stroke:var(--rv-bound)",
    "stroke-width": "1.2",
  });
  under += tag("path", {
    d: `M${px(reward.left)} ${px(y(goal))}h${px(reward.width)}`,
    style: "stroke:var(--rv-truth)",
    "stroke-dasharray": "2 4",
  });
  let over = "";
  /** @type {(time: number, level: number, tone: string, radius: number) => void} */
  const reached = (time, level, tone, radius) => {
    if (!(time <= state.horizon)) return;
    over += tag("path", {
      d: `M${px(x(time))} ${px(y(level))}V${bottom}`,
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": "1.2",
      "stroke-dasharray": "1 3",
    });
    over += dot(x(time), y(level), tone, radius);
  };
  pins.forEach((pin, i) => reached(pin.truthTime, pin.start.groundTruth + pin.setting.gain, `pin-${i}`, 3.5));
  reached(now.proxyTime, now.start.proxy + state.gain, "proxy", 4.5);
  reached(now.truthTime, goal, "truth", 5);

  const main = panel(reward, y, {
    tones: ({ flow }) => [
      ["truth", flow.groundTruth, false],
      ["proxy", flow.proxy, true],
    ],
    under,
    over,
    xTicks: narrow ? 5 : 8,
    xTitle: "time",
  });
  const title = fitted(reward.left, 14, "Expected reward", [0, width], { class: "rv-title" }) + key.markup;
  let labels = "";
  const notBefore = `${T_GAMMA} not before ${number(now.bound)}`;
  /** @type {Pair} */
  const room = [reward.left, reward.left + reward.width];
  const left = until > reward.left + reward.width * 0.55; // of the line, else right of it
  const [labelAt, anchor] = left ? [until - 6, "end"] : [until + 6, "start"];
  labels += fitted(labelAt, bottom - 8, notBefore, room, {
    class: "rv-tick rv-halo",
    "text-anchor": anchor,
  });
  if (y(goal) > reward.top + 4)
    labels += text(reward.left + reward.width - 4, y(goal) - 5, "start + γ", {
      class: "rv-tick rv-halo",
      "text-anchor": "end",
      style: "fill:var(--rv-truth)",
    });
  const proxyGoal = now.start.proxy + state.gain;
  for (const { time, level, tone, above } of [
    { time: now.truthTime, level: goal, tone: "truth", above: goal > proxyGoal },
    { time: now.proxyTime, level: proxyGoal, tone: "proxy", above: proxyGoal >= goal },
  ])
    if (time <= state.horizon) {
      // Rewards rise: above a curve there is room to the left of a mark, below it to the right, but for the figure's ends.
      const words = `${T_GAMMA} = ${number(time)}`;
      const wide = measure(words, "", 600) + 9;
      const end = above ? x(time) > reward.left + wide : x(time) > reward.left + reward.width - wide;
      labels += fitted(x(time) + (end ? -7 : 9), y(level) + (above ? -8 : 16), words, room, {
        class: "rv-halo",
        "text-anchor": end ? "end" : "start",
        style: `fill:var(--rv-${tone})`,
        "font-weight": 600,
      });
    }

  // ---- reward variance, KL, gradient norm
  const klTop = roundUp(Math.max(...[...pins, now].map(({ flow }) => last(flow.kl)), 0.05) * 1.02);
  const [height, gap] = narrow ? [54, 48] : [120, 0]; // a small screen has room for all of it and for a slider
  /** @type {[title: string, note: string, scale: (at: Pair) => Scale, tones: Tones, bound?: number[]][]} */
  const panels = [
    ["Reward variance", "", (at) => logarithmic([1e-8, 2], at), ({ flow }) => [["proxy", flow.variance]]],
    ["KL from the start", "nats", (at) => linear([0, klTop], at), ({ flow }) => [["ink", flow.kl]]],
    [
      "Gradient norm",
      natural ? "= √Var" : "dotted: bound",
      (at) => logarithmic([1e-8, 2], at),
      ({ flow }) => [["ink", flow.gradientNorm]],
      now.gradientBound,
    ],
  ];
  const others = panels.map(([title, note, scale, tones, bound], i) => {
    const box = {
      left: margin.left + (narrow ? 0 : i * (small + gutter)),
      top: bottom + 72 + (narrow ? i * (height + gap) : 0),
      width: small,
      height,
    };
    return panel(box, scale([box.top + height, box.top]), {
      tones,
      bound,
      title,
      note,
      yTicks: narrow ? 2 : 4,
      xTicks: 5,
    });
  });
  // From the back, all panels' layers of one kind together: the pins are one picture, painted once and kept.
  const all = [main, ...others];
  const still = pins.length ? tag("g", { class: "rv-still" }, ...all.map((part) => part.pinned)) : "";
  const parts = [title, ...all.map((part) => part.back), main.under, still, ...all.map((part) => part.front), labels];
  return {
    height: bottom + 72 + (narrow ? 3 * (height + gap) - 22 : height + 24),
    parts,
    probe: probe(now.times, probed),
  };
}

/**
 * At the time under the pointer: a hairline through all panels, and the values of the setting at hand.
 * @type {(times: Float64Array, panels: Panel[]) => Drawing["probe"]}
 */
const probe = (times, panels) => (px, py) => {
  const over = panels.find(
    ({ box }) => px >= box.left && px <= box.left + box.width && py >= box.top && py <= box.top + box.height,
  );
  if (!over) return "";
  const time = over.x.invert(px);
  const at = times.findIndex((t) => t >= time);
  return panels
    .map(({ box, x, y, values }) => {
      const across = x(times[at]);
      const [dx, anchor] = across > box.left + box.width / 2 ? [-6, "end"] : [6, "start"];
      const levels = spread(
        values.map(([, series]) => Math.min(box.top + box.height, y(series[at]))),
        15,
        box.top + 8,
        box.top + box.height - 3,
      );
      return (
        tag("path", { class: "rv-axis", d: `M${across.toFixed(1)} ${box.top}v${box.height}` }) +
        values
          .map(([tone, series], i) => {
            const mark = {
              cx: across,
              cy: y(series[at]),
              r: 3,
              style: `fill:var(--rv-${tone});stroke:var(--rv-paper)`,
            };
            return (
              tag("circle", mark) +
              text(across + dx, levels[i] - 4, number(series[at]), {
                class: "rv-halo",
                "text-anchor": anchor,
                style: `fill:var(--rv-${tone})`,
              })
            );
          })
          .join("") +
        (box === over.box
          ? text(across + dx, box.top + box.height - 22, `at ${number(times[at])}`, {
              class: "rv-tick rv-halo",
              "text-anchor": anchor,
            })
          : "")
      );
    })
    .join("");
};

const BOUNDS = {
  euclidean: "The paper's Prop. 3",
  natural: "Theorem 12 (low variance is slow under the natural gradient as well)",
};

/** @type {Readouts<View>} */
const readouts = ({ state, now }) => [
  [
    "<i>t</i><sub>γ</sub>, ground truth",
    when(now.truthTime),
    "truth",
    "First time at which the ground truth reward has risen by γ",
  ],
  ["<i>t</i><sub>γ</sub>, proxy", when(now.proxyTime), "proxy", "First time at which the proxy reward has risen by γ"],
  ["not before", number(now.bound), "bound", `${BOUNDS[state.metric]}: lower bound on t_γ for either reward`],
  [
    "ground truth, start to end",
    `${number(now.start.groundTruth, 2)} <small>→</small> ${number(last(now.flow.groundTruth), 2)}`,
    "truth",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, now, pins }) =>
  `Training of a policy over ${state.outputs} outputs${state.metric === "natural" ? " by the natural gradient" : ""} until time ${number(state.horizon)}, with a reward model of accuracy ${number(now.made.accuracy)} and variance ${number(now.made.variance)}. ` +
  `Ground truth reward goes from ${number(now.start.groundTruth, 2)} to ${number(last(now.flow.groundTruth), 2)}, proxy reward from ${number(now.start.proxy, 2)} to ${number(last(now.flow.proxy), 2)}. ` +
  `The ground truth reward takes to gain ${number(state.gain)}: ${when(now.truthTime)}; by ${BOUNDS[state.metric].replace("The", "the")} it cannot before ${number(now.bound)}. ` +
  `Below: reward variance, KL divergence and ${state.metric === "natural" ? "the gradient's norm in the Fisher metric" : "gradient norm"} against time.${pins.length ? ` ${pins.length} other settings are drawn beside it.` : ""}`;

/** @type {Partial<Record<keyof State, string>>} */
const SHORT = {
  accuracy: "accuracy",
  variance: "variance",
  kl_coef: "λ",
  gain: "γ",
  outputs: "outputs",
  peakedness: "peakedness",
  skill: "skill",
  seed: "seed",
  metric: "metric",
};
const METRICS = { euclidean: "Euclidean", natural: "natural" };

/** A setting in words. @type {(pin: State, key: keyof State) => string} */
const said = (pin, key) => {
  const value = key === "metric" ? METRICS[pin.metric] : Number(pin[key]);
  if (typeof value === "string") return value;
  return Number.isInteger(value) ? String(value).replace("-", "−") : number(value, 2);
};

/**
 * A pin's chip: its letter, in what it differs from the setting at hand, and its t_γ.
 * @type {(pin: State, view: View, i: number) => string}
 */
const pinLabel = (pin, { state, pins }, i) => {
  const keys = /** @type {(keyof State)[]} */ (Object.keys(SHORT)).filter(
    (key) => key === "accuracy" || key === "variance" || pin[key] !== state[key],
  );
  return `<b>${LETTERS[i]}</b> ${keys.map((key) => `${SHORT[key]} ${said(pin, key)}`).join(", ")}: <i>t</i><sub>γ</sub> ${when(pins[i].truthTime)}`;
};

export default explorable({ name: "curves", compute, draw, readouts, describe, pinLabel });
