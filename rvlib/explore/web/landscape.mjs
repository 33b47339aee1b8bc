// @ts-check
// The landscape: three outputs, so that policies are a triangle and the objective a surface over it. Two teachers side by
// side, to the same scale; the gradient flow from one initial policy drawn on both.
//
//   φ(θ) = E_{y~π_θ} r(y) - λ KL(π_θ ‖ π_θ(0)),     ground truth rewards 1, 0 and -1

import { gradientFlow, rankingAccuracy, rewardVariance } from "./flow.mjs";
import { T_GAMMA, clamp, fitted, number, tag, text } from "./plot.mjs";
import { CORNERS, PLANES, contours, path, projection, surface } from "./surface.mjs";
import { LETTERS, drawn, gainTime, whenReached } from "./problem.mjs";
import { explorable } from "./ui.mjs";

/**
 * @typedef {{plane: keyof typeof PLANES} & Record<`${"a" | "b"}_${Name}` | "best" | "middling" | "time" | "gain" | "kl_coef" |
 *   "turn" | "tilt", number>} State
 */
/** @typedef {ReturnType<typeof compute>} View */
/** @typedef {import("./surface.mjs").Plane} Plane */
/** @typedef {View["teachers"][number]} Teacher */

const GROUND_TRUTH = [1, 0, -1];
const NAMES = /** @type {const} */ (["best", "middling", "worst"]);
/** @typedef {(typeof NAMES)[number]} Name */
const LEVELS = Array.from({ length: 20 }, (_, i) => (i - 9.5) / 10); // contours 0.1 apart, none at the height of a plateau
const LEAST = 0.01; // probability of any output at the start
const END = 1e5;
const GRID = [0, ...Array.from({ length: 60 }, (_, i) => 0.03 * (END / 0.03) ** (i / 59))];
const CLOCK = [1, 10, 100, 1000];
const LAST = 1e4; // where the slider of the time ends

/** @param {State} state */
function compute(state) {
  const best = clamp(state.best, LEAST, 1 - 2 * LEAST);
  const middling = clamp(state.middling, LEAST, 1 - LEAST - best);
  const start = [best, middling, 1 - best - middling];
  const klCoef = state.kl_coef;
  const teachers = LETTERS.map((letter) => {
    const reward = NAMES.map((name) => state[/** @type {const} */ (`${letter}_${name}`)]);
    const solved = remembered(letter, [reward, start, klCoef, state.gain], () =>
      solve(letter, reward, start, klCoef, state.gain),
    );
    return { ...solved, now: solved.flow.at([state.time]).probs[0] };
  });
  const room = 1 - LEAST - best;
  const full = room - LEAST < 1e-9 ? { hint: "the best leaves it no more", idle: true } : {};
  return { state, start, teachers, limits: { middling: { value: middling, max: room, ...full } } };
}

/**
 * One teacher's training.
 * @param {"a" | "b"} letter
 * @param {number[]} reward
 * @param {number[]} start the initial policy
 * @param {number} klCoef
 * @param {number} gain
 */
function solve(letter, reward, start, klCoef, gain) {
  const logits = start.map(Math.log);
  const flow = gradientFlow(logits, reward, END, { klCoef, tolerance: 1e-7 });
  const times = drawn(flow, GRID);
  return {
    letter: letter.toUpperCase(),
    reward,
    flow,
    times,
    /** @type {(probs: Numbers) => number} */
    value: klCoef
      ? (probs) => expected(probs, reward) - klCoef * divergence(probs, logits)
      : (probs) => expected(probs, reward),
    route: flow.at(times, { exact: false }).probs,
    clock: flow.at(CLOCK, { exact: false }).probs,
    accuracy: rankingAccuracy(reward, GROUND_TRUTH),
    variance: rewardVariance(reward, start),
    time: gainTime(logits, reward, gain, { measured: GROUND_TRUTH, klCoef }),
  };
}

/** @type {Record<string, {key: string, made: any}>} */
const memory = {};
/**
 * What `make` returned when the inputs of this slot were last these: what a slider does not concern is not done again.
 * @template T
 * @param {string} slot
 * @param {unknown[]} inputs
 * @param {() => T} make
 * @returns {T}
 */
function remembered(slot, inputs, make) {
  const key = JSON.stringify(inputs);
  if (memory[slot]?.key !== key) memory[slot] = { key, made: make() };
  return memory[slot].made;
}

// Both are taken at thousands of points for each frame.
/** @type {(probs: Numbers, logits: number[]) => number} */
const divergence = ([a, b, c], logits) => cross(a, logits[0]) + cross(b, logits[1]) + cross(c, logits[2]);
/** @type {(p: number, logReference: number) => number} */
const cross = (p, logReference) => (p > 0 ? p * (Math.log(p) - logReference) : 0);
/** @type {(probs: Numbers, values: number[]) => number} */
const expected = (probs, values) => probs[0] * values[0] + probs[1] * values[1] + probs[2] * values[2];

/** @typedef {{x: number, y: number, radius: number}} Disc in pixels */

/**
 * Where the two teachers' surfaces and maps lie in a figure of this width.
 * @param {number} width
 * @param {keyof typeof PLANES} kind
 */
function layout(width, kind) {
  const gutter = width < 520 ? 12 : 40;
  const column = (width - gutter) / 2;
  const narrow = column < 240;
  const head = narrow ? 66 : 48;
  const height = Math.min(column * 0.8, 260);
  // The triangle reaches from 1 above its centre to ½ below, the disc 1 each way.
  const radius = Math.min(column * 0.5, kind === "policies" ? 165 : 140);
  const below = radius * (kind === "policies" ? 0.5 : 1);
  return {
    narrow,
    height: head + height + 34 + radius + below + 24,
    columns: [0, column + gutter].map((left) => ({
      left,
      column,
      surface: { left, top: head, width: column, height },
      map: { x: left + column / 2, y: head + height + 34 + radius, radius },
    })),
  };
}

/** @type {(map: Disc) => (point: number[]) => Pair} */
const toPixels =
  ({ x, y, radius }) =>
  (point) => [x + radius * point[0], y - radius * point[1]];

/** @type {Draw<View>} */
function draw({ state, start, teachers }, width, id) {
  const frame = layout(width, state.plane);
  const plane = PLANES[state.plane];
  /** @type {string[]} */
  const parts = [];
  teachers.forEach((teacher, i) => {
    let out = "";
    const { left, column, surface: box, map } = frame.columns[i];
    /** @type {Pair} */
    const room = [left, left + column];
    /** @type {(row: number, words: string, more: Attributes) => string} */
    const say = (row, words, more) => fitted(left + column / 2, row, words, room, { "text-anchor": "middle", ...more });
    const style = `fill:var(--rv-${teacher.letter.toLowerCase()})`;
    out += say(15, `Teacher ${teacher.letter}`, { class: "rv-title", style });
    const facts = [`accuracy ${number(teacher.accuracy, 2)}`, `variance ${number(teacher.variance, 2)}`];
    (frame.narrow ? facts : [facts.join(", ")]).forEach(
      (words, k) => (out += say(31 + 15 * k, words, { class: "rv-tick" })),
    );
    const reached = whenReached(teacher.time, state.time, LAST);
    out += say(frame.narrow ? 62 : 47, `${T_GAMMA}${/^[^a-z]/.test(reached) ? " =" : ""} ${reached}`, {
      style,
      "font-weight": 600,
    });

    // ---- the surface, over the outline of its floor
    parts.push(out);
    const project = projection({ ...box, top: box.top + 8 }, state.turn, state.tilt);
    const height = (/** @type {Numbers} */ probs) => Math.max(-1, teacher.value(probs)); // what the KL term pushes below the floor is cut off
    const floor = plane.outline.map((point) => project(point, -1));
    const shape = remembered(
      `surface ${i}`,
      [teacher.reward, state.kl_coef, start, state.plane, state.turn, state.tilt, width, id],
      () => surface(plane, project, height, `${id}-${i}`),
    );
    parts.push(tag("path", { d: `${path(floor)}Z`, style: "fill:var(--rv-panel)", class: "rv-axis" }) + shape);
    const lifted = (/** @type {Numbers} */ probs) => project(plane.place(probs), height(probs) + 0.015);
    out = route(teacher, lifted, start, state, plane);
    NAMES.forEach((name, k) => {
      const [cx, cy] = project(
        CORNERS[k].map((x) => x * 1.1),
        height(plane.probs(CORNERS[k])),
      );
      out += fitted(cx, cy + 4, name, room, {
        class: "rv-tick rv-halo",
        "text-anchor": "middle",
      });
    });
    out += tag("rect", {
      x: box.left,
      y: box.top,
      width: box.width,
      height: box.height,
      fill: "transparent",
      class: "rv-turn",
      "data-drag": "turn",
    });

    parts.push(out);

    // ---- the map: contours, the finish, the way
    const at = toPixels(map);
    const inside = plane.outline.map(at);
    out = tag("defs", {}, tag("clipPath", { id: `${id}-map${i}` }, tag("path", { d: `${path(inside)}Z` })));
    const content = remembered(`map ${i}`, [teacher.reward, state.kl_coef, start, state.gain, state.plane, width], () =>
      contourLines(teacher, start, state, at),
    );
    out += tag("path", { d: `${path(inside)}Z`, style: "fill:var(--rv-panel)", class: "rv-axis" });
    out += tag("g", { "clip-path": `url(#${id}-map${i})` }, content);
    parts.push(out);
    out = route(teacher, (probs) => at(plane.place(probs)), start, state, plane, true);
    const [sx, sy] = at(plane.place(start));
    out += tag("circle", { cx: sx, cy: sy, r: 18, fill: "transparent", class: "rv-grab", "data-drag": "start" });
    NAMES.forEach((name, k) => {
      const corner =
        state.plane === "policies"
          ? [0, 1, 2].map((j) => (j === k ? 1 : 0))
          : [0, 1, 2].map((j) => (j === k ? Math.exp(9) : 1));
      const [cx, cy] = at(plane.place(corner));
      out += fitted(cx + [0, 8, -8][k], k ? cy + 15 : cy - 6, name, room, {
        class: "rv-tick rv-halo",
        "text-anchor": ["middle", "end", "start"][k],
      });
    });
    parts.push(out);
  });
  return { height: frame.height, parts };
}

/**
 * Contours of the objective, and where the ground truth reward has risen by the gain.
 * @type {(teacher: Teacher, start: number[], state: State, at: (point: number[]) => Pair) => string}
 */
function contourLines(teacher, start, { plane, gain }, at) {
  const shade = (/** @type {number} */ k) =>
    `stroke:color-mix(in oklab, var(--rv-high) ${Math.round((100 * k) / (LEVELS.length - 1))}%, var(--rv-mid))`;
  const finish = contours(
    plane,
    (probs) => expected(probs, GROUND_TRUTH),
    [expected(start, GROUND_TRUTH) + gain, 9],
    at,
  )[0];
  return [
    ...contours(plane, teacher.value, LEVELS, at).map(
      (d, k) => d && tag("path", { d, "stroke-width": "1.3", style: shade(k) }),
    ),
    tag("path", { d: finish, style: "stroke:var(--rv-truth)", "stroke-width": "2.4" }),
  ].join("");
}

/**
 * The way from the start that the student has walked so far, with a clock on it.
 * @param {Teacher} teacher
 * @param {(probs: Numbers) => Pair} place
 * @param {number[]} start
 * @param {State} state
 * @param {Plane} plane
 */
function route({ letter, times, route, clock, now }, place, start, { time }, plane, labelled = false) {
  const tone = `var(--rv-${letter.toLowerCase()})`;
  const left = route.findIndex((probs) => Math.hypot(...plane.place(probs)) > 1); // the disc of logits ends, the way does not
  if (left > 0) route = route.slice(0, left);
  const walked = times.filter((t) => t <= time).length;
  const seen = Math.hypot(...plane.place(now)) <= 1;
  const behind = path([...route.slice(0, walked), ...(seen ? [now] : [])].map(place));
  let out = tag("path", {
    d: behind,
    style: `stroke:${tone}`,
    "stroke-width": 3,
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  });
  if (labelled) {
    let last = place(start);
    clock.forEach((probs, i) => {
      const [x, y] = place(probs);
      if (CLOCK[i] > time || Math.hypot(x - last[0], y - last[1]) < 14 || Math.hypot(...plane.place(probs)) > 1) return;
      last = [x, y];
      out += tag("circle", { cx: x, cy: y, r: 2.2, style: `fill:var(--rv-paper);stroke:${tone}` });
      out += text(x + 6, y + 4, String(CLOCK[i]), { class: "rv-tick rv-halo" });
    });
  }
  const [sx, sy] = place(start);
  out += tag("circle", {
    cx: sx,
    cy: sy,
    r: labelled ? 6 : 4,
    style: "fill:var(--rv-paper);stroke:var(--rv-ink)",
    "stroke-width": 2,
  });
  if (!seen) return out;
  const [nx, ny] = place(now);
  return (
    out + tag("circle", { cx: nx, cy: ny, r: 5.5, style: `fill:${tone};stroke:var(--rv-paper)`, "stroke-width": 2 })
  );
}

/** @type {Describe<View>} */
const describe = ({ state, start, teachers }) =>
  `The objective over the ${state.plane === "policies" ? "triangle of policies" : "plane of logits"} of three outputs, for two teachers, as a surface and as contours 0.1 apart, with the way of gradient flow from the policy ${start.map((p) => number(p, 2)).join(", ")}. ` +
  teachers
    .map(
      ({ letter, reward, accuracy, variance, time }) =>
        `Teacher ${letter}, rewards ${reward.map((r) => number(r, 2)).join(", ")}: accuracy ${number(accuracy, 2)}, reward variance ${number(variance, 2)}; the time its ground truth reward takes to gain ${number(state.gain, 2)}: ${whenReached(time, state.time, LAST)}. `,
    )
    .join("");

/** Dragging: the start in a map, the view in a surface. @param {Frame<State>} frame */
function setup({ svg, set, state }) {
  /** @type {{kind: string, x: number, y: number, map: Disc, turn: number, tilt: number} | null} */
  let drag = null; // what is dragged, and from where
  /** @type {(event: PointerEvent) => Pair} */
  const where = ({ clientX, clientY }) => {
    const box = svg.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };
  svg.addEventListener("pointerdown", (event) => {
    const kind = /** @type {SVGElement} */ (event.target).dataset?.drag;
    if (!kind) return;
    const [x, y] = where(event);
    const { columns } = layout(svg.clientWidth, state().plane);
    const nearest = Math.abs(x - columns[0].map.x) < Math.abs(x - columns[1].map.x) ? 0 : 1;
    drag = { kind, x, y, map: columns[nearest].map, turn: state().turn, tilt: state().tilt };
    svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = where(event);
    if (drag.kind === "turn") {
      const turn = ((drag.turn - (x - drag.x) * 0.6 + 540) % 360) - 180;
      return set({ turn: Math.round(turn), tilt: clamp(Math.round(drag.tilt + (y - drag.y) * 0.3), 10, 55) });
    }
    const point = [(x - drag.map.x) / drag.map.radius, (drag.map.y - y) / drag.map.radius];
    const probs = PLANES[state().plane].probs(point);
    const total = probs[0] + probs[1] + probs[2];
    const best = clamp(probs[0] / total, LEAST, 1 - 2 * LEAST);
    const middling = clamp(probs[1] / total, LEAST, 1 - LEAST - best);
    set({ best: Number(best.toFixed(3)), middling: Number(middling.toFixed(3)) });
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (drag = null));
  return {};
}

export default explorable({ name: "landscape", compute, draw, readouts: () => [], describe, setup });
