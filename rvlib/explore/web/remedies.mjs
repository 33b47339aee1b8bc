// @ts-check
// The figure of remedies for low variance: untreated and treated training side by side (treatments.mjs).

import { expectation, rewardVariance } from "./flow.mjs";
import { exactPredictors } from "./grades.mjs";
import { axes, clamp, clipped, dot, fitted, line, linear, number, px, shortened, tag, text } from "./plot.mjs";
import { gainLimit } from "./problem.mjs";
import {
  PROMPTS,
  REMEDIES,
  SAMPLES,
  STEPS,
  TRUTH,
  groupProbabilities,
  groupTable,
  train,
  twoPrompts,
} from "./treatments.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/**
 * @typedef {{remedy: keyof typeof REMEDIES, strength: number, step: number, gain: number, error: number, quiet: number,
 *   skill: number, seed: number, rule: import("./treatments.mjs").Rule} & Record<`sample_${number}`, boolean>} State
 */
/** @typedef {ReturnType<typeof compute>} View */

/**
 * What training has: each prompt's rewards, the power of the deviation, the noise on a sample, and the samples that are used.
 * @typedef {{reward: Float64Array[], power: number, noise: number, ranks: number[]}} Training
 * @typedef {ReturnType<typeof follow>} Run
 * @typedef {import("./treatments.mjs").TwoPrompts} TwoPrompts
 * @typedef {Parameters<typeof twoPrompts>[0]} Setting
 */

const ALL = Array.from({ length: SAMPLES }, (_, i) => i);

/** @type {(world: TwoPrompts) => Training} */
const plain = (world) => ({ reward: world.scores[0], power: 0, noise: 0, ranks: ALL });

/**
 * How training goes, and the mean over the prompts of what is said of its rewards.
 * @param {TwoPrompts} world
 * @param {Pick<State, "rule" | "step">} steps
 * @param {Training} training
 */
function follow(world, steps, training) {
  const probs = world.probs.map((p) => groupProbabilities(p));
  const groups = training.reward.map((r) => groupTable(r, training.power, training.ranks));
  const mean = (/** @type {(prompt: number) => number} */ of) =>
    PROMPTS.reduce((sum, _, p) => sum + of(p) / PROMPTS.length, 0);
  return {
    ...training,
    ...train(world, groups, steps),
    variance: mean((p) => rewardVariance(training.reward[p], world.probs[p])) + training.noise ** 2,
    accuracy: mean((p) => exactPredictors(world.probs[p], training.reward[p], TRUTH).onpolicy),
    used: mean((p) => expectation(probs[p], groups[p].used)),
    largest: mean((p) => expectation(probs[p], groups[p].largest)),
  };
}

/** Untreated training, kept while only the remedy changes. */
const withoutRemedy = remembering(
  (
    /** @type {Pick<State, "rule" | "step"> & Setting & {before?: {power: number}}} */ {
      rule,
      step,
      before,
      ...setting
    },
  ) => {
    const world = twoPrompts(setting);
    return follow(world, { rule, step }, { ...plain(world), ...before });
  },
);

/** @param {State} state */
function compute(state) {
  const { remedy, strength, rule, step, error, quiet, skill, seed } = state;
  const world = twoPrompts(state);
  const { title, words, before, after } = REMEDIES[remedy];
  const ranks = ALL.filter((i) => state[`sample_${i + 1}`]);
  const untreated = withoutRemedy({ rule, step, error, quiet, skill, seed, before });
  const treated = follow(world, { rule, step }, { ...plain(world), ...before, ...after(world, strength), ranks });
  const start = untreated.truth[0];
  const most = 0.98 * (1 - start);
  const gain = Math.min(state.gain, most);
  /** @type {(run: Run) => Run & {reached?: number}} */
  const withTime = (run) => {
    const at = run.truth.findIndex((value) => value >= start + gain);
    return { ...run, reached: at < 0 ? undefined : at };
  };
  const silent = ranks.length < 2 && "fewer than two samples have no spread";
  const idle =
    remedy === "none"
      ? "choose a remedy"
      : remedy === "ensemble" && !state.error
        ? "no errors to average"
        : before || remedy === "grpo"
          ? silent
          : "";
  return {
    state,
    probs: world.probs,
    titles: [...(idle ? [] : [`${title}, ${words(strength)}`]), title, ...title.split(/ \(|\)/).filter(Boolean)],
    untitled: before ? ["Untreated: GRPO", "GRPO"] : ["Untreated"],
    runs: [untreated, treated].map(withTime),
    start,
    gain,
    limits: {
      gain: gainLimit(state.gain, most),
      strength: { words: words(strength), hint: idle || undefined, idle: Boolean(idle) },
    },
  };
}

/** @type {(run: {reached?: number}) => string} */
const when = ({ reached }) => (reached === undefined ? `more than ${STEPS}` : String(reached));

/** @type {(run: Run) => boolean} whether training has lowered the ground truth, in the two digits that are shown */
const falls = ({ truth }) => truth[STEPS] < truth[0] - 0.005;

/** How many samples of a group are used, in words; "" for all. @type {(run: Run) => string} */
const selection = ({ ranks }) => (ranks.length === SAMPLES ? "" : `${ranks.length} of ${SAMPLES} samples`);

/** @type {Draw<View>} */
function draw({ probs, titles, untitled, runs, start, gain }, width) {
  const narrow = width < 520;
  const [labels, gutter] = [36, narrow ? 14 : 34];
  const column = (width - labels - gutter - 14) / 2;
  const dots = { top: 52, height: narrow ? 64 : 90 };
  const curves = { top: dots.top + dots.height + 72, height: narrow ? 130 : 190 };
  const rewards = runs.flatMap((run) =>
    run.reward.flatMap((reward) => [...reward].flatMap((r) => [r - run.noise, r + run.noise])),
  );
  const reach = [Math.min(-1, ...rewards), Math.max(1, ...rewards)];
  const pad = 0.06 * (reach[1] - reach[0]);
  const parts = runs.map((run, i) => {
    const left = labels + i * (column + gutter);
    const room = [left, left + column];
    const name = shortened(i ? titles : untitled, column, "rv-title");
    let out = fitted(left, 14, name, room, { class: "rv-title" });
    const used = selection(run);
    out += fitted(
      left,
      30,
      shortened([...(used ? [`rewards; ${used} used`, used] : []), "rewards", ""], column, "rv-tick"),
      room,
      { class: "rv-tick" },
    );

    // ---- rewards of each prompt's outputs, from worst to best, over the probabilities at the start
    const height = linear([reach[0] - pad, reach[1] + pad], [dots.top + dots.height, dots.top]);
    const half = (column - 10) / 2;
    run.reward.forEach((reward, p) => {
      const from = left + p * (half + 10);
      const slot = half / TRUTH.length;
      const across = (/** @type {number} */ y) => from + (TRUTH.length - 1 - y + 0.5) * slot;
      out += tag("path", { class: "rv-axis", d: `M${px(from)} ${px(dots.top + dots.height)}h${px(half)}` });
      out += tag("path", { class: "rv-grid", d: `M${px(from)} ${px(height(0))}h${px(half)}` });
      reward.forEach((r, y) => {
        const tall = probs[p][y] * dots.height;
        out += tag("rect", {
          x: across(y) - slot * 0.36,
          y: dots.top + dots.height - tall,
          width: slot * 0.72,
          height: Math.max(tall, 0.6),
          style: "fill:var(--rv-line)",
          "fill-opacity": "0.55",
        });
        out += tag("path", {
          d: `M${px(across(y) - slot * 0.36)} ${px(height(TRUTH[y]))}h${px(slot * 0.72)}`,
          style: "stroke:var(--rv-truth)",
          "stroke-width": 2,
        });
        if (run.noise)
          out += tag("path", {
            d: `M${px(across(y))} ${px(height(r - run.noise))}V${px(height(r + run.noise))}`,
            style: "stroke:var(--rv-proxy)",
            "stroke-width": 1.6,
          });
        out += tag("circle", {
          cx: across(y),
          cy: height(r),
          r: clamp(slot * 0.3, 2, 4),
          style: "fill:var(--rv-proxy);stroke:var(--rv-paper)",
        });
      });
      out += fitted(
        from + half / 2,
        dots.top + dots.height + 15,
        shortened([`${PROMPTS[p]} prompt`, PROMPTS[p]], half, "rv-tick"),
        [from, from + half],
        {
          class: "rv-tick",
          "text-anchor": "middle",
        },
      );
    });
    if (!i)
      for (const value of height.ticks(4))
        out += text(labels - 6, height(value) + 3.5, height.say(value), { class: "rv-tick", "text-anchor": "end" });

    // ---- ground truth against steps: the mean, and each prompt's
    const box = { left, top: curves.top, width: column, height: curves.height };
    const x = linear([0, STEPS], [left, left + column]);
    const y = linear([-1, 1], [box.top + box.height, box.top]);
    const steps = run.truth.map((_, t) => t);
    /** @type {(values: Float64Array, attributes: Attributes) => string} */
    const curve = (values, attributes) =>
      tag("path", {
        d: line(x, y, steps, values),
        style: "stroke:var(--rv-truth)",
        "stroke-linejoin": "round",
        ...attributes,
      });
    const goal = tag("path", {
      d: `M${px(left)} ${px(y(start + gain))}h${px(column)}`,
      style: "stroke:var(--rv-ink)",
      "stroke-dasharray": "6 4",
      "stroke-width": "1.2",
    });
    const before = i
      ? curve(runs[0].truth, { style: "stroke:var(--rv-bound)", "stroke-width": 1.6, "stroke-dasharray": "5 3" })
      : "";
    const thin = run.each.map((values, p) =>
      curve(values, { "stroke-width": 1.1, "stroke-opacity": "0.75", "stroke-dasharray": p ? "1.5 3" : undefined }),
    );
    out += fitted(left, box.top - 26, shortened(["Ground truth reward", "Ground truth"], column, "rv-title"), room, {
      class: "rv-title",
    });
    out += axes(box, x, y, { xTicks: narrow ? 2 : 3, yTicks: i ? 0 : 4, xTitle: i ? "step" : "" });
    out += clipped(box, goal, before, ...thin, curve(run.truth, { "stroke-width": 2.6 }));
    if (run.reached !== undefined) {
      out += dot(x(run.reached), y(run.truth[run.reached]), "truth");
      const words = `${run.reached} steps`;
      out += fitted(x(run.reached) + 7, y(start + gain) + 16, words, room, {
        class: "rv-halo",
        "font-weight": 600,
        style: "fill:var(--rv-truth)",
      });
    }
    const notes = falls(run)
      ? ["✗ ends below its start", "✗ ends below"]
      : i
        ? ["grey: untreated"]
        : ["solid: loud, dotted: quiet prompt", "dotted: quiet"];
    out += fitted(left, box.top - 10, shortened(notes, column, "rv-tick"), room, { class: "rv-tick" });
    return out;
  });
  return { height: curves.top + curves.height + 38, parts };
}

const arrow = (/** @type {string[]} */ values) => values.join(" <small>→</small> ");

/** @type {Readouts<View>} */
const readouts = ({ runs }) => [
  [
    "steps to gain <i>γ</i>, <i>t</i><sub>γ</sub>",
    arrow(runs.map(when)),
    "truth",
    "First step after which the mean ground truth reward of the two prompts has risen by γ, untreated and treated",
  ],
  [
    "ground truth at the end",
    arrow(runs.map(({ truth }) => number(truth[STEPS], 2))),
    "truth",
    `Mean ground truth reward of the two prompts after ${STEPS} steps, untreated and treated`,
  ],
  [
    "reward variance at the start",
    arrow(runs.map(({ variance }) => number(variance, 2))),
    "proxy",
    "Variance of the reward under the initial policy, noise included; mean of the two prompts",
  ],
  [
    "accuracy",
    arrow(runs.map(({ accuracy }) => number(accuracy, 2))),
    "proxy",
    "Share of the pairs drawn from the initial policy in the right order, before any noise; mean of the two prompts",
  ],
  [
    "variance of samples used",
    `${number(runs[1].used, 2)} <small>(at most ${number(runs[1].largest, 2)})</small>`,
    "",
    "Mean variance of the samples of a group that are used, and the largest that so many samples of each group can have, which PODS takes",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, titles, runs, gain }) =>
  `Ground truth reward over ${STEPS} ${state.rule === "plain" ? "plain steps" : "steps of fixed length"} on two prompts, untreated and treated side by side; treatment: ${titles[0]}${selection(runs[1]) ? `, ${selection(runs[1])} used` : ""}. ` +
  ["Untreated", "Treated"]
    .map(
      (name, i) =>
        `${name}: reward variance ${number(runs[i].variance, 2)}, accuracy ${number(runs[i].accuracy, 2)}, steps to gain ${number(gain, 2)}: ${when(runs[i])}, ground truth reward at the end ${number(runs[i].truth[STEPS], 2)}${falls(runs[i]) ? ", below its start" : ""}. `,
    )
    .join("");

export default explorable({ name: "remedies", compute, draw, readouts, describe });
