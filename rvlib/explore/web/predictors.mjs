// @ts-check
// Which number picks the teacher? The study's reward models: a number measured before training against what each then taught.
//
//   top-1 regret = (best − picked) / (best − mean of all)

import { LABELS } from "./estimators.mjs";
import { spearman } from "./grades.mjs";
import {
  axes,
  clipped,
  fitted,
  fixed,
  linear,
  measure,
  number,
  px,
  rows,
  shortened,
  spread,
  tag,
  text,
} from "./plot.mjs";
import STUDY from "./studypoints.mjs";
import { explorable } from "./ui.mjs";

/**
 * @typedef {{predictor: keyof typeof STUDY.predictors, outcome: keyof typeof OUTCOMES, algorithm: "rloo" | "grpo",
 *   policy: keyof typeof STUDY.intervals, teacher: number}} State
 */
/** @typedef {ReturnType<typeof compute>} View */

const POLICIES = /** @type {(keyof typeof STUDY.values)[]} */ (Object.keys(STUDY.values));
const OUTCOMES = {
  gain: ["Ground truth gained after all steps", "Gain after all steps"],
  early: ["Ground truth gained after a quarter of the steps", "Gain after a quarter of the steps"],
  kl: ["Ground truth gained when the KL divergence reaches 0.5 nats", "Gain at a KL divergence of 0.5 nats"],
  hacking: ["Last ground truth less the highest on the way", "Last less highest on the way"],
};
// Each family has a colour and a shape of its own: the sign that stands for it in words, and its outline about (0, 0).
/** @type {Record<string, [colour: string, sign: string, outline: string]>} */
const FAMILIES = {
  trained: ["quiet", "●", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z"],
  "the ground truth, exact or noisy": ["truth", "◆", "M0 -6L6 0L0 6L-6 0Z"],
  "scaled or with offsets": ["pin-4", "▼", "M-5.5 -4.5h11L0 5.5Z"],
  "reshaped or in levels": ["good", "■", "M-4.5 -4.5h9v9h-9Z"],
  ensembles: ["pin-2", "▲", "M-5.5 4.5h11L0 -5.5Z"],
  harmful: ["proxy", "×", "M-4.5 -4.5L4.5 4.5M-4.5 4.5L4.5 -4.5"],
};
const NEAR = 28; // pixels from a mark within which it is the one pointed at

const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;
/** The positions of the highest values. @type {(values: number[]) => number[]} */
function highest(values) {
  const top = Math.max(...values);
  return values.flatMap((value, i) => (value === top ? [i] : []));
}

/**
 * rvlib.teacher_study.regret: where several share the highest value, the mean of their outcomes counts.
 * @param {number[]} values of the predictor
 * @param {number[]} outcomes of the same length
 * @returns {number}
 */
export function regret(values, outcomes) {
  const [best, all] = [Math.max(...outcomes), mean(outcomes)];
  return best > all ? (best - mean(highest(values).map((i) => outcomes[i]))) / (best - all) : 0;
}

/** @param {State} state */
function compute(state) {
  const policies = state.policy === "all" ? POLICIES : [state.policy];
  const panels = policies.map((policy) => {
    const [xs, ys] = [STUDY.values[policy][state.predictor], STUDY.outcomes[policy][state.algorithm][state.outcome]];
    // A predictor that is the same for all picks nobody: its correlation counts as 0.
    return { policy, xs, ys, picked: highest(xs), spearman: spearman(xs, ys) || 0, regret: regret(xs, ys) };
  });
  const ends = STUDY.intervals[state.policy][state.algorithm][state.outcome][state.predictor];
  const [name, family] = STUDY.teachers[state.teacher - 1];
  return {
    state,
    panels,
    name,
    family,
    spearman: [mean(panels.map((panel) => panel.spearman)), ends[0], ends[1]],
    regret: [mean(panels.map((panel) => panel.regret)), ends[2], ends[3]],
    limits: { teacher: { words: name } },
  };
}

/** A reward model's value among those of all, in words. @type {(values: number[], i: number) => string} */
const standing = (values, i) => `${number(values[i])}, rank ${1 + values.filter((value) => value > values[i]).length}`;

/**
 * The mark of a reward model at a place; `selected` is drawn larger and black about it.
 * @type {(i: number, place: Pair, selected?: boolean) => string}
 */
function mark(i, [x, y], selected = false) {
  const [colour, sign, d] = FAMILIES[STUDY.teachers[i][1]];
  const line = sign === "×";
  const inside = line ? "" : `fill:var(--rv-${colour});`;
  const edge = selected ? "ink" : line ? colour : "paper";
  return tag("path", {
    d,
    transform: `translate(${px(x)} ${px(y)})${selected ? " scale(1.5)" : ""}`,
    style: `${inside}stroke:var(--rv-${edge})`,
    "stroke-width": line ? "2.2" : selected ? "1.4" : "0.8",
    "fill-opacity": selected ? "1" : "0.85",
  });
}

/**
 * Where everything stands: the words above, a box and scales for each policy, side by side or one under the other.
 * @param {View} view
 * @param {number} width
 */
function layout({ state, panels }, width) {
  const [left, right, gap] = [46, 12, 44];
  const stacked = panels.length > 1 && width < 620;
  const under = rows(left, 31, width - left - right, [
    {
      words: `under ${LABELS[state.algorithm]}, ${panels.length > 1 ? "three policies" : `policy ${state.policy}`}, mean over seeds; in standard deviations of the initial policy's replies`,
      class: "rv-note",
    },
  ]);
  const key = rows(
    left,
    50 + under.height,
    width - left - right,
    Object.entries(FAMILIES).map(([family, [colour, sign]]) => ({
      words: `<tspan style="fill:var(--rv-${colour})" font-weight="600">${sign} </tspan>${family}`,
      class: "rv-tick",
    })),
  );
  const title = fitted(left, 14, shortened(OUTCOMES[state.outcome], width - left, "rv-title"), [0, width], {
    class: "rv-title",
  });
  const top = 66 + under.height + key.height + (panels.length > 1 ? 18 : 0);
  const columns = stacked ? 1 : panels.length;
  const across = (width - left - right - (columns - 1) * gap) / columns;
  const down = panels.length === 1 ? (width < 420 ? 270 : 300) : stacked ? 190 : 240;
  /** @type {(values: number[]) => [number, number]} */
  const range = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low || 1) * 0.07;
    return [low - pad, high + pad];
  };
  const [xs, ys] = /** @type {const} */ (["xs", "ys"]).map((axis) => range(panels.flatMap((panel) => panel[axis])));
  const placed = panels.map((panel, i) => {
    const box = {
      left: left + (stacked ? 0 : i * (across + gap)),
      top: top + (stacked ? i * (down + 70) : 0),
      width: across,
      height: down,
    };
    const x = linear(xs, [box.left, box.left + box.width]);
    const y = linear(ys, [box.top + box.height, box.top]);
    /** @type {(k: number) => Pair} */
    const at = (k) => [x(panel.xs[k]), y(panel.ys[k])];
    return { ...panel, box, x, y, at };
  });
  return { words: title + under.markup + key.markup, placed, bottom: placed[placed.length - 1].box.top + down };
}

/** @typedef {ReturnType<typeof layout>["placed"]} Placed */

/**
 * The reward model whose mark is nearest to a point, and the panel that it is in; nothing where all are far away.
 * @type {(placed: Placed, px: number, py: number) => {panel: Placed[number], k: number} | undefined}
 */
function nearest(placed, px, py) {
  let [pointed, least] = [/** @type {ReturnType<typeof nearest>} */ (undefined), NEAR];
  for (const panel of placed)
    for (let k = 0; k < STUDY.teachers.length; k++) {
      const [x, y] = panel.at(k);
      const away = Math.hypot(x - px, y - py);
      if (away < least) [pointed, least] = [{ panel, k }, away];
    }
  return pointed;
}

/** @type {Draw<View>} */
function draw(view, width) {
  const { state, panels, name, family } = view;
  const { words, placed, bottom } = layout(view, width);
  const predictor = STUDY.predictors[state.predictor];
  const selected = state.teacher - 1;
  const drawn = placed.map(({ policy, box, x, y, xs, ys, at, picked, spearman: rho, regret: lost }) => {
    const levels = [y(mean(ys)), y(Math.max(...ys))];
    const lines = levels.map((level, i) =>
      tag("path", {
        d: `M${px(box.left)} ${px(level)}h${px(box.width)}`,
        style: "stroke:var(--rv-quiet)",
        "stroke-dasharray": i ? "1.5 3" : "6 4",
      }),
    );
    const [ax, ay] = at(selected);
    const guide = tag("path", {
      d: `M${px(box.left)} ${px(ay)}H${px(ax)}V${px(box.top + box.height)}`,
      style: "stroke:var(--rv-line)",
    });
    const rings = picked.map((i) =>
      tag("circle", { cx: at(i)[0], cy: at(i)[1], r: 10, fill: "none", style: "stroke:var(--rv-ink)" }),
    );
    const marks = xs.map((_, i) => (i === selected ? "" : mark(i, at(i))));
    /** @type {Pair} */
    const inside = [box.left, box.left + box.width];
    const said = spread(levels, 13, box.top + 10, box.top + box.height)
      .map((level, i) =>
        fitted(box.left + 4, level - 4, i ? "best" : "mean of all", inside, { class: "rv-tick rv-halo" }),
      )
      .join("");
    const [rx, ry] = at(picked[0]);
    const beyond = rx > box.left + box.width - 60;
    const label = fitted(rx + (beyond ? -13 : 13), ry + 4, "picked", inside, {
      class: "rv-tick rv-halo",
      "text-anchor": beyond ? "end" : undefined,
    });
    return (
      axes(box, x, y, {
        title: panels.length > 1 ? policy : "",
        note: panels.length > 1 ? `Spearman ${fixed(rho)}, regret ${fixed(lost)}` : "",
        xTicks: box.width < 300 ? 3 : 6,
        yTicks: 5,
        xTitle: predictor,
      }) +
      clipped(box, guide, ...lines, ...marks, mark(selected, at(selected), true), ...rings) +
      said +
      label
    );
  });
  const [colour, sign] = FAMILIES[family];
  const read = rows(46, bottom + 58, width - 58, [
    { words: `<tspan style="fill:var(--rv-${colour})">${sign} </tspan>${name}`, weight: 600 },
    { words: family, class: "rv-note", gap: 8 },
    ...panels.map(({ policy, xs, ys }) => ({
      words:
        `${panels.length > 1 ? `${policy}: ` : ""}predictor ${standing(xs, selected)}; ` +
        `outcome ${standing(ys, selected)}`,
      class: "rv-tick",
    })),
  ]);
  return { height: bottom + 70 + read.height, parts: [words, ...drawn, read.markup], probe: probe(placed, width) };
}

/** What is said of the mark that is pointed at. @type {(placed: Placed, width: number) => Drawing["probe"]} */
const probe = (placed, width) => (x, y) => {
  const pointed = nearest(placed, x, y);
  if (!pointed) return "";
  const { panel, k } = pointed;
  const [name, family] = STUDY.teachers[k];
  const lines = [
    { words: name, weight: 600 },
    { words: family, class: "rv-note" },
    { words: `predictor ${standing(panel.xs, k)}`, class: "rv-tick" },
    { words: `outcome ${standing(panel.ys, k)}`, class: "rv-tick" },
  ];
  const wide = Math.max(...lines.map((line) => measure(line.words, line.class, line.weight))) + 16;
  const [ax, ay] = panel.at(k);
  const left = Math.max(0, ax + 14 + wide > width ? Math.min(ax - 14 - wide, width - wide) : ax + 14);
  const top = Math.max(2, ay - 36);
  return tag(
    "g",
    { "pointer-events": "none" },
    tag("circle", { cx: ax, cy: ay, r: 9, fill: "none", style: "stroke:var(--rv-ink)", "stroke-width": "2" }),
    tag("rect", {
      x: left,
      y: top,
      width: wide,
      height: 70,
      rx: 4,
      style: "fill:var(--rv-paper);stroke:var(--rv-line)",
    }),
    ...lines.map((line, i) =>
      text(left + 8, top + 17 + i * 15.5, line.words, { class: line.class, "font-weight": line.weight }),
    ),
  );
};

/** A click or a tap chooses the mark that it is near to. @param {Frame<State>} frame */
function setup({ svg, set, state }) {
  svg.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const { placed } = layout(compute(state()), Number(svg.getAttribute("width")));
    const pointed = nearest(placed, event.offsetX, event.offsetY);
    if (pointed) set({ teacher: pointed.k + 1 });
  });
  return {};
}

/** @type {(ends: number[]) => string} */
const within = ([value, low, high]) => `${fixed(value)} <small>[${fixed(low)}, ${fixed(high)}]</small>`;

/** @type {Readouts<View>} */
const readouts = (view) => [
  [
    "Spearman correlation",
    within(view.spearman),
    "truth",
    "Of predictor and outcome over the reward models, in brackets its 95 % interval",
  ],
  [
    "top-1 regret",
    within(view.regret),
    "",
    "0: the best was picked; 1: no better than one at random; in brackets its 95 % interval",
  ],
];

/** @type {(ends: number[]) => string} */
const interval = ([value, low, high]) => `${fixed(value)}, with the interval from ${fixed(low)} to ${fixed(high)}`;

/** @type {Describe<View>} */
const describe = (view) => {
  const { state, panels, name, family } = view;
  const named = (/** @type {number[]} */ which) => which.map((i) => STUDY.teachers[i][0]).join(" and ");
  const selected = state.teacher - 1;
  return (
    `${OUTCOMES[state.outcome][0]} against ${STUDY.predictors[state.predictor]} for ${STUDY.teachers.length} reward models under ${LABELS[state.algorithm]}. ` +
    `Spearman's correlation is ${interval(view.spearman)}; the top-1 regret ${interval(view.regret)}. ` +
    panels
      .map(
        ({ policy, xs, ys, picked }) =>
          `For the policy ${policy} the predictor picks ${named(picked)}; the best is ${named(highest(ys))}. ` +
          `${name}, of the family ${family}, has the predictor ${standing(xs, selected)}, and the outcome ${standing(ys, selected)}.`,
      )
      .join(" ")
  );
};

export default explorable({ name: "predictors", compute, draw, readouts, describe, setup });
