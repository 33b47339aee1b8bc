// @ts-check
// The same two reward models under gradient flow and under Best-of-N: variance decides the one, ranking the other.
//
//   P(Best-of-N keeps level l) = F_l^N - F_{l-1}^N,    F_l = P_{y~π}(r(y) at level l or below)

import { expectation, gradientFlow, klDivergence } from "./flow.mjs";
import { bestOfNProbs } from "./rewards.mjs";
import { axes, clipped, dot, fitted, line, linear, logarithmic, number, px, rows, tag } from "./plot.mjs";
import { LETTERS, drawn, gainTime, problem, rangesOf, teacherOf, when } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/** @typedef {Setting & TwoTeachers & {samples: number, gain: number}} State */
/** @typedef {ReturnType<typeof compute>} View */

const [START, END, MOST] = [0.1, 1e5, 4096];
const GRID = Array.from({ length: 90 }, (_, i) => START * (END / START) ** (i / 89));
const COUNTS = [...new Set(Array.from({ length: 60 }, (_, i) => Math.round(MOST ** (i / 59))))];
/** Everything but what N changes. */
const solve = remembering((/** @type {Omit<State, "samples">} */ setting) => {
  const world = problem(setting);
  const { logits, groundTruth, probs } = world;
  const start = expectation(probs, groundTruth);
  const students = LETTERS.map((letter) => {
    const made = teacherOf(world, setting, letter);
    const flow = gradientFlow(logits, made.reward, END, { groundTruth, tolerance: 1e-6 });
    const times = drawn(flow, GRID);
    return {
      letter: letter.toUpperCase(),
      made,
      times,
      curve: flow.at(times, { exact: false }).groundTruth,
      best: COUNTS.map((n) => expectation(bestOfNProbs(probs, made.reward, n), groundTruth)),
      time: gainTime(logits, made.reward, setting.gain, { measured: groundTruth }),
    };
  });
  const most = COUNTS.map((n) => expectation(bestOfNProbs(probs, groundTruth, n), groundTruth));
  return { groundTruth, probs, start, students, most };
});

/** @param {State} state */
function compute(state) {
  const { samples, ...setting } = state;
  const solved = solve(setting);
  const { groundTruth, probs, students } = solved;
  const at = students.map(({ made }) => {
    const kept = bestOfNProbs(probs, made.reward, samples);
    return { reward: expectation(kept, groundTruth), kl: klDivergence(kept, probs) };
  });
  const limits = rangesOf(
    students.map(({ made }) => made),
    state,
  );
  return { state, ...solved, at, limits };
}

/** @type {Draw<View>} */
function draw({ state, start, students, most, at }, width) {
  const narrow = width < 560;
  const left = 44;
  const across = narrow ? width - left - 14 : (width - 2 * left - 40) / 2;
  const key = rows(
    left,
    31,
    across,
    students.map(({ letter, made }, i) => ({
      words: `${letter}, accuracy ${number(made.accuracy, 2)}`,
      tone: LETTERS[i],
      weight: 600,
    })),
  );
  const flow = { left, top: 62 + key.height, width: across, height: narrow ? 180 : 240 };
  const choice = narrow ? { ...flow, top: flow.top + flow.height + 96 } : { ...flow, left: left + across + 58 };
  const y = (/** @type {Box} */ box) => linear([-1, 1], [box.top + box.height, box.top]);

  const x = logarithmic([START, END], [flow.left, flow.left + flow.width]);
  const goal = start + state.gain;
  const dashes = tag("path", {
    d: `M${px(flow.left)} ${px(y(flow)(goal))}h${px(flow.width)}`,
    style: "stroke:var(--rv-ink)",
    "stroke-dasharray": "6 4",
  });
  /** @type {(scaleX: Scale, box: Box, xs: Numbers, ys: Numbers, tone: string, more?: Attributes) => string} */
  const curve = (scaleX, box, xs, ys, tone, more) =>
    tag("path", {
      d: line(scaleX, y(box), xs, ys),
      style: `stroke:var(--rv-${tone})`,
      "stroke-width": "2.4",
      "stroke-linejoin": "round",
      ...more,
    });
  const dots = students.map(({ time }, i) => (time <= END ? dot(x(time), y(flow)(goal), LETTERS[i]) : ""));
  const room = [flow.left, flow.left + flow.width];
  let first = fitted(flow.left, 14, "Trained by gradient flow", room, { class: "rv-title" }) + key.markup;
  first += fitted(flow.left, flow.top - 14, "ground truth reward against time", room, { class: "rv-tick" });
  first += axes(flow, x, y(flow), { xTicks: narrow ? 5 : 6, xTitle: "time" });
  first += clipped(
    flow,
    dashes,
    ...students.map(({ times, curve: values }, i) => curve(x, flow, times, values, LETTERS[i])),
    ...dots,
  );
  if (goal < 0.94)
    first += fitted(flow.left + flow.width - 3, y(flow)(goal) - 5, "start + γ", room, {
      class: "rv-tick rv-halo",
      "text-anchor": "end",
    });

  const u = logarithmic([1, MOST], [choice.left, choice.left + choice.width]);
  const here = tag("path", { d: `M${px(u(state.samples))} ${choice.top}v${choice.height}`, class: "rv-axis" });
  const marks = at.map(({ reward }, i) => dot(u(state.samples), y(choice)(reward), LETTERS[i]));
  const beside = [choice.left, choice.left + choice.width];
  const head = narrow ? choice.top - 48 : 14;
  let second = fitted(choice.left, head, "Best of N samples", beside, { class: "rv-title" });
  second += fitted(choice.left, head + 17, "dotted: by the ground truth itself", beside, { class: "rv-note" });
  second += fitted(choice.left, choice.top - 14, "ground truth reward against N", beside, { class: "rv-tick" });
  second += axes(choice, u, y(choice), { xTicks: 4, xTitle: "N" });
  second += clipped(
    choice,
    here,
    ...students.map(({ best }, i) => curve(u, choice, COUNTS, best, LETTERS[i])),
    curve(u, choice, COUNTS, most, "ink", { "stroke-dasharray": "2 4", "stroke-width": "1.6" }),
    ...marks,
  );
  return { height: choice.top + choice.height + 40, parts: [first, second] };
}

/** @type {Readouts<View>} */
const readouts = ({ state, students, at }) => [
  ...students.map(
    ({ letter, time }, i) =>
      /** @type {Readout} */ ([
        `${letter} trains: <i>t</i><sub>γ</sub>`,
        when(time),
        LETTERS[i],
        "First time at which the ground truth reward has risen by γ under gradient flow",
      ]),
  ),
  ...students.map(
    ({ letter }, i) =>
      /** @type {Readout} */ ([
        `${letter} picks: reward`,
        number(at[i].reward, 3),
        LETTERS[i],
        "Expected ground truth reward of the sample that this reward model likes best",
      ]),
  ),
  ["KL of A’s pick", number(at[0].kl, 3), "", "KL divergence of the picked output's distribution from the policy"],
  [
    "ln N − (N − 1)/N",
    number(Math.log(state.samples) - 1 + 1 / state.samples, 3),
    "bound",
    "It cannot be more than this",
  ],
];

/** @type {Describe<View>} */
const describe = ({ state, students, at }) =>
  `Two reward models, used to train a policy and to pick the best of N samples. ` +
  students
    .map(
      ({ letter, made, time }, i) =>
        `${letter}, of accuracy ${number(made.accuracy, 2)} and reward variance ${number(made.variance, 2)}: time to gain ${number(state.gain, 2)} in training: ${when(time)}; ground truth reward of its pick among ${state.samples}: ${number(at[i].reward, 3)}. `,
    )
    .join("");

export default explorable({ name: "bestofn", compute, draw, readouts, describe });
