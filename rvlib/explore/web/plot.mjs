// @ts-check
// Drawing as text: each function returns SVG markup in pixels, so that a figure is a function of its state alone and the
// same code draws it in the page, in a widget and in the printed picture.

/** A pixel coordinate for an attribute: a tenth of a pixel is enough. */
export const px = (x) => Math.round(x * 10) / 10;

export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

export const tag = (name, attributes = {}, ...children) => {
  let text = `<${name}`;
  for (const key in attributes) {
    const value = attributes[key];
    if (value !== undefined && value !== false) text += ` ${key}="${typeof value === "number" ? px(value) : value}"`;
  }
  return children.length ? `${text}>${children.join("")}</${name}>` : `${text}/>`;
};

// ---- numbers in words ---------------------------------------------------------------------------------------------------

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
export const power = (exponent) => `10${String(exponent).replace(/./g, (c) => RAISED[c])}`;

/** A number to so many significant digits, with a real minus and powers of ten where they are shorter. */
export function number(x, digits = 3) {
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  let text;
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    text = `${mantissa.replace(/\.0+$/, "")}×${power(Number(exponent))}`;
  } else text = size >= 10 ** digits ? size.toFixed(0) : size.toPrecision(digits);
  return (x < 0 ? "−" : "") + text;
}

/** A number with a fixed count of decimals and a real minus. */
export const fixed = (x, digits = 2) => (Number(x.toFixed(digits)) < 0 ? "−" : "") + Math.abs(x).toFixed(digits);

// ---- scales -------------------------------------------------------------------------------------------------------------

/**
 * A function from values to pixels.
 * @typedef {object} ScaleMethods
 * @property {(pixels: number) => number} invert the value at a place
 * @property {(count?: number) => number[]} ticks round values, about `count` of them
 * @property {(value: number) => string} say a value as a tick's label
 * @property {number} [digits] decimals that ticks need
 * @typedef {((value: number) => number) & ScaleMethods} Scale
 */

/**
 * x ↦ pixels, linear. `.ticks(count)` gives round values; `.say(x)` writes one.
 * @param {number[]} domain its two ends
 * @param {number[]} range in pixels
 * @returns {Scale}
 */
export function linear([from, to], [start, end]) {
  const slope = (end - start) / (to - from);
  const scale = /** @type {Scale} */ ((x) => start + (x - from) * slope);
  scale.invert = (p) => from + (p - start) / slope;
  scale.ticks = (count = 5) => {
    const rough = Math.abs(to - from) / count;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough * 0.999);
    const ticks = [];
    for (let k = Math.ceil(Math.min(from, to) / step - 1e-9); k * step <= Math.max(from, to) + 1e-9 * step; k++)
      ticks.push(k * step);
    scale.digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return ticks;
  };
  scale.say = (x) => (Math.abs(x) >= 1e5 ? number(x, 1) : fixed(x, Math.min(scale.digits ?? 2, 6)));
  return scale;
}

/**
 * x ↦ pixels, logarithmic; what is not positive lies far before the start.
 * @param {number[]} domain its two ends, positive
 * @param {number[]} range in pixels
 * @returns {Scale}
 */
export function logarithmic([from, to], [start, end]) {
  const [low, high] = [Math.log10(from), Math.log10(to)];
  const slope = (end - start) / (high - low);
  const scale = /** @type {Scale} */ ((x) => start + (Math.log10(Math.max(x, 1e-300)) - low) * slope);
  scale.invert = (p) => 10 ** (low + (p - start) / slope);
  scale.ticks = (count = 5) => {
    const stride = Math.max(1, Math.ceil((high - low) / count));
    const ticks = [];
    for (let k = Math.ceil(low - 1e-9); k <= high + 1e-9; k++) if (k % stride === 0) ticks.push(10 ** k);
    return ticks;
  };
  scale.say = (x) => (x >= 0.01 && x <= 1000 ? String(Number(x.toPrecision(3))) : power(Math.round(Math.log10(x))));
  return scale;
}

// ---- marks --------------------------------------------------------------------------------------------------------------

const NEAR = 0.1; // pixels, the rounding of a coordinate too: what lies nearer to a straight line cannot be told from it

/**
 * The `d` of a line through (x(xs[i]), y(ys[i])), within ±4000 pixels so that no renderer stumbles over a far point. Points
 * that the straight line between others passes within a tenth of a pixel are left out (Douglas and Peucker's way): a smooth
 * curve keeps a third of them, and is parsed and painted in less time.
 */
export function line(x, y, xs, ys) {
  const across = Float64Array.from(xs, (value) => clamp(x(value), -4000, 4000));
  const up = Float64Array.from(ys, (value) => clamp(y(value), -4000, 4000));
  const kept = new Uint8Array(xs.length);
  kept[0] = kept[xs.length - 1] = 1;
  const spans = [0, xs.length - 1];
  while (spans.length) {
    const [to, from] = [spans.pop(), spans.pop()];
    const [dx, dy] = [across[to] - across[from], up[to] - up[from]];
    const square = dx * dx + dy * dy;
    let [farthest, most] = [-1, NEAR * NEAR];
    for (let i = from + 1; i < to; i++) {
      const [ax, ay] = [across[i] - across[from], up[i] - up[from]];
      const share = square ? clamp((ax * dx + ay * dy) / square, 0, 1) : 0;
      const away = (ax - share * dx) ** 2 + (ay - share * dy) ** 2;
      if (away > most) [farthest, most] = [i, away];
    }
    if (farthest < 0) continue;
    kept[farthest] = 1;
    spans.push(from, farthest, farthest, to);
  }
  let d = "";
  for (let i = 0; i < xs.length; i++) if (kept[i]) d += `${d ? "L" : "M"}${px(across[i])} ${px(up[i])}`;
  return d;
}

export const text = (x, y, content, attributes = {}) => tag("text", { x, y, ...attributes }, content);

let pen;
const known = new Map();

/**
 * The width of words as the page's own font draws them, in pixels; where there is no page, a generous guess.
 * @param {string} words
 * @param {number} size of the font, in pixels
 * @param {number} weight of the font
 * @returns {number}
 */
export function textWidth(words, size, weight = 400) {
  if (typeof document === "undefined") return 0.55 * size * words.length;
  const family = getComputedStyle(document.documentElement).getPropertyValue("--rv-font") || "system-ui, sans-serif";
  const font = `${weight} ${size}px ${family}`;
  const key = `${font}|${document.fonts?.status}|${words}`;
  if (!known.has(key)) {
    if (known.size > 500) known.clear();
    pen ??= document.createElement("canvas").getContext("2d");
    pen.font = font;
    known.set(key, pen.measureText(words).width);
  }
  return known.get(key);
}

const LEGEND = { size: 12.5, note: 11.5, row: 16, gap: 12 };

/**
 * What the colours of a figure mean, in as many rows as the width asks for.
 * @param {number} left
 * @param {number} baseline of the first row
 * @param {number} width that a row may take
 * @param {{ tone: string, words?: string, note?: string }[]} entries a coloured name, then words in the colour of notes
 * @returns {{ markup: string, extra: number }} extra: pixels that rows after the first take
 */
export function legend(left, baseline, width, entries) {
  let [x, y, markup] = [left, baseline, ""];
  for (const { tone, words = "●", note = "" } of entries) {
    const named = textWidth(words, LEGEND.size, 600);
    const space = note && words === "●" ? 4 : 0;
    const wide = named + space + textWidth(note, LEGEND.note);
    if (x > left && x + wide > left + width) [x, y] = [left, y + LEGEND.row];
    const name = tag("tspan", { style: `fill:var(--rv-${tone})`, "font-weight": 600 }, words);
    const after = note ? tag("tspan", { class: "rv-note", dx: space }, note) : "";
    markup += text(x, y, name + after, { style: `font-size:${LEGEND.size}px` });
    x += wide + LEGEND.gap;
  }
  return { markup, extra: y - baseline };
}

/** t with a subscript γ, as SVG or HTML markup. */
export const T_GAMMA =
  '<tspan font-style="italic">t</tspan><tspan dy="3" font-size="80%" font-style="italic">γ</tspan><tspan dy="-3">&#8203;</tspan>';

/**
 * Gridlines, tick labels and a title around a plotting area.
 * box: {left, top, width, height}; x, y: scales; options: counts of ticks (0: none), what to say under and above.
 */
export function axes(
  { left, top, width, height },
  x,
  y,
  { title = "", note = "", xTicks = 5, yTicks = 4, xTitle = "", xLabels = true } = {},
) {
  const bottom = top + height;
  let out = "";
  if (title)
    out += text(left, top - 10, title + (note ? tag("tspan", { class: "rv-note", dx: 6 }, note) : ""), {
      class: "rv-title",
    });
  for (const value of yTicks ? y.ticks(yTicks) : []) {
    const at = y(value);
    if (at < top - 1 || at > bottom + 1) continue;
    out += tag("path", { class: "rv-grid", d: `M${px(left)} ${px(at)}h${px(width)}` });
    out += text(left - 6, at + 3.5, y.say(value), { class: "rv-tick", "text-anchor": "end" });
  }
  const ticks = xTicks ? x.ticks(xTicks) : [];
  for (const value of ticks) {
    const at = x(value);
    if (at < left - 1 || at > left + width + 1) continue;
    out += tag("path", { class: "rv-grid", d: `M${px(at)} ${px(bottom)}v4` });
    if (xLabels) out += text(at, bottom + 16, x.say(value), { class: "rv-tick", "text-anchor": "middle" });
  }
  out += tag("path", { class: "rv-axis", d: `M${px(left)} ${px(bottom)}h${px(width)}` });
  if (xTitle) out += text(left + width, bottom + 31, xTitle, { class: "rv-tick", "text-anchor": "end" });
  return out;
}

/** What is drawn inside the box and cut off at its edge. */
export const clipped = ({ left, top, width, height }, ...content) =>
  tag(
    "svg",
    { x: left, y: top, width, height, viewBox: [left, top, width, height].map(px).join(" "), overflow: "hidden" },
    ...content,
  );

/** Positions moved apart until neighbours are at least `gap` away from each other, inside [low, high] where they fit. */
export function spread(positions, gap, low, high) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]);
  const out = [...positions];
  for (let k = 1; k < order.length; k++) out[order[k]] = Math.max(out[order[k]], out[order[k - 1]] + gap);
  const over = order.length ? out[order.at(-1)] - high : 0;
  if (over > 0) {
    out[order.at(-1)] -= over;
    for (let k = order.length - 2; k >= 0; k--) out[order[k]] = Math.min(out[order[k]], out[order[k + 1]] - gap);
  }
  return out.map((y) => Math.max(y, low));
}
