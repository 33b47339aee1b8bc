// @ts-check
// Draws the Plotly figures of a static page: the page holds their JSON, and one copy of Plotly, of which only the charts in
// two dimensions, draws them: first those near the screen, then, when the formulas are set, the others while nothing else
// happens, so that all are there when the page is printed. Pages without figures never load it.

import { alive, idle } from "./alive.mjs";

const SOURCE = new URL("vendor/plotly/plotly-cartesian.min.js", import.meta.url);
const PAPER = 640; // pixels of a figure on paper
const LONGEST_WAIT = 500; // ms after which a plot in sight waits no longer for the page to be idle
const NARROW = 520; // pixels below which a legend is set smaller

/**
 * What a page says of a plot in Plotly's JSON, as far as it is read here.
 * @typedef {{text: string}} Title
 * @typedef {{title?: Title, range?: number[], ticktext?: string[], automargin?: boolean}} Axis
 * @typedef {{name?: string, orientation?: string, textposition?: string, x: number[], y?: (number | string)[],
 *   text: string[]}} Trace
 * @typedef {{text: string, y: number, yref?: string, textangle?: number}} Note
 * @typedef {{[axis: `${"x" | "y"}axis${string}`]: Axis | undefined, width?: number, height?: number,
 *   margin?: Record<string, number>, font?: object, legend?: {font?: object}, annotations?: Note[], template?: {layout?: Layout}, meta?: {dark?: Palette}}} Layout
 * @typedef {{data: Trace[], layout: Layout}} Plot
 * @typedef {Record<string, string>} Palette colour on a light page: colour on a dark one
 * @typedef {{react: (box: Element, data: Trace[], layout: Layout, config: object) => Promise<unknown>}} Plotly
 */

/** @type {Promise<Plotly> | undefined} */
let plotly;
/** @type {() => Promise<Plotly>} */
const load = () =>
  (plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SOURCE.href;
    script.onload = () => resolve(/** @type {any} */ (window).Plotly);
    script.onerror = () => reject(new Error("Plotly could not be loaded"));
    document.head.append(script);
  }));

/** @type {(...channels: string[]) => string} */
const hex = (...channels) => `#${channels.map((c) => Number(c).toString(16).padStart(2, "0")).join("")}`;
const channels = (/** @type {string} */ colour) =>
  [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(", ");

/** A plot's JSON in the colours of a dark page, which it brings with it. @type {(json: string, dark: Palette) => string} */
const darkened = (json, dark) =>
  json
    .replace(/#[0-9a-f]{6}\b/gi, (colour) => dark[colour.toLowerCase()] ?? colour)
    .replace(/(rgba?\()(\d+), ?(\d+), ?(\d+)/g, (all, head, r, g, b) =>
      dark[hex(r, g, b)] ? head + channels(dark[hex(r, g, b)]) : all,
    );

/** Broken into lines of at most so many letters, between words. @type {(text: string, letters: number) => string} */
function wrapped(text, letters) {
  const lines = [""];
  for (const word of text.split(/ +/)) {
    const line = lines[lines.length - 1];
    if (line && line.replace(/<[^>]*>/g, "").length + word.length + 1 > letters) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.join("<br>");
}

const LETTER = 0.54; // of its size: the width of a letter, on average
/** @type {(pixels: number, size: number) => number} */
const across = (pixels, size) => Math.max(8, Math.floor(pixels / (LETTER * size)));

/**
 * A horizontal bar's text, cut short where the room beside the bar ends.
 * @type {(bars: Trace, range: number[], room: number) => string[]}
 */
function beside({ x, text }, [from, to], room) {
  return text.map((words, i) => {
    const letters = across((room * (to - x[i])) / (to - from), 14);
    return words.length > letters ? `${words.slice(0, letters - 1).trimEnd()}…` : words;
  });
}

/**
 * The plot in a width: titles, the legend and what stands beside bars are broken or cut short where they would not fit.
 * @type {(plot: Plot, width: number) => Plot}
 */
function fitted({ data, layout }, width) {
  const columns = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key)).length || 1;
  const height = layout.height ?? layout.template?.layout?.height ?? 380;
  const margin = { ...layout.template?.layout?.margin, ...layout.margin };
  const longest = Math.max(0, ...(layout.yaxis?.ticktext ?? []).map((words) => words.length));
  const left = Math.max(46, 20 + LETTER * 14 * longest); // of the numbers or words at the side
  for (const key of Object.keys(layout)) {
    const title = /^[xy]axis\d*$/.test(key) ? layout[/** @type {"xaxis"} */ (key)]?.title : undefined;
    if (title?.text)
      title.text = wrapped(
        title.text,
        key[0] === "x" ? across((width - left - 24) / columns, 14) : across(height - 130, 14),
      );
  }
  for (const note of layout.annotations ?? [])
    if (note.yref === "paper" && !note.textangle) {
      note.text = wrapped(note.text, across(width / columns - 12, 13));
      if (note.y >= 1) margin.t = Math.max(margin.t, 10 + 17 * note.text.split("<br>").length);
    }
  for (const trace of data) {
    if (trace.name) trace.name = wrapped(trace.name, across(width - 80, 12));
    if (trace.orientation === "h" && trace.textposition === "outside" && layout.xaxis?.range)
      trace.text = beside(trace, layout.xaxis.range, width - left - 24);
  }
  if (width < NARROW) {
    layout.legend = { ...layout.legend, font: { ...layout.legend?.font, size: 12 } };
    // A margin that makes room for the numbers at its side would move the legend, whose rows would move the margin.
    const words = layout.yaxis?.ticktext || data.some((trace) => typeof trace.y?.[0] === "string");
    if (layout.yaxis && !words) {
      const title = layout.yaxis.title?.text ?? "";
      layout.yaxis = { ...layout.yaxis, automargin: false };
      margin.l = title ? 36 + 18 * title.split("<br>").length : 40;
    }
  }
  return { data, layout: { ...layout, margin, width, height } };
}

const drawnAt = new Map(); // the width that a figure was drawn for
let printing = false;

/** Draws a plot, or draws it again for another width, theme or medium. @param {HTMLElement} box */
async function draw(box, paper = printing) {
  const library = /** @type {Plotly | undefined} */ (/** @type {any} */ (window).Plotly) ?? (await load());
  const source = box.querySelector("script")?.textContent ?? "{}";
  const isDark = !paper && document.documentElement.dataset.theme === "dark";
  const figure = JSON.parse(isDark ? darkened(source, JSON.parse(source).layout.meta?.dark ?? {}) : source);
  const { color, fontFamily } = getComputedStyle(document.body);
  const { data, layout } = fitted(figure, paper ? PAPER : box.clientWidth);
  const font = { ...layout.font, family: fontFamily, color: paper ? "#1f2933" : color };
  const drawing = box.querySelector(":scope > div") ?? box.appendChild(document.createElement("div"));
  box.dataset.drawn = "";
  drawnAt.set(box, box.clientWidth);
  await library.react(drawing, data, { ...layout, font }, { displayModeBar: false, scrollZoom: false });
}

const figures = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".rv-plotly")]);
const waiting = new Set(figures);
const first = (/** @type {HTMLElement} */ box) => waiting.delete(box) && draw(box);

const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, boundingClientRect, target } of entries)
      if (isIntersecting) near(/** @type {HTMLElement} */ (target), boundingClientRect);
  },
  { rootMargin: "600px" },
);
figures.forEach((box) => seen.observe(box));

/**
 * One that is in sight, or soon will be: drawing takes as long as many frames, in which no slider would move.
 * @type {(box: HTMLElement, place: DOMRect) => Promise<unknown>}
 */
async function near(box, { top, bottom }) {
  await alive();
  await idle(top < innerHeight && bottom > 0 ? LONGEST_WAIT : undefined);
  return first(box);
}

/** The others, one at a time, when the browser has nothing else to do. */
const rest = async () => {
  const [next] = waiting;
  if (next) await first(next);
  if (waiting.size)
    alive()
      .then(() => idle())
      .then(rest);
};
const typeset = () =>
  !document.querySelector(".math") || "typeset" in document.documentElement.dataset
    ? Promise.resolve()
    : new Promise((resolve) => addEventListener("typeset", resolve, { once: true }));
if (figures.length)
  addEventListener("load", () =>
    setTimeout(
      () =>
        typeset()
          .then(() => idle())
          .then(rest),
      1500,
    ),
  );

const again = (/** @type {HTMLElement[]} */ boxes) => boxes.forEach((box) => "drawn" in box.dataset && draw(box));
const sizes = new ResizeObserver((entries) => {
  const other = (/** @type {ResizeObserverEntry} */ { target }) =>
    !printing && drawnAt.get(target) !== target.clientWidth && target.clientWidth;
  again(entries.filter(other).map(({ target }) => /** @type {HTMLElement} */ (target)));
});
figures.forEach((box) => sizes.observe(box));
// Light or dark: the theme's switch and the system's both end in another attribute of the page.
new MutationObserver(() => again(figures)).observe(document.documentElement, {
  attributes: true,
  attributeFilter: ["data-theme"],
});
addEventListener("beforeprint", () => {
  printing = true;
  figures.forEach((box) => (waiting.delete(box), draw(box)));
});
addEventListener("afterprint", () => {
  printing = false;
  again(figures);
});
