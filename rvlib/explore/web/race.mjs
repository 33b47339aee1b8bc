// @ts-check
// The race: the same student under two teachers. Who first raises the ground truth reward by γ?
//
//   t_γ = min { t : E_{π_θ(t)} r_G ≥ E_{π_θ(0)} r_G + γ }

import { expectation } from "./flow.mjs";
import {
  T_GAMMA,
  axes,
  clamp,
  clipped,
  fitted,
  line,
  linear,
  logarithmic,
  measure,
  number,
  px,
  shortened,
  tag,
  text,
} from "./plot.mjs";
import { LETTERS, drawn, flowIn, gainTime, problem, rangesOf, teacherOf, whenReached } from "./problem.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/** @typedef {Setting & TwoTeachers & {time: number, gain: number, kl_coef: number, metric: Metric}} State */
/** @typedef {ReturnType<typeof compute>} View */

const [START, END] = [0.1, 1e5];
const GRID = Array.from({ length: 100 }, (_, i) => START * (END / START) ** (i / 99));
const SECONDS = 10; // from START to END when it plays

/** The two flows, kept while only time moves. */
const solve = remembering((/** @type {Omit<State, "time">} */ setting) => {
  const world = problem(setting);
  const { logits, groundTruth, probs } = world;
  const { kl_coef: klCoef, gain, metric } = setting;
  const students = LETTERS.map((letter) => {
    const made = teacherOf(world, setting, letter);
    const flow = flowIn(logits, made.reward, END, { metric, groundTruth, klCoef, tolerance: 1e-6 });
    const times = drawn(flow, GRID);
    return {
      letter: letter.toUpperCase(),
      made,
      flow,
      times,
      curve: flow.at(times, { exact: false }).groundTruth,
      finish: gainTime(logits, made.reward, gain, { metric, measured: groundTruth, klCoef }),
    };
  });
  return { groundTruth, students, start: expectation(probs, groundTruth) };
});

/** @param {State} state */
function compute(state) {
  const { time, ...setting } = state;
  const { groundTruth, students, start } = solve(setting);
  const now = students.map(({ flow }) => flow.at([time]));
  const limits = rangesOf(
    students.map(({ made }) => made),
    state,
  );
  if (time <= START && state.kl_coef > 0) limits.kl_coef = { hint: "shows when time runs" };
  return { state, groundTruth, start, students, now, limits };
}

/** @type {Draw<View>} */
function draw({ state, groundTruth, start, students, now }, width) {
  const narrow = width < 520;
  const gutter = narrow ? 14 : 36;
  const labels = 34;
  const column = (width - labels - gutter) / 2;
  const n = groundTruth.length;
  const marks = { top: 44, height: narrow ? 42 : 64 };
  const bars = { top: marks.top + marks.height + 14, height: narrow ? 66 : 100 };
  const goal = start + state.gain;
  /** @type {string[]} */
  const parts = [];

  students.forEach(({ letter, made, finish }, i) => {
    const left = labels + i * (column + gutter);
    const done = finish <= state.time;
    let out = "";
    const name = `Teacher ${letter}`;
    const room = [left, left + column];
    out += fitted(left, 14, name, room, { class: "rv-title", style: `fill:var(--rv-${LETTERS[i]})` });
    const accuracy = `accuracy ${number(made.accuracy, 2)}`;
    const facts = shortened([`${accuracy}, variance ${number(made.variance, 2)}`, accuracy], column, "rv-tick");
    out += fitted(left, 30, facts, room, { class: "rv-tick" });
    const after = left + measure(name, "rv-title") + 8;
    const ways = [`finished at ${number(finish)}`, `✓ ${number(finish)}`];
    if (done)
      out += fitted(left + column, 14, shortened(ways, left + column - after, "", 600), [after, left + column], {
        "text-anchor": "end",
        "font-weight": 600,
        style: `fill:var(--rv-${LETTERS[i]})`,
      });
    // Worst output on the left: the better a student, the further right its bars.
    const slot = column / n;
    const across = (/** @type {number} */ k) => left + (n - 1 - k + 0.5) * slot;
    const height = linear([-1, 1], [marks.top + marks.height, marks.top]);
    out += tag("path", { class: "rv-grid", d: `M${px(left)} ${px(height(0))}h${px(column)}` });
    out += tag("path", {
      d: line(
        (k) => across(k),
        height,
        groundTruth.map((_, k) => k),
        groundTruth,
      ),
      style: "stroke:var(--rv-truth)",
      "stroke-width": "1.6",
    });
    const probability = linear([0, 1], [bars.top + bars.height, bars.top]);
    for (const value of [0, 0.5, 1]) {
      out += tag("path", {
        class: value ? "rv-grid" : "rv-axis",
        d: `M${px(left)} ${px(probability(value))}h${px(column)}`,
      });
      if (!i)
        out += text(left - 6, probability(value) + 3.5, value ? String(value) : "0", {
          class: "rv-tick",
          "text-anchor": "end",
        });
    }
    const probs = now[i].probs[0];
    const wide = clamp(slot * 0.72, 1, 26);
    groundTruth.forEach((truth, k) => {
      const top = probability(probs[k]);
      const share = Math.round(50 + 50 * truth);
      out += tag("rect", {
        x: across(k) - wide / 2,
        y: top,
        width: wide,
        height: Math.max(bars.top + bars.height - top, 0.6),
        rx: 1.5,
        style: `fill:color-mix(in oklab, var(--rv-${LETTERS[i]}) ${share}%, var(--rv-line))`,
      });
      out += tag("circle", {
        cx: across(k),
        cy: height(made.reward[k]),
        r: clamp(slot * 0.3, 1.5, 4),
        style: "fill:var(--rv-proxy);stroke:var(--rv-paper)",
      });
    });
    out += text(left, bars.top + bars.height + 15, "worst", { class: "rv-tick" });
    out += text(left + column, bars.top + bars.height + 15, "best", { class: "rv-tick", "text-anchor": "end" });
    const between = [left + measure("worst", "rv-tick") + 6, left + column - measure("best", "rv-tick") - 6];
    const middle = shortened(["the student's probabilities", "probabilities"], between[1] - between[0], "rv-tick");
    out += fitted(left + column / 2, bars.top + bars.height + 15, middle, between, {
      class: "rv-tick",
      "text-anchor": "middle",
    });
    parts.push(out);
  });
  let out = "";
  for (const value of [1, -1])
    out += text(labels - 6, marks.top + (value > 0 ? 4 : marks.height + 3), value > 0 ? "1" : "−1", {
      class: "rv-tick",
      "text-anchor": "end",
    });

  // ---- the track
  const track = {
    left: labels,
    top: bars.top + bars.height + 48,
    width: width - labels - 14,
    height: narrow ? 112 : 160,
  };
  const x = logarithmic([START, END], [track.left, track.left + track.width]);
  const y = linear([-1, 1], [track.top + track.height, track.top]);
  let lines = "";
  let runners = "";
  lines += tag("path", {
    d: `M${px(track.left)} ${px(y(goal))}h${px(track.width)}`,
    style: "stroke:var(--rv-ink)",
    "stroke-dasharray": "6 4",
    "stroke-width": "1.2",
  });
  lines += tag("path", { d: `M${px(x(state.time))} ${track.top}v${track.height}`, class: "rv-axis" });
  students.forEach(({ letter, times, curve, finish }, i) => {
    const until = times.filter((t) => t < state.time).length;
    const reward = now[i].groundTruth[0];
    lines += tag("path", {
      d: line(x, y, [...times.slice(0, until), state.time], [...curve.slice(0, until), reward]),
      style: `stroke:var(--rv-${LETTERS[i]})`,
      "stroke-width": "2.6",
      "stroke-dasharray": i ? undefined : "7 3",
      "stroke-linejoin": "round",
    });
    if (finish <= state.time) {
      lines += tag("circle", {
        cx: x(finish),
        cy: y(goal),
        r: 4,
        style: `fill:var(--rv-paper);stroke:var(--rv-${LETTERS[i]})`,
        "stroke-width": 2,
      });
      const words = `${letter}: ${T_GAMMA} = ${number(finish)}`;
      runners += fitted(x(finish) - 8, y(goal) - 8, words, [track.left, width], {
        "text-anchor": x(finish) > track.left + 8 + measure(words, "", 600) ? "end" : "start",
        class: "rv-halo",
        "font-weight": 600,
        style: `fill:var(--rv-${LETTERS[i]})`,
      });
    }
    // Where they would cover one another they stand side by side, so that neither seems ahead.
    const aside = Math.sqrt(Math.max(0, 19 ** 2 - (y(now[0].groundTruth[0]) - y(now[1].groundTruth[0])) ** 2)) / 2;
    const at = clamp(x(state.time), track.left + 9 + aside, width - 9 - aside) + (i ? aside : -aside);
    runners += tag("circle", {
      cx: at,
      cy: y(reward),
      r: 9,
      style: `fill:var(--rv-${LETTERS[i]});stroke:var(--rv-paper)`,
      "stroke-width": 2,
    });
    runners += text(at, y(reward) + 4, letter, {
      "text-anchor": "middle",
      "font-weight": 700,
      style: "fill:var(--rv-paper)",
    });
  });
  out += axes(track, x, y, {
    title: "Ground truth reward",
    note: state.metric === "natural" ? "natural gradient; A dashed, B solid" : "A dashed, B solid",
    xTicks: 7,
    yTicks: 4,
    xTitle: "time",
  });
  out += clipped(track, lines) + runners;
  if (goal < 1)
    out += text(track.left + track.width - 3, y(goal) - 5, "finish", {
      class: "rv-tick rv-halo",
      "text-anchor": "end",
    });
  return { height: track.top + track.height + 38, parts: [...parts, out] };
}

/** @type {Readouts<View>} */
const readouts = ({ state, students, now }) => [
  ...students.map(
    (student, i) =>
      /** @type {Readout} */ ([
        `${student.letter} finishes, <i>t</i><sub>γ</sub>`,
        whenReached(student.finish, state.time, END),
        LETTERS[i],
        "First time at which the ground truth reward has risen by γ",
      ]),
  ),
  ...students.map(
    ({ letter }, i) =>
      /** @type {Readout} */ ([
        `reward under ${letter} now`,
        number(now[i].groundTruth[0], 2),
        LETTERS[i],
        "The student's expected ground truth reward at this time",
      ]),
  ),
];

/** @type {Describe<View>} */
const describe = ({ state, students, now }) =>
  `At time ${number(state.time)}${state.metric === "natural" ? " of the natural gradient" : ""}: ` +
  students
    .map(
      ({ letter, made, ...student }, i) =>
        `under teacher ${letter}, of accuracy ${number(made.accuracy, 2)} and reward variance ${number(made.variance, 2)}, the student's ground truth reward is ${number(now[i].groundTruth[0], 2)}; the time it takes to gain ${number(state.gain, 2)}: ${whenReached(student.finish, state.time, END)}. `,
    )
    .join("");

/** Play and pause. With reduced motion the race goes in half decades, a second apart. @param {Frame<State>} frame */
function setup({ set, button, state }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let running = 0;
  const stop = () => {
    cancelAnimationFrame(running);
    clearTimeout(running);
    running = 0;
    play.textContent = "▶ Play";
  };
  /** @type {(step: (moment: number) => void) => number} */
  const soon = (step) =>
    (running = calm.matches ? setTimeout(() => step(performance.now()), 1000) : requestAnimationFrame(step));
  const start = () => {
    /** @type {number | undefined} */
    let before;
    let time = state().time >= END ? START : state().time;
    set({ time });
    play.textContent = "❚❚ Pause";
    const step = (/** @type {number} */ moment) => {
      const decades = calm.matches ? 0.5 : ((moment - (before ?? moment)) / 1000 / SECONDS) * Math.log10(END / START);
      before = moment;
      if (Math.abs(state().time / time - 1) > 1e-9) time = state().time; // the reader has moved the slider
      time = Math.min(END, time * 10 ** decades);
      set({ time });
      if (time < END) soon(step);
      else stop();
    };
    soon(step);
  };
  const play = button("▶ Play", () => (running ? stop() : start()), "Let both students learn");
  play.className = "rv-play";
  return { first: [play], stop };
}

export default explorable({ name: "race", compute, draw, readouts, describe, setup });
