// @ts-check
// Three outputs make a plane: policies are a triangle, logits (up to a constant) a disc. This file maps both to the unit
// disc, and draws a function over them as a surface in perspective-free projection and as contours.
//
//   point = Σ_i x_i v_i,   x_i = centre + ⅔ point·v_i,   v_i the corners of an equilateral triangle on the unit circle

import { sum } from "./flow.mjs";
import { clamp, line, px, tag } from "./plot.mjs";
import { remembering } from "./work.mjs";

const H = Math.sqrt(3) / 2;
/** @typedef {number[]} Point of the unit disc */
/** @typedef {Numbers} Probs of the three outputs */
/**
 * A plane of policies: where a policy lies in the unit disc, which policy lies at a point, which interval of the line at a
 * depth after a turn lies in it, and its outline.
 * @typedef {{place: (probs: Probs) => Point, probs: (point: Point) => Probs,
 *   chord: (depth: number, turn: number) => Pair | undefined, outline: Point[]}} Plane
 */

export const CORNERS = [
  [0, 1],
  [H, -0.5],
  [-H, -0.5],
];
const REACH = 9; // of the disc of logits: e⁹ to one
const ROWS = 24;
const COLUMNS = 16;
const MESH = 34;

/** @type {(x: Numbers) => Point} */
const toPoint = (x) => [0, 1].map((axis) => sum(3, (i) => x[i] * CORNERS[i][axis]));
/** @type {(point: Point, centre: number) => number[]} */
const fromPoint = (point, centre) =>
  CORNERS.map((corner) => centre + (2 / 3) * (point[0] * corner[0] + point[1] * corner[1]));

/** @type {Record<"policies" | "logits", Plane>} */
export const PLANES = {
  policies: {
    place: (probs) => toPoint(probs),
    probs: (point) => fromPoint(point, 1 / 3).map((p) => Math.max(p, 0)),
    chord(depth, turn) {
      let [from, to] = [-2, 2];
      for (const [cx, cy] of CORNERS) {
        // Inside where p_i = 1/3 + ⅔ point·v_i ≥ 0, linear along the chord.
        const along = cx * Math.cos(turn) - cy * Math.sin(turn);
        const level = 0.5 + depth * (cx * Math.sin(turn) + cy * Math.cos(turn));
        if (Math.abs(along) < 1e-12) {
          if (level < 0) return undefined;
        } else if (along > 0) from = Math.max(from, -level / along);
        else to = Math.min(to, -level / along);
      }
      return to > from ? [from, to] : undefined;
    },
    outline: CORNERS,
  },
  logits: {
    place: (probs) => toPoint(Float64Array.from(probs, (p) => Math.log(Math.max(p, 1e-300)))).map((x) => x / REACH),
    probs([x, y]) {
      const [a, b, c] = CORNERS.map((corner) => Math.exp((2 / 3) * REACH * (x * corner[0] + y * corner[1])));
      return [a / (a + b + c), b / (a + b + c), c / (a + b + c)];
    },
    chord: (depth) => (Math.abs(depth) < 1 ? [-Math.sqrt(1 - depth * depth), Math.sqrt(1 - depth * depth)] : undefined),
    outline: Array.from({ length: 73 }, (_, i) => [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)]),
  },
};

/**
 * The projection into a box: (point, value in [-1, 1]) ↦ pixels.
 * @param {Box} box
 * @param {number} turn in degrees
 * @param {number} tilt in degrees; at 90 one looks straight down
 */
export function projection({ left, top, width, height }, turn, tilt) {
  const [a, e] = [(turn * Math.PI) / 180, (tilt * Math.PI) / 180];
  const lift = 0.62;
  const scale = Math.min(width / 2.04, height / (2 * Math.sin(e) + 2 * lift * Math.cos(e)));
  const [x0, y0] = [left + width / 2, top + height / 2];
  /** @type {(across: number, depth: number, value: number) => Pair} */
  const onScreen = (across, depth, value) => [
    x0 + scale * across,
    y0 - scale * (depth * Math.sin(e) + value * lift * Math.cos(e)),
  ];
  /** @type {(point: Point, value: number) => Pair} */
  const project = ([x, y], value) =>
    onScreen(x * Math.cos(a) - y * Math.sin(a), x * Math.sin(a) + y * Math.cos(a), value);
  return Object.assign(project, { onScreen, turn: a });
}

/**
 * The surface value(probs) over a plane, as slices across the line of sight, drawn from the back to the front so that the
 * near hides the far. Each slice is coloured by height: one gradient, moved to where the slice's heights are.
 * @param {Plane} plane
 * @param {ReturnType<typeof projection>} project
 * @param {(probs: Probs) => number} value
 * @param {string} id of the gradients
 */
export function surface(plane, project, value, id) {
  const { turn, onScreen } = project;
  const slice = (/** @type {number} */ depth) => {
    const chord = plane.chord(depth, turn);
    if (!chord) return undefined;
    const [from, to] = chord;
    return Array.from({ length: COLUMNS + 1 }, (_, k) => {
      const across = from + ((to - from) * k) / COLUMNS;
      const point = [
        across * Math.cos(turn) + depth * Math.sin(turn),
        -across * Math.sin(turn) + depth * Math.cos(turn),
      ];
      return onScreen(across, depth, value(plane.probs(point)));
    });
  };
  let gradients = "";
  let slices = "";
  // Steps in depth from the far end to the near, and the depths of the corners, where the outline bends.
  const ends = plane.outline.map(([x, y]) => x * Math.sin(turn) + y * Math.cos(turn));
  const [far, near] = [Math.max(...ends) - 1e-6, Math.min(...ends) + 1e-6];
  // A round plane is sliced finer at its ends, where it narrows fastest.
  const round = ends.length > 9;
  const share = (/** @type {number} */ i) => i / ROWS - (round ? Math.sin((2 * Math.PI * i) / ROWS) / 9 : 0);
  const even = Array.from({ length: ROWS + 1 }, (_, i) => far + (near - far) * share(i));
  const depths = [...even, ...(round ? [] : ends.map((d) => clamp(d, near, far)))].sort((a, b) => b - a);
  let back = slice(far);
  for (let row = 1; row < depths.length; row++) {
    const front = slice(depths[row]);
    if (back && front) {
      const middle = (depths[row - 1] + depths[row]) / 2;
      const [low, high] = [onScreen(0, middle, -1)[1], onScreen(0, middle, 1)[1]];
      gradients += tag("linearGradient", {
        id: `${id}-${row}`,
        href: `#${id}`,
        gradientUnits: "userSpaceOnUse",
        x1: 0,
        x2: 0,
        y1: low,
        y2: high,
      });
      slices += tag("path", {
        d: `${path(back)}L${path([...front].reverse()).slice(1)}Z`,
        style: `fill:url(#${id}-${row})`,
        class: "rv-slice",
      });
    }
    back = front;
  }
  const stops = ["low", "mid", "high"].map((name, i) =>
    tag("stop", { offset: String(i / 2), style: `stop-color:var(--rv-${name})` }),
  );
  return tag("defs", {}, tag("linearGradient", { id }, ...stops), gradients) + slices;
}

/** @type {(points: number[][]) => string} the `d` of a line through points in pixels */
export const path = (points) =>
  line(
    (x) => x,
    (y) => y,
    points.map(([x]) => x),
    points.map(([, y]) => y),
  );

/** @typedef {{triangles: number[][], points: Point[], probs: Probs[]}} Mesh the triangles: three places in `points` each */

/** A fine mesh of a plane. @param {keyof typeof PLANES} name */
function makeMesh(name) {
  /** @type {Point[][]} */
  const triangles = [];
  if (name === "policies") {
    const at = (/** @type {number} */ i, /** @type {number} */ j) =>
      toPoint([i / MESH, j / MESH, (MESH - i - j) / MESH]);
    for (let i = 0; i < MESH; i++)
      for (let j = 0; i + j < MESH; j++) {
        triangles.push([at(i, j), at(i + 1, j), at(i, j + 1)]);
        if (i + j < MESH - 1) triangles.push([at(i + 1, j), at(i, j + 1), at(i + 1, j + 1)]);
      }
  } else {
    const cells = 44;
    const at = (/** @type {number} */ i, /** @type {number} */ j) => [(2 * i) / cells - 1, (2 * j) / cells - 1];
    for (let i = 0; i < cells; i++)
      for (let j = 0; j < cells; j++) {
        if (Math.hypot(...at(i + 0.5, j + 0.5)) > 1.05) continue;
        triangles.push([at(i, j), at(i + 1, j), at(i, j + 1)]);
        triangles.push([at(i + 1, j), at(i, j + 1), at(i + 1, j + 1)]);
      }
  }
  /** @type {Map<string, number>} */
  const index = new Map();
  /** @type {Point[]} */
  const points = [];
  const known = (/** @type {Point} */ point) => {
    const key = point.map((x) => x.toFixed(9)).join();
    const place = index.get(key) ?? points.push(point) - 1;
    index.set(key, place);
    return place;
  };
  return {
    triangles: triangles.map((triangle) => triangle.map(known)),
    points,
    probs: points.map(PLANES[name].probs),
  };
}
const mesh = remembering(makeMesh, 2);

/**
 * Contours of value(probs) at evenly spaced levels, in a map that takes a point of the unit disc to pixels: one path a level.
 * A contour enters and leaves a triangle by two of its sides; sides shared by two triangles join the pieces to lines.
 * @param {keyof typeof PLANES} name
 * @param {(probs: Probs) => number} value
 * @param {number[]} levels
 * @param {(point: Point) => number[]} toPixels
 * @returns {string[]}
 */
export function contours(name, value, levels, toPixels) {
  const { triangles, points, probs } = mesh(name);
  const heights = probs.map(value);
  const pixels = points.map(toPixels);
  const spacing = levels[1] - levels[0];
  const links = levels.map(() => /** @type {Map<number, number[]>} */ (new Map())); // a level's sides, each with the sides that it is joined to
  for (const triangle of triangles) {
    const [a, b, c] = triangle;
    const [low, high] = [Math.min(heights[a], heights[b], heights[c]), Math.max(heights[a], heights[b], heights[c])];
    const last = Math.min(levels.length - 1, Math.floor((high - levels[0]) / spacing));
    for (let k = Math.max(0, Math.ceil((low - levels[0]) / spacing)); k <= last; k++) {
      const sides = [];
      for (const [i, j] of [
        [a, b],
        [b, c],
        [c, a],
      ])
        if (heights[i] < levels[k] !== heights[j] < levels[k])
          sides.push(i < j ? i * points.length + j : j * points.length + i);
      if (sides.length < 2) continue;
      for (const [from, to] of [sides, [sides[1], sides[0]]]) {
        const known = links[k].get(from);
        if (known) known.push(to);
        else links[k].set(from, [to]);
      }
    }
  }
  return links.map((sides, k) => {
    const at = (/** @type {number} */ side) => {
      const [i, j] = [Math.floor(side / points.length), side % points.length];
      const share = (levels[k] - heights[i]) / (heights[j] - heights[i]);
      return `${px(pixels[i][0] + share * (pixels[j][0] - pixels[i][0]))} ${px(pixels[i][1] + share * (pixels[j][1] - pixels[i][1]))}`;
    };
    let d = "";
    const walk = (/** @type {number} */ start) => {
      let [before, side] = [start, start];
      d += `M${at(start)}`;
      for (;;) {
        const next = sides.get(side)?.find((joined) => sides.has(joined) && joined !== before);
        if (next === undefined) break;
        sides.delete(before);
        d += `L${at(next)}`;
        before = side = next;
      }
      sides.delete(before);
    };
    for (const [side, joined] of sides) if (joined.length === 1) walk(side); // lines from edge to edge
    for (const side of sides.keys()) {
      walk(side); // closed ones
      d += "Z";
    }
    return d;
  });
}
