// @ts-check
// Policies by teachers: each cell one training run, from a policy (row) under a reward model (column). The paper's Theorem 6.
//
//   r, r'   1 on one good output, -1 elsewhere      π(y) ≥ c, π(y') = T⁻²      the other policy: y and y' exchanged

import { expectation, gradientFlow, rewardVariance } from "./flow.mjs";
import { T_GAMMA, clipped, dot, fitted, line, linear, logarithmic, number, px, rows, shortened, tag } from "./plot.mjs";
import { gainLimit, gainTime, when } from "./problem.mjs";
import { explorable } from "./ui.mjs";

/** @typedef {{rarity: number, likely: number, outputs: number, scale: number, kl_coef: number, gain: number}} State */
/** @typedef {ReturnType<typeof compute>} View */

const [START, END] = [0.1, 1e7];
const GRID = Array.from({ length: 72 }, (_, i) => START * (END / START) ** (i / 71));
const POLICIES = ["says y, hardly ever y′", "says y′, hardly ever y", "says both"];
const EXCHANGED = { policies: [1, 0, 2], teachers: [1, 0, 2, 3] }; // what each becomes with y and y′ exchanged
const TEACHERS = ["likes y", "likes y′", "likes both", "ranks all right"];

/** @param {State} state */
function compute(state) {
  const { outputs: n, rarity, likely, kl_coef: klCoef } = state;
  const rare = rarity ** -2;
  const most = Math.min(likely, 1 - rare - 0.01);
  const rest = (1 - most - rare) / (n - 2);
  const groundTruth = Float64Array.from({ length: n }, (_, i) => (i < 2 ? 1 : n === 3 ? -0.5 : -(i - 2) / (n - 3)));
  const starts = [
    [most, rare],
    [rare, most],
    [(most + rare) / 2, (most + rare) / 2],
  ].map((good) => Float64Array.from({ length: n }, (_, i) => good[i] ?? rest));
  const start = expectation(starts[0], groundTruth);
  const attainable = 0.98 * (1 - start);
  const gain = Math.min(state.gain, attainable);
  /** @type {((i: number) => number)[]} */
  const marks = [
    (i) => (i === 0 ? 1 : -1),
    (i) => (i === 1 ? 1 : -1),
    (i) => (i < 2 ? 1 : -1),
    (i) => state.scale * groundTruth[i],
  ];
  const rewards = marks.map((mark) => Float64Array.from({ length: n }, (_, i) => mark(i)));
  // The ground truth has y and y′ alike: with the two exchanged in policy and teacher, training is the same. Seven runs fill the twelve cells.
  /** @type {Record<string, ReturnType<typeof solve>>} */
  const solved = {};
  /** @type {(probs: Float64Array, reward: Float64Array) => {curve: number[], time: number, variance: number}} */
  const solve = (probs, reward) => {
    const logits = probs.map(Math.log);
    const flow = gradientFlow(logits, reward, END, { groundTruth, klCoef, tolerance: 1e-5 });
    return {
      curve: flow.at(GRID, { exact: false }).groundTruth,
      time: gainTime(logits, reward, gain, { measured: groundTruth, klCoef }),
      variance: rewardVariance(reward, probs),
    };
  };
  const rows = starts.map((probs, i) => {
    const cells = rewards.map(
      (reward, j) =>
        (solved[`${i},${j}`] = solved[`${EXCHANGED.policies[i]},${EXCHANGED.teachers[j]}`] ?? solve(probs, reward)),
    );
    const first = Math.min(...cells.map((cell) => (Number.isNaN(cell.time) ? Infinity : cell.time)));
    return cells.map((cell) => ({ ...cell, best: cell.time <= first * (1 + 1e-6) && Number.isFinite(first) }));
  });
  const limits = {
    gain: gainLimit(state.gain, attainable),
    likely: { value: most },
  };
  return { state, rows, start, gain, rare, limits };
}

/** @type {Draw<View>} */
function draw({ rows: policies, start, gain }, width) {
  const narrow = width < 560;
  const gap = narrow ? 6 : 14;
  const left = 2;
  const cell = (width - left - 2 - 3 * gap) / 4;
  const height = narrow ? 66 : 78;
  const names = TEACHERS.map((words, j) =>
    rows(left + j * (cell + gap) + cell / 2, 12, cell, [{ words, class: "rv-title", tone: "proxy" }], {
      anchor: "middle",
      leading: 14,
    }),
  );
  const head = 28 + Math.max(...names.map((name) => name.height));
  /** @type {string[][]} */
  const [parts, said] = [[], []];
  // What stays while a slider moves.
  let frame = names.map((name) => name.markup).join("");
  policies.forEach((cells, i) => {
    const top = head + i * (height + 62) + 24;
    let out = "";
    frame += fitted(left, top - 10, `Policy ${POLICIES[i]}`, [left, width], { class: "rv-title" });
    cells.forEach(({ curve, time, best, variance }, j) => {
      const box = { left: left + j * (cell + gap), top, width: cell, height };
      const x = logarithmic([START, END], [box.left, box.left + cell]);
      const y = linear([-1.06, 1.06], [top + height, top]);
      frame += tag("rect", {
        x: box.left,
        y: top,
        width: cell,
        height,
        style: `fill:var(--rv-panel);stroke:var(--rv-${best ? "truth" : "line"})`,
        "stroke-width": best ? 2.2 : 1,
      });
      const goal = tag("path", {
        d: `M${px(box.left)} ${px(y(start + gain))}h${px(cell)}`,
        style: "stroke:var(--rv-quiet)",
        "stroke-dasharray": "4 4",
      });
      const path = tag("path", {
        d: line(x, y, GRID, curve),
        style: "stroke:var(--rv-truth)",
        "stroke-width": 2.2,
        "stroke-linejoin": "round",
      });
      const reached = time <= END ? dot(x(time), y(start + gain), "truth", 4) : "";
      out += clipped(box, goal, path, reached);
      /** @type {Pair} */
      const room = [box.left, box.left + cell];
      const ways = [`${T_GAMMA}${time < Infinity ? " = " : " "}`, ""].map(
        (of) => `${best ? "✓ " : ""}${of}${when(time)}`,
      );
      const words = shortened(ways, cell, best ? "" : "rv-tick", best ? 600 : undefined);
      said.push(
        fitted(box.left + cell / 2, top + height + 15, words, room, {
          "text-anchor": "middle",
          ...(best ? { "font-weight": 600, style: "fill:var(--rv-truth)" } : { class: "rv-tick" }),
        }),
      );
      if (!narrow)
        said.push(
          fitted(box.left + cell / 2, top + height + 29, `variance ${number(variance, 2)}`, room, {
            class: "rv-tick",
            "text-anchor": "middle",
          }),
        );
    });
    parts.push(out);
  });
  return { height: head + 3 * (height + 62) + 4, parts: [frame, ...parts, ...said] };
}

/** @type {Readouts<View>} */
const readouts = ({ rows, rare }) => [
  ["the rare good output’s probability", number(rare, 2), "", "T to the minus 2"],
  [
    "its policy, matching teacher",
    when(rows[0][0].time),
    "truth",
    "Time to gain of the policy that says y, under the teacher that likes y",
  ],
  [
    "its policy, the other’s teacher",
    when(rows[0][1].time),
    "truth",
    "Time to gain of the policy that says y, under the teacher that likes y′",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, rows, gain, rare }) =>
  `A grid of three policies by four teachers; in each cell the ground truth reward against time from 0.1 to ten million, and the time to gain ${number(gain, 2)}. One of two good outputs has probability ${number(state.likely, 2)}, the other ${number(rare, 2)}. ` +
  rows
    .map(
      (cells, i) =>
        `Policy ${POLICIES[i]}: ${cells.map((cell, j) => `${TEACHERS[j]} ${when(cell.time)}${cell.best ? ", the fastest" : ""}`).join("; ")}. `,
    )
    .join("");

export default explorable({ name: "teachers", compute, draw, readouts, describe });
