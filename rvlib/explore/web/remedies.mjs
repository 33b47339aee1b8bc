// @ts-check
// Remedies for low variance: two prompts that share a step, the rewards of the second nearly equal; untreated and treated
// training side by side. Every step is the expected update of sampled groups, summed over all groups that there are:
//
//   E[ (1/k) Σ_i A_i (e_{y_i} - π) ],    A_i = (r_i - mean) / (deviation + 1e-4)^p,    over the k samples of six that are used
//
// a port of rvlib.tabular.remedies.expected_update, in the world of rvlib.explore.remedies.two_prompts.

import { expectation, rewardVariance, softmax } from "./flow.mjs";
import { grades } from "./grades.mjs";
import { axes, clamp, clipped, dot, fitted, line, linear, number, px, shortened, tag, text } from "./plot.mjs";
import { gainLimit } from "./problem.mjs";
import { normals, random } from "./rewards.mjs";
import { explorable } from "./ui.mjs";

const TRUTH = Float64Array.of(1, 1 / 3, 1 / 3, -1 / 3, -1 / 3, -1);
const N = TRUTH.length;
const PROMPTS = ["loud", "quiet"];
const [MODELS, SAMPLES, STEPS] = [11, 6, 150];
const STD_FLOOR = 1e-4; // as in rvlib.tabular.estimators
const DITHERED = 4; // levels

// ---- the world, and what each remedy does to its rewards ------------------------------------------------------------------

/**
 * Logits and scores [model][prompt][output]; the first model is the teacher.
 * @param {Record<string, any>} setting
 */
function twoPrompts({ error, quiet, skill, seed }) {
  const normal = normals(random(seed));
  const logits = PROMPTS.map(() => TRUTH.map((truth) => normal() + 2 * skill * truth));
  const offsets = PROMPTS.map(() => 0.5 * normal());
  const scores = Array.from({ length: MODELS }, () =>
    PROMPTS.map((_, p) => TRUTH.map((truth) => (p ? quiet : 1) * (truth + error * normal()) + offsets[p])),
  );
  return { logits, scores, probs: logits.map(softmax) };
}

const expit = (x) => 1 / (1 + Math.exp(-x));

/** The rewards at the middles of even steps between the least and the largest; rvlib.tabular.remedies.discretised. */
function discretised(reward, levels) {
  const [low, high] = [Math.min(...reward), Math.max(...reward)];
  const unit = high > low ? high - low : 1;
  return reward.map(
    (r) => low + ((clamp(Math.floor(((r - low) / unit) * levels), 0, levels - 1) + 0.5) / levels) * (high - low),
  );
}

/** A Bradley–Terry model trained on all pairs; rvlib.tabular.remedies.fit_bradley_terry. */
function bradleyTerry(reward, { smoothing = 0, margin = 0 }) {
  const target = Array.from(reward, (a) => Array.from(reward, (b) => (1 - 2 * smoothing) * expit(a - b) + smoothing));
  let fitted = new Float64Array(N);
  for (let step = 0; step < 300; step++) {
    const moved = fitted.map((x) => x * (1 - 1e-3));
    for (let a = 0; a < N; a++)
      for (let b = 0; b < N; b++) {
        if (a === b) continue;
        const wrong = (4 / N) * target[a][b] * expit(margin - fitted[a] + fitted[b]);
        moved[a] += wrong;
        moved[b] -= wrong;
      }
    fitted = moved;
  }
  return fitted.map((x) => Math.round(x * 1e12) / 1e12); // outputs that were tied stay so
}

/** The place of each output among those of its prompt, in [-1, 1]. */
function places(reward) {
  const out = new Float64Array(N);
  Array.from(reward, (_, y) => y)
    .sort((i, j) => reward[i] - reward[j] || i - j)
    .forEach((y, place) => (out[y] = (2 * place) / (N - 1) - 1));
  return out;
}

const onRewards = (change) => (world, strength) => ({
  reward: world.scores[0].map((reward, p) => change(reward, strength, world.probs[p])),
});
const centred = (reward, probs, share = 1) => {
  const mean = expectation(probs, reward);
  return reward.map((r) => r - share * mean);
};

/**
 * For each remedy its name, its strength in words, and what training has after it: rewards, the deviation's power p, and the
 * noise on each sample. `before` is what untreated training has, where that is more than the teacher's rewards.
 * @type {Record<string, {title: string, words: (strength: number) => string, before?: {power: number},
 *   after: (world: any, strength: number) => {reward?: Float64Array[], power?: number, noise?: number}}>}
 */
const REMEDIES = {
  none: { title: "No remedy", words: () => "–", after: () => ({}) },
  scale: {
    title: "Multiplied",
    words: (s) => `×${number(10 ** (s / 10), 2)}`,
    after: onRewards((reward, s) => reward.map((r) => 10 ** (s / 10) * r)),
  },
  centre: {
    title: "Centred",
    words: (s) => `${10 * s} %`,
    after: onRewards((reward, s, probs) => centred(reward, probs, s / 10)),
  },
  bounded: {
    title: "Bounded (PAR)",
    words: (s) => `slope ×${number(10 ** (s / 10), 2)}`,
    after: onRewards((reward, s, probs) => centred(reward, probs).map((r) => expit(10 ** (s / 10) * r))),
  },
  smoothing: {
    title: "Smooth labels",
    words: (s) => `ε = ${(s / 25).toFixed(2)}`,
    after: onRewards((reward, s) => bradleyTerry(reward, { smoothing: s / 25 })),
  },
  margin: {
    title: "Margin",
    words: (s) => `m = ${(s / 5).toFixed(1)}`,
    after: onRewards((reward, s) => bradleyTerry(reward, { margin: s / 5 })),
  },
  ensemble: {
    title: "Ensemble",
    words: (s) => (s ? `${1 + s} models` : "1 model"),
    after: ({ scores }, s) => ({
      reward: PROMPTS.map((_, p) =>
        TRUTH.map((_, y) => scores.slice(0, 1 + s).reduce((sum, model) => sum + model[p][y], 0) / (1 + s)),
      ),
    }),
  },
  discretise: {
    title: "Discretised",
    words: (s) => `${12 - s} levels`,
    after: onRewards((reward, s) => discretised(reward, 12 - s)),
  },
  dither: {
    title: "Dithered (ReDit)",
    words: (s) => `±${(s / 40).toFixed(3)}`,
    after: (world, s) => ({ ...onRewards((reward) => discretised(reward, DITHERED))(world, s), noise: s / 40 }),
  },
  spread: {
    title: "Spread ranking",
    words: (s) => `${10 * s} %`,
    after: onRewards((reward, s) => {
      const even = places(reward);
      return reward.map((r, y) => (1 - s / 10) * r + (s / 10) * even[y]);
    }),
  },
  grpo: {
    title: "Divided by deviation (GRPO)",
    words: (s) => `p = ${(s / 10).toFixed(1)}`,
    after: (_, s) => ({ power: s / 10 }),
  },
  undivided: {
    title: "Less division (Dr. GRPO)",
    words: (s) => `p = ${(1 - s / 10).toFixed(1)}`,
    before: { power: 1 },
    after: (_, s) => ({ power: 1 - s / 10 }),
  },
};

// ---- the expected update ------------------------------------------------------------------------------------------------

/** All groups of six samples, as counts of each output, and how many orders each has. */
const GROUPS = (() => {
  /** @type {Uint8Array[]} */
  const counts = [];
  const fill = (/** @type {number[]} */ chosen, /** @type {number} */ left) => {
    if (chosen.length === N - 1) counts.push(Uint8Array.from([...chosen, left]));
    else for (let c = 0; c <= left; c++) fill([...chosen, c], left - c);
  };
  fill([], SAMPLES);
  const factorial = [1, 1, 2, 6, 24, 120, 720];
  const orders = counts.map((group) => group.reduce((product, c) => product / factorial[c], factorial[SAMPLES]));
  return { counts, orders };
})();

/** Mean of the listed values, and the sum of their squared deviations from it. */
function spreadOf(values, listed) {
  let [mean, squares] = [0, 0];
  for (const i of listed) mean += values[i] / listed.length;
  for (const i of listed) squares += (values[i] - mean) ** 2;
  return { mean, squares };
}

/** The largest variance of `size` of the sorted values: some of the lowest, and some of the highest. */
function largestVariance(values, size) {
  let most = 0;
  for (let low = 0; low <= size; low++) {
    const listed = Array.from({ length: size }, (_, i) => (i < low ? i : values.length - size + i));
    most = Math.max(most, spreadOf(values, listed).squares / size);
  }
  return most;
}

/**
 * For each group, Σ_i A_i/k at each output, (groups × outputs), and the variance of the samples used, with the largest that
 * so many of them can have. Where samples tie, each is as likely as the others to be used.
 * @param {Float64Array} reward
 * @param {number} power of the deviation by which advantages are divided
 * @param {number[]} ranks of the samples that are used, 0 the lowest reward
 */
function groupTable(reward, power, ranks) {
  const order = Array.from(reward, (_, y) => y).sort((i, j) => reward[i] - reward[j] || i - j);
  const table = new Float64Array(GROUPS.counts.length * N);
  const [used, largest] = [new Float64Array(GROUPS.counts.length), new Float64Array(GROUPS.counts.length)];
  const k = ranks.length;
  const values = new Float64Array(SAMPLES);
  if (k >= 2)
    GROUPS.counts.forEach((counts, g) => {
      let place = 0;
      for (const y of order) for (let c = 0; c < counts[y]; c++) values[place++] = reward[y] - reward[order[0]];
      const { mean, squares } = spreadOf(values, ranks);
      used[g] = squares / k;
      largest[g] = largestVariance(values, k);
      if (values[ranks[k - 1]] === values[ranks[0]]) return; // a rounding error of the mean would be a direction
      const over = (Math.sqrt(squares / (k - 1)) + STD_FLOOR) ** power;
      for (let from = 0, to = 0; from < SAMPLES; from = to) {
        while (to < SAMPLES && values[to] === values[from]) to++;
        const share = ranks.filter((i) => i >= from && i < to).length / (to - from);
        const advantage = (share * (values[from] - mean)) / over / k;
        for (let y = 0; y < N; y++)
          if (counts[y] && reward[y] - reward[order[0]] === values[from]) table[g * N + y] = counts[y] * advantage;
      }
    });
  return { table, used, largest };
}

/** Probability of each group under a policy. */
function groupProbabilities(probs, out) {
  const powers = new Float64Array(N * (SAMPLES + 1));
  for (let y = 0; y < N; y++) {
    powers[y * (SAMPLES + 1)] = 1;
    for (let c = 1; c <= SAMPLES; c++) powers[y * (SAMPLES + 1) + c] = powers[y * (SAMPLES + 1) + c - 1] * probs[y];
  }
  const { counts, orders } = GROUPS;
  for (let g = 0; g < counts.length; g++) {
    let p = orders[g];
    for (let y = 0; y < N; y++) p *= powers[y * (SAMPLES + 1) + counts[g][y]];
    out[g] = p;
  }
  return out;
}

const buffer = new Float64Array(GROUPS.counts.length);

/** Training by expected updates: {truth, each}, the mean ground truth before and after each step, and that of each prompt. */
function train({ logits }, groups, { rule, step }) {
  const theta = logits.map((row) => Float64Array.from(row));
  const each = PROMPTS.map(() => new Float64Array(STEPS + 1));
  const truth = new Float64Array(STEPS + 1);
  const update = PROMPTS.map(() => new Float64Array(N));
  for (let t = 0; t <= STEPS; t++) {
    let length = 0;
    theta.forEach((row, p) => {
      const probs = softmax(row);
      each[p][t] = expectation(probs, TRUTH);
      truth[t] += each[p][t] / PROMPTS.length;
      groupProbabilities(probs, buffer);
      const moved = update[p].fill(0);
      for (let g = 0; g < buffer.length; g++)
        for (let y = 0; y < N; y++) moved[y] += buffer[g] * groups[p].table[g * N + y];
      const total = moved.reduce((sum, x) => sum + x, 0);
      for (let y = 0; y < N; y++) {
        moved[y] -= probs[y] * total;
        length += moved[y] ** 2;
      }
    });
    const factor = rule === "plain" ? step : length > 0 ? step / Math.sqrt(length) : 0;
    theta.forEach((row, p) => row.forEach((x, y) => (row[y] = x + factor * update[p][y])));
  }
  return { truth, each };
}

// ---- the figure -----------------------------------------------------------------------------------------------------------

let known = { key: "" }; // untreated training, while only the remedy changes

function compute(state) {
  const { remedy, strength, rule, step } = state;
  const world = twoPrompts(state);
  const { title, words, before, after } = REMEDIES[remedy];
  const ranks = Array.from({ length: SAMPLES }, (_, i) => i).filter((i) => state[`sample_${i + 1}`]);
  const all = Array.from({ length: SAMPLES }, (_, i) => i);
  const plain = { reward: world.scores[0], power: 0, noise: 0, ranks: all };
  const follow = (training) => {
    const probs = world.probs.map((p) => groupProbabilities(p, new Float64Array(buffer.length)));
    const groups = training.reward.map((r) => groupTable(r, training.power, training.ranks));
    const mean = (of) => PROMPTS.reduce((sum, _, p) => sum + of(p) / PROMPTS.length, 0);
    return {
      ...training,
      ...train(world, groups, { rule, step }),
      variance: mean((p) => rewardVariance(training.reward[p], world.probs[p])) + training.noise ** 2,
      accuracy: mean((p) => grades(world.probs[p], training.reward[p], TRUTH).onpolicy),
      used: mean((p) => expectation(probs[p], groups[p].used)),
      largest: mean((p) => expectation(probs[p], groups[p].largest)),
    };
  };
  const key = JSON.stringify([before, rule, step, state.error, state.quiet, state.skill, state.seed]);
  if (known.key !== key) known = { key, ...follow({ ...plain, ...before }) };
  const untreated = /** @type {any} */ (known);
  const treated = follow({ ...plain, ...before, ...after(world, strength), ranks });
  const start = untreated.truth[0];
  const most = 0.98 * (1 - start);
  const gain = Math.min(state.gain, most);
  const reached = ({ truth }) => {
    const at = truth.findIndex((value) => value >= start + gain);
    return at < 0 ? undefined : at;
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
    runs: [untreated, treated].map((run) => ({ ...run, reached: reached(run) })),
    start,
    gain,
    limits: {
      gain: gainLimit(state.gain, most),
      strength: { words: words(strength), hint: idle || undefined, idle: Boolean(idle) },
    },
  };
}

/** @type {(run: any) => string} */
const when = ({ reached }) => (reached === undefined ? `more than ${STEPS}` : String(reached));

/** @type {(run: any) => boolean} whether training has lowered the ground truth, in the two digits that are shown */
const falls = ({ truth }) => truth[STEPS] < truth[0] - 0.005;

/** How many samples of a group are used, in words; "" for all. */
const selection = ({ ranks }) => (ranks.length === SAMPLES ? "" : `${ranks.length} of ${SAMPLES} samples`);

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
    const chosen = selection(run);
    out += fitted(
      left,
      30,
      shortened([...(chosen ? [`rewards; ${chosen} used`, chosen] : []), "rewards", ""], column, "rv-tick"),
      room,
      { class: "rv-tick" },
    );

    // ---- rewards of each prompt's outputs, from worst to best, over the probabilities at the start
    const height = linear([reach[0] - pad, reach[1] + pad], [dots.top + dots.height, dots.top]);
    const half = (column - 10) / 2;
    run.reward.forEach((reward, p) => {
      const from = left + p * (half + 10);
      const slot = half / N;
      const across = (y) => from + (N - 1 - y + 0.5) * slot;
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

const arrow = (values) => values.join(" <small>→</small> ");

/** @type {Definition["readouts"]} */
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

const describe = ({ state, titles, runs, gain }) =>
  `Ground truth reward over ${STEPS} ${state.rule === "plain" ? "plain steps" : "steps of fixed length"} on two prompts, untreated and treated side by side; treatment: ${titles[0]}${selection(runs[1]) ? `, ${selection(runs[1])} used` : ""}. ` +
  ["Untreated", "Treated"]
    .map(
      (name, i) =>
        `${name}: reward variance ${number(runs[i].variance, 2)}, accuracy ${number(runs[i].accuracy, 2)}, steps to gain ${number(gain, 2)}: ${when(runs[i])}, ground truth reward at the end ${number(runs[i].truth[STEPS], 2)}${falls(runs[i]) ? ", below its start" : ""}. `,
    )
    .join("");

export default explorable({ name: "remedies", compute, draw, readouts, describe });
