// @ts-check
// Brings the explorables of a static page to life: no kernel, no widget manager, no other host.
//
// A figure says which explorable it is and in which state it opens (data-explorable, data-state); the module of that name
// lies beside this file. The state is kept in the page's address (see state.mjs), so that it can be linked to.

import { decode, encode, sanitise } from "./state.mjs";
import { explorables } from "./ui.mjs";

const REST = 400; // ms for which nothing moves before the address is written: that can take longer than a frame
const NEAR = 600; // pixels from the screen within which a figure comes to life

/** The few methods of a widget's model that an explorable uses, over plain values. */
class Model {
  #values;
  /** @type {Map<string, (() => void)[]>} */
  #listeners = new Map();
  /** @param {State} values @param {string} name */
  constructor(values, name) {
    this.#values = values;
    this.name = name;
  }
  get = (/** @type {string} */ key) => this.#values[key];
  /** @type {(key: string, value: unknown) => void} */
  set = (key, value) => {
    if (JSON.stringify(this.#values[key]) === JSON.stringify(value)) return;
    this.#values[key] = value;
    for (const listener of this.#listeners.get(`change:${key}`) ?? []) listener();
  };
  /** @type {(event: string, listener: () => void) => void} */
  on = (event, listener) => void this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  /** @type {(event: string, listener: () => void) => void} */
  off = (event, listener) =>
    void this.#listeners.set(
      event,
      (this.#listeners.get(event) ?? []).filter((other) => other !== listener),
    );
  save_changes = () => saveSoon();
  link = () => (saveNow(), location.href);
  opened = () => this.#opened;

  #opened = {};
  #state = () => Object.fromEntries(Object.keys(this.get("initial")).map((key) => [key, this.get(key)]));
  fragment = () => encode(this.name, this.get("controls"), this.#state(), this.get("initial"));
  read = (/** @type {string} */ fragment) => {
    const state = decode(fragment, this.name, this.get("controls"), this.get("initial"));
    for (const [key, value] of Object.entries(state)) this.set(key, value);
    this.#opened = this.#state();
  };
}

/** @type {Model[]} */
const models = [];
let timer = 0;

const saveSoon = () => {
  clearTimeout(timer);
  timer = setTimeout(saveNow, REST);
};

/** Writes all states into the address, leaving what is not ours in it alone: a section's anchor while nothing was moved. */
function saveNow() {
  clearTimeout(timer);
  timer = 0;
  const ours = models.flatMap((model) => model.fragment());
  const names = new Set(models.map((model) => model.name));
  const others = location.hash
    .slice(1)
    .split("&")
    .filter((part) => part && !names.has(part.split(".")[0]));
  const kept = ours.length ? others.filter((part) => part.includes("=")) : others;
  const hash = [...kept, ...ours].join("&");
  if (hash !== location.hash.slice(1))
    history.replaceState(history.state, "", hash ? `#${hash}` : location.pathname + location.search);
}

/** Draws a figure at once where its page has loaded its module. @type {(figure: HTMLElement, model: Model) => Promise<void>} */
async function mount(figure, model) {
  const kind = figure.dataset.explorable ?? "";
  if (!isStyled) await style();
  const explorable = explorables.get(kind) ?? (await import(`./${kind}.mjs`)).default;
  const stage = document.createElement("div");
  figure.replaceChildren(stage);
  explorable.render({ model, el: stage });
  figure.dataset.mounted = "";
}

const isStyled = document.querySelector('link[href*="explore.css"], link[href*="book.css"]');
/** @type {Promise<unknown> | undefined} */
let styled;
/** Loads the style sheet once, which a page of the book brings by itself. */
const style = () =>
  (styled ??= new Promise((onload) => {
    const link = { rel: "stylesheet", href: new URL("explore.css", import.meta.url).href, onload };
    document.head.append(Object.assign(document.createElement("link"), link));
  }));

// A figure comes to life shortly before it is seen, so that a page with many opens as fast as one with none.
/** @type {Map<Element, Model>} */
const modelOf = new Map();

const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) {
        seen.unobserve(target);
        mount(/** @type {HTMLElement} */ (target), /** @type {Model} */ (modelOf.get(target)));
      }
  },
  { rootMargin: `${NEAR}px 0px` },
);

/** @type {Record<string, number>} */
const count = {};
for (const element of document.querySelectorAll("figure[data-explorable]")) {
  const figure = /** @type {HTMLElement} */ (element);
  const kind = figure.dataset.explorable ?? "";
  const nth = (count[kind] = (count[kind] ?? 0) + 1);
  const values = JSON.parse(figure.dataset.state ?? "{}");
  const model = new Model(
    { ...values, ...sanitise(values.controls, values, values.initial) },
    nth === 1 ? kind : `${kind}-${nth}`,
  );
  figure.id ||= `explore-${model.name}`;
  modelOf.set(figure, model);
  models.push(model);
  model.read(location.hash);
}
addEventListener("hashchange", () => models.forEach((model) => model.read(location.hash)));

// A link to a state is a link to its figure.
const linked = models.find((model) => location.hash.includes(`${model.name}.`));
if (linked) document.getElementById(`explore-${linked.name}`)?.scrollIntoView();

// The first figure near the screen is what a reader came for: it does not wait until the page has been painted.
const figures = /** @type {HTMLElement[]} */ ([...modelOf.keys()]);
const isNear = (/** @type {Element} */ figure) =>
  [...figure.getClientRects()].some(({ top, bottom }) => top < innerHeight + NEAR && bottom > -NEAR);
const first = figures.find(isNear);
for (const figure of figures)
  if (figure === first) mount(figure, /** @type {Model} */ (modelOf.get(figure)));
  else seen.observe(figure);
