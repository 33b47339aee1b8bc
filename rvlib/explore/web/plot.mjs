// @ts-check
// Drawing as text: each function returns SVG markup in pixels, so that a figure is a function of its state alone and the
// same code draws it in the page, in a widget and in the printed picture.

/** @typedef {number[] | Float64Array} Numbers */
/** @typedef {[number, number]} Pair from, to */
/** @typedef {{left: number, top: number, width: number, height: number}} Box in pixels */
/** @typedef {Record<string, string | number | boolean | undefined>} Attributes undefined and false: left out */
/**
 * A number ↦ pixels, and back by `invert`; `ticks` gives round values, and `say` writes one.
 * @typedef {((x: number) => number) & {invert: (pixels: number) => number, ticks: (count?: number) => number[], say: (x: number) => string}} Scale
 */
/**
 * Words that belong together in a row: their class and colour, the colour of a dot before them, the pixels before that.
 * @typedef {{words: string, class?: string, tone?: string, weight?: number, mark?: string, gap?: number}} Item
 */

/**
 * A pixel coordinate for an attribute: a tenth of a pixel is enough.
 * @param {number} x
 */
export const px = (x) => Math.round(x * 10) / 10;

/** @type {(x: number, low: number, high: number) => number} */
export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/**
 * An element as markup; a number among the attributes is taken for pixels.
 * @param {string} name
 * @param {Attributes} [attributes]
 * @param {...(string | undefined)} children markup
 * @returns {string}
 */
export const tag = (name, attributes = {}, ...children) => {
  let text = `<${name}`;
  for (const key in attributes) {
    const value = attributes[key];
    if (value !== undefined && value !== false) text += ` ${key}="${typeof value === "number" ? px(value) : value}"`;
  }
  return children.length ? `${text}>${children.join("")}</${name}>` : `${text}/>`;
};

// ---- numbers in words ---------------------------------------------------------------------------------------------------

/** @type {Record<string, string>} */
const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
/** @type {(exponent: number) => string} a power of ten */
export const power = (exponent) => `10${String(exponent).replace(/./g, (c) => RAISED[c])}`;

/**
 * A number to so many significant digits, with a real minus and powers of ten where they are shorter.
 * @param {number} x
 * @returns {string}
 */
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

/**
 * A number with a fixed count of decimals and a real minus.
 * @param {number} x
 * @returns {string}
 */
export const fixed = (x, digits = 2) => (Number(x.toFixed(digits)) < 0 ? "−" : "") + Math.abs(x).toFixed(digits);

// ---- scales -------------------------------------------------------------------------------------------------------------

/**
 * x ↦ pixels, linear.
 * @param {Pair} domain
 * @param {Pair} range in pixels
 * @returns {Scale}
 */
export function linear([from, to], [start, end]) {
  const slope = (end - start) / (to - from);
  let digits = 2; // that the ticks have
  const scale = (/** @type {number} */ x) => start + (x - from) * slope;
  scale.invert = (/** @type {number} */ p) => from + (p - start) / slope;
  scale.ticks = (count = 5) => {
    const rough = Math.abs(to - from) / count;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * ([1, 2, 5, 10].find((m) => m * unit >= rough * 0.999) ?? 10);
    const ticks = [];
    for (let k = Math.ceil(Math.min(from, to) / step - 1e-9); k * step <= Math.max(from, to) + 1e-9 * step; k++)
      ticks.push(k * step);
    digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return ticks;
  };
  scale.say = (/** @type {number} */ x) => (Math.abs(x) >= 1e5 ? number(x, 1) : fixed(x, Math.min(digits, 6)));
  return scale;
}

/**
 * x ↦ pixels, logarithmic; what is not positive lies far before the start.
 * @param {Pair} domain
 * @param {Pair} range in pixels
 * @returns {Scale}
 */
export function logarithmic([from, to], [start, end]) {
  const [low, high] = [Math.log10(from), Math.log10(to)];
  const slope = (end - start) / (high - low);
  const scale = (/** @type {number} */ x) => start + (Math.log10(Math.max(x, 1e-300)) - low) * slope;
  scale.invert = (/** @type {number} */ p) => 10 ** (low + (p - start) / slope);
  scale.ticks = (count = 5) => {
    const stride = Math.max(1, Math.ceil((high - low) / count));
    const ticks = [];
    for (let k = Math.ceil(low - 1e-9); k <= high + 1e-9; k++) if (k % stride === 0) ticks.push(10 ** k);
    return ticks;
  };
  scale.say = (/** @type {number} */ x) =>
    x >= 0.01 && x <= 1000 ? String(Number(x.toPrecision(3))) : power(Math.round(Math.log10(x)));
  return scale;
}

// ---- marks --------------------------------------------------------------------------------------------------------------

const NEAR = 0.1; // pixels, the rounding of a coordinate too: what lies nearer to a straight line cannot be told from it

/**
 * The `d` of a line through (x(xs[i]), y(ys[i])), within ±4000 pixels so that no renderer stumbles over a far point. Points
 * that the straight line between others passes within a tenth of a pixel are left out (Douglas and Peucker's way): a smooth
 * curve keeps a third of them, and is parsed and painted in less time.
 * @param {(x: number) => number} x
 * @param {(y: number) => number} y
 * @param {Numbers} xs
 * @param {Numbers} ys of the same length
 * @returns {string}
 */
export function line(x, y, xs, ys) {
  const across = Float64Array.from(xs, (value) => clamp(x(value), -4000, 4000));
  const up = Float64Array.from(ys, (value) => clamp(y(value), -4000, 4000));
  const kept = new Uint8Array(xs.length);
  kept[0] = kept[xs.length - 1] = 1;
  const spans = [[0, xs.length - 1]];
  for (let span = spans.pop(); span; span = spans.pop()) {
    const [from, to] = span;
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
    spans.push([from, farthest], [farthest, to]);
  }
  let d = "";
  for (let i = 0; i < xs.length; i++) if (kept[i]) d += `${d ? "L" : "M"}${px(across[i])} ${px(up[i])}`;
  return d;
}

/**
 * Text at a place, as markup.
 * @param {number} x
 * @param {number} y
 * @param {string} content markup
 * @param {Attributes} [attributes]
 */
export const text = (x, y, content, attributes = {}) => tag("text", { x, y, ...attributes }, content);

/**
 * A dot with a rim in the page's colour, so that it stands out from lines.
 * @param {number} x
 * @param {number} y
 * @param {string} tone a colour of explore.css
 * @param {number} [radius] in pixels
 */
export const dot = (x, y, tone, radius = 4.5) =>
  tag("circle", {
    cx: x,
    cy: y,
    r: radius,
    style: `fill:var(--rv-${tone});stroke:var(--rv-paper)`,
    "stroke-width": 1.5,
  });

// ---- words in the room there is -------------------------------------------------------------------------------------------
//
// No width is guessed: a page measures words in the font that it has. Where there is no page, for the printed picture, which
// is seen in fonts unknown, a character is taken to be as wide as in a wide font.

/** @type {Record<string, Pair>} */
const FONTS = { "rv-title": [13, 600], "rv-note": [11.5, 400], "rv-tick": [11, 400], "": [12, 400] }; // explore.css has them too
const WIDE = 0.6; // of the size
const kindOf = (/** @type {unknown} */ classes) =>
  Object.keys(FONTS).find((kind) => kind && String(classes ?? "").includes(kind)) ?? "";

let family = "";
/** @type {CanvasRenderingContext2D | undefined} */
let pen;
/** @type {Map<string, number>} */
const widths = new Map();

/**
 * The font of what is measured from now on; `afresh` where a font of that name may have loaded since.
 * @param {string} name
 */
export function useFont(name, afresh = false) {
  if (name === family && !afresh) return;
  family = name;
  widths.clear();
}

/** @type {(words: string, size: number, weight: number) => number} */
function widthOf(words, size, weight) {
  pen ??= globalThis.document?.createElement("canvas").getContext("2d") ?? undefined;
  const plain = words.replace(/&#8203;/g, "").replace(/&\w+;/g, "&");
  if (!pen || !family) return WIDE * size * plain.length;
  pen.font = `${weight} ${size}px ${family}`;
  return pen.measureText(plain.replace(/\d/g, "0")).width; // a figure's digits are all as wide as a nought
}

/**
 * Pixels that words take, which may be markup with <tspan>s.
 * @param {string} content
 * @param {unknown} [classes] of the text: which of the style sheet's sizes it has
 * @param {unknown} [weight] where it is not that of the class
 * @returns {number}
 */
export function measure(content, classes, weight) {
  const kind = kindOf(classes);
  const key = `${kind},${weight ?? ""},${content}`;
  const known = widths.get(key);
  if (known !== undefined) return known;
  const [size, usual] = FONTS[kind];
  const now = [{ size, weight: Number(weight ?? usual) }];
  let total = 0;
  for (const [, opened, closed, words] of content.matchAll(/<tspan([^>]*)>|(<\/tspan>)|([^<]+)/g)) {
    if (closed) now.pop();
    else if (words) total += widthOf(words, now[now.length - 1].size, now[now.length - 1].weight);
    else {
      const attribute = Object.fromEntries(
        [...opened.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
      );
      const [size, usual] = attribute.class
        ? FONTS[kindOf(attribute.class)]
        : [now[now.length - 1].size, now[now.length - 1].weight];
      const share = attribute["font-size"]?.endsWith("%") ? parseFloat(attribute["font-size"]) / 100 : 1;
      now.push({ size: size * share, weight: Number(attribute["font-weight"] ?? usual) });
      total += Number(attribute.dx ?? 0);
    }
  }
  if (widths.size > 3000) widths.clear();
  widths.set(key, total);
  return total;
}

/**
 * The first of several ways to say a thing that is no wider than `width`; else the last.
 * @param {string[]} ways
 * @param {number} width
 * @param {string} [classes]
 * @param {number} [weight]
 */
export const shortened = (ways, width, classes, weight) =>
  ways.find((words) => measure(words, classes, weight) <= width) ?? ways[ways.length - 1];

/**
 * Text moved sideways by as much as it takes to lie in [low, high]; drawn closer where it is wider than that.
 * @param {number} x
 * @param {number} y
 * @param {string} content markup
 * @param {number[]} room [low, high]
 * @param {Attributes} [attributes]
 */
export function fitted(x, y, content, [low, high], attributes = {}) {
  const width = measure(content, attributes.class, attributes["font-weight"]);
  const anchor = attributes["text-anchor"];
  const share = anchor === "middle" ? 0.5 : anchor === "end" ? 1 : 0;
  const room = high - low;
  const at = Math.max(low, Math.min(x - share * width, high - width)) + share * Math.min(width, room);
  const closer = width > room ? { textLength: room, lengthAdjust: "spacingAndGlyphs" } : {};
  return text(at, y, content, { ...attributes, ...closer });
}

/**
 * Words in rows no wider than `width`, the first at (x, y). Rows are broken between items, and at spaces where an item alone
 * is too wide.
 * @param {number} x the rows' left edge, or their middle
 * @param {number} y
 * @param {number} width
 * @param {Item[]} items
 * @param {{anchor?: "start" | "middle", leading?: number}} [options]
 * @returns {{markup: string, height: number}} height: of all rows but the first
 */
export function rows(x, y, width, items, { anchor = "start", leading = 15 } = {}) {
  /** @type {{item: Item, markup: string, before: number}[][]} */
  const lines = [[]];
  let used = 0;
  for (const item of items) {
    const { words, mark, class: kind, weight } = item;
    const space = measure(" ", kind, weight);
    const dot = mark ? `<tspan style="fill:var(--rv-${mark})" font-weight="600">● </tspan>` : "";
    const broken = measure(dot + words, kind, weight) > width && !words.includes("<");
    (broken ? words.split(" ") : [words]).forEach((part, i) => {
      const piece = i ? part : dot + part;
      const [wide, gap] = [measure(piece, kind, weight), i ? space : (item.gap ?? 14)];
      if (used && used + gap + wide > width) {
        lines.push([]);
        used = 0;
      }
      const line = lines[lines.length - 1];
      const last = line[line.length - 1];
      if (i && last) last.markup += ` ${piece}`;
      else line.push({ item, markup: last ? ` ${piece}` : piece, before: last ? gap - space : 0 });
      used += (last ? gap : 0) + wide;
    });
  }
  const room = anchor === "middle" ? [x - width / 2, x + width / 2] : [x, x + width];
  const markup = lines.map((line, i) => {
    const spans = line.map(({ item: { class: kind, tone, weight }, markup, before }) =>
      tag(
        "tspan",
        { class: kind, dx: before || undefined, style: tone && `fill:var(--rv-${tone})`, "font-weight": weight },
        markup,
      ),
    );
    return fitted(x, y + i * leading, spans.join(""), room, { "text-anchor": anchor === "start" ? undefined : anchor });
  });
  return { markup: markup.join(""), height: (lines.length - 1) * leading };
}

/** t with a subscript γ, as SVG or HTML markup. */
export const T_GAMMA =
  '<tspan font-style="italic">t</tspan><tspan dy="3" font-size="80%" font-style="italic">γ</tspan><tspan dy="-3">&#8203;</tspan>';

/**
 * Gridlines, tick labels and a title around a plotting area.
 * @param {Box} box
 * @param {Scale} x
 * @param {Scale} y
 * @param {{title?: string, note?: string, xTicks?: number, yTicks?: number, xTitle?: string, xLabels?: boolean}} [options] counts of ticks (0: none), what to say under and above
 * @returns {string}
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
    out += fitted(
      left,
      top - 10,
      title + (note ? tag("tspan", { class: "rv-note", dx: 6 }, note) : ""),
      [left, left + width],
      { class: "rv-title" },
    );
  for (const value of yTicks ? y.ticks(yTicks) : []) {
    const at = y(value);
    if (at < top - 1 || at > bottom + 1) continue;
    out += tag("path", { class: "rv-grid", d: `M${px(left)} ${px(at)}h${px(width)}` });
    out += text(left - 6, at + 3.5, y.say(value), { class: "rv-tick", "text-anchor": "end" });
  }
  const ticks = xTicks ? x.ticks(xTicks) : [];
  let free = -Infinity; // where the next label may begin
  for (const value of ticks) {
    const at = x(value);
    if (at < left - 1 || at > left + width + 1) continue;
    out += tag("path", { class: "rv-grid", d: `M${px(at)} ${px(bottom)}v4` });
    const words = x.say(value);
    const half = measure(words, "rv-tick") / 2;
    if (!xLabels || at - half < free) continue;
    out += text(at, bottom + 16, words, { class: "rv-tick", "text-anchor": "middle" });
    free = at + half + 4;
  }
  out += tag("path", { class: "rv-axis", d: `M${px(left)} ${px(bottom)}h${px(width)}` });
  if (xTitle)
    out += fitted(left + width, bottom + 31, xTitle, [Math.min(left, 4), left + width], {
      class: "rv-tick",
      "text-anchor": "end",
    });
  return out;
}

/**
 * What is drawn inside the box and cut off at its edge.
 * @param {Box} box
 * @param {...(string | undefined)} content markup
 */
export const clipped = ({ left, top, width, height }, ...content) =>
  tag(
    "svg",
    { x: left, y: top, width, height, viewBox: [left, top, width, height].map(px).join(" "), overflow: "hidden" },
    ...content,
  );

/**
 * Positions moved apart until neighbours are at least `gap` away from each other, inside [low, high] where they fit.
 * @param {number[]} positions
 * @param {number} gap
 * @param {number} low
 * @param {number} high
 * @returns {number[]} in the order of `positions`
 */
export function spread(positions, gap, low, high) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]);
  const out = [...positions];
  for (let k = 1; k < order.length; k++) out[order[k]] = Math.max(out[order[k]], out[order[k - 1]] + gap);
  const last = order[order.length - 1];
  const over = order.length ? out[last] - high : 0;
  if (over > 0) {
    out[last] -= over;
    for (let k = order.length - 2; k >= 0; k--) out[order[k]] = Math.min(out[order[k]], out[order[k + 1]] - gap);
  }
  return out.map((y) => Math.max(y, low));
}
