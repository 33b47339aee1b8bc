// @ts-check
// What every explorable has around its drawing: native sliders with labels and readouts, reset, pins, a link to the state;
// and the loop from an input event to a painted figure. An explorable itself is four functions of its state:
//
//   compute(state) → view,   draw(view, width, id) → {height, parts},   readouts(view) → [[label, value]],   describe(view) → text
//
// A drawing may have a probe(x, y) too: markup that reads off its values where the pointer is.

import { MAX_PINS, sanitise } from "./state.mjs";
import { number, useFont } from "./plot.mjs";
import { results } from "./work.mjs";

/** @typedef {Slider & {key: string, group: string, label: string, help?: string}} SliderControl */
/**
 * What an explorable's compute() makes of a state S, for its own draw(): the state that is drawn, and what limits its controls.
 * @template [S=any]
 * @typedef {{state: S, limits?: Record<string, Limit>}} View
 */
/** @typedef {{value?: number, max?: number, hint?: string, idle?: boolean, words?: string}} Limit where a setting could not be reached as it is; idle: where none changes anything, and the hint says why; words: what the setting is called */
/** @typedef {[label: string, value: string, tone?: string, help?: string]} Readout label and value are markup */
/** @typedef {{height: number, parts: (string | undefined)[], probe?: (x: number, y: number) => string}} Drawing parts: markup, in pixels */
/** @typedef {{element: HTMLElement, show: (value: any, limit?: Limit) => void, fit?: () => void}} Part of the controls; fit: to the width it has */
/**
 * What the frame asks of a widget's model.
 * @typedef {{get: (key: string) => any, set: (key: string, value: any) => void, on: (event: string, listener: () => void) => void,
 *   off: (event: string, listener: () => void) => void, save_changes: () => void, link?: () => string,
 *   opened?: () => State}} Model link, opened: a page's address, and the state in the address that it was opened by
 */
/**
 * What an explorable's own set-up is given, and gives back: elements after the main controls, what to do when it ends.
 * @template [S=any]
 * @typedef {{id: string, svg: SVGSVGElement, set: (changes: Partial<S>) => void, redraw: () => void, state: () => S,
 *   button: (label: string, onclick: () => void, title?: string) => HTMLButtonElement, controls: Control[]}} Frame
 * @typedef {{first?: HTMLElement[], stop?: () => void}} Extra
 */
/**
 * An explorable whose state is an S, of which it makes a view V. prepare: what of a view takes longer than a frame, given to
 * compute(); keys: of the state that it depends on.
 * @template [S=any]
 * @template {View<S>} [V=any]
 * @typedef {{name: string, prepare?: (state: S) => Generator<any>, keys?: (keyof S & string)[], compute: (state: S, data?: any) => V,
 *   draw: Draw<V>, readouts: Readouts<V>, describe: Describe<V>, pinLabel?: (pin: S, view: V, i: number) => string,
 *   setup?: (frame: Frame<S>) => Extra}} Definition
 */
/**
 * @template V
 * @typedef {(view: V, width: number, id: string) => Drawing} Draw
 */
/**
 * @template V
 * @typedef {(view: V) => Readout[]} Readouts
 */
/**
 * @template V
 * @typedef {(view: V) => string} Describe
 */

const SVG = "http://www.w3.org/2000/svg";

let instances = 0;

/** The explorables whose modules have been loaded, by name. @type {Map<string, {render: (where: {model: any, el: HTMLElement}) => () => void}>} */
export const explorables = new Map();

/**
 * An element with properties, attributes (where the name has a dash, or the element has no such property) and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.includes("-") && key !== "list") Object.assign(element, { [key]: value });
    else if (value !== undefined) element.setAttribute(key, value);
  }
  for (const child of children) if (child !== undefined && child !== null) element.append(child);
  return element;
}

// ---- one control --------------------------------------------------------------------------------------------------------

/** @type {(control: SliderControl, value: number) => number} */
const toPosition = (control, value) => {
  if (!control.log) return value;
  return value > 0 ? Math.log10(value) : Math.log10(control.min) - control.step;
};

/** @type {(control: SliderControl, position: number) => number} */
const fromPosition = (control, position) => {
  if (!control.log) return control.whole ? Math.round(position) : Number(position.toFixed(10));
  if (control.zero && position < Math.log10(control.min) - control.step / 2) return 0;
  const value = Number((10 ** position).toPrecision(4));
  return Math.min(control.max, Math.max(control.min, control.whole ? Math.round(value) : value));
};

/**
 * A slider's value in words.
 * @param {SliderControl} control
 * @param {number} value
 * @returns {string}
 */
export function say(control, value) {
  if (control.whole) return String(value).replace("-", "−");
  if (control.log) return value >= 1e4 && Number.isInteger(Math.log10(value)) ? number(value, 1) : number(value, 3);
  const digits = Math.max(0, Math.ceil(-Math.log10(control.step) - 1e-9));
  return (Number(value.toFixed(digits)) < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
}

/** Why a control changes nothing, or is not as it was set, said beside it; and whether it can be moved. */
class Reason {
  /** @param {string} id of the control @param {HTMLInputElement[]} inputs */
  constructor(id, inputs) {
    this.inputs = inputs;
    this.element = h("span", { className: "rv-hint", id: `${id}-hint` });
    for (const input of inputs) input.setAttribute("aria-describedby", this.element.id);
    this.said = "";
    this.idle = false;
  }
  /** @type {(around: HTMLElement, limit: Limit) => void} */
  show(around, { hint = "", idle = false }) {
    if (hint !== this.said) this.element.textContent = this.said = hint;
    if (idle === this.idle) return;
    this.idle = idle;
    for (const input of this.inputs) input.disabled = idle;
    around.classList.toggle("rv-idle", idle);
  }
}

/** @type {(control: SliderControl, id: string, onInput: (value: number) => void) => Part} */
function slider(control, id, onInput) {
  const [low, high] = [
    control.zero ? toPosition(control, 0) : toPosition(control, control.min),
    toPosition(control, control.max),
  ];
  const input = h("input", {
    type: "range",
    id,
    min: low,
    max: high,
    step: control.step,
    "data-key": control.key,
  });
  const output = h("output", { htmlFor: id, "aria-live": "off" });
  const reason = new Reason(id, [input]);
  const label = h("label", { htmlFor: id, innerHTML: control.label, title: control.help });
  const element = h(
    "div",
    { className: `rv-slider${control.tone ? ` rv-${control.tone}` : ""}` },
    label,
    output,
    input,
    reason.element,
  );
  const share = (/** @type {number} */ value) =>
    `${((100 * (toPosition(control, value) - low)) / (high - low)).toFixed(2)}%`;
  input.addEventListener("input", () => onInput(fromPosition(control, Number(input.value))));
  /** @type {Record<string, unknown>} */
  const shown = {};
  /** @type {<T>(key: string, value: T, apply: (value: T) => void) => void} */
  const once = (key, value, apply) => {
    if (shown[key] !== value) apply(value);
    shown[key] = value;
  };
  return {
    element,
    /** value: the setting; limit: {value, max, hint} where the setting could not be reached as it is. */
    show(value, limit = {}) {
      once("value", value, () => {
        input.value = String(toPosition(control, value));
        input.style.setProperty("--at", share(value));
      });
      const words = limit.words ?? say(control, limit.value ?? value);
      once("words", words, () => {
        output.textContent = words;
        input.setAttribute("aria-valuetext", words);
      });
      once("max", limit.max, (max) =>
        input.style.setProperty(
          "--max",
          max === undefined ? "100%" : share(Math.min(control.max, Math.max(control.min, max))),
        ),
      );
      reason.show(element, limit);
    },
  };
}

/** @type {(control: Control, id: string, onInput: (value: boolean) => void) => Part} */
function toggle(control, id, onInput) {
  const input = h("input", { type: "checkbox", id, "data-key": control.key });
  input.addEventListener("input", () => onInput(input.checked));
  const reason = new Reason(id, [input]);
  const element = h(
    "div",
    { className: "rv-toggle" },
    input,
    h("label", { htmlFor: id, innerHTML: control.label, title: control.help }),
    reason.element,
  );
  return {
    element,
    show(value, limit = {}) {
      input.checked = value;
      reason.show(element, limit);
    },
  };
}

/**
 * One of several: radio buttons where they stand in one row, else a select.
 * @type {(control: Choice & {key: string, label: string}, id: string, onInput: (value: string) => void) => Part}
 */
function choice(control, id, onInput) {
  const inputs = control.options.map(([value, label]) => {
    const input = h("input", { type: "radio", name: id, value, id: `${id}-${value}`, "data-key": control.key });
    input.addEventListener("input", () => onInput(value));
    return { input, label: h("label", { htmlFor: input.id, innerHTML: label }) };
  });
  const row = h(
    "div",
    { className: "rv-radios", role: "radiogroup", "aria-label": control.label },
    ...inputs.map(({ input, label }) => h("span", {}, input, label)),
  );
  const select = h(
    "select",
    { "aria-label": control.label, "data-key": control.key },
    ...inputs.map(({ input, label }) => h("option", { value: input.value, textContent: label.textContent })),
  );
  select.addEventListener("input", () => onInput(select.value));
  const element = h("div", { className: "rv-choice" }, row);
  return {
    element,
    show(value) {
      for (const { input } of inputs) input.checked = input.value === value;
      select.value = value;
    },
    fit() {
      const focused = element.contains(document.activeElement);
      element.replaceChildren(row);
      if (row.scrollWidth > row.clientWidth) element.replaceChildren(select);
      if (focused) /** @type {HTMLElement | null} */ (element.querySelector("select, input:checked"))?.focus();
    },
  };
}

/** @type {Record<string, (control: any, id: string, onInput: (value: any) => void) => Part>} */
const KINDS = { slider, toggle, choice };

// ---- the explorable -----------------------------------------------------------------------------------------------------

/**
 * An explorable: its four functions, and `render`, which puts it into an element and returns what takes it out again.
 * @template S
 * @template {View<S>} V
 * @param {Definition<S, V>} definition
 * @returns {Definition<S, V> & {render: (where: {model: Model, el: HTMLElement}) => () => void}}
 */
export function explorable({ name, prepare, keys = [], compute, draw, readouts, describe, pinLabel, setup }) {
  /** @param {{model: Model, el: HTMLElement}} where */
  function render({ model, el }) {
    const id = `rv-${name}-${++instances}`;
    /** @type {Control[]} */
    const controls = model.get("controls");
    /** @type {State} */
    const initial = model.get("initial");
    const current = () => {
      const values = Object.fromEntries([...controls.map((c) => c.key), "pins"].map((key) => [key, model.get(key)]));
      return /** @type {S & State} */ (sanitise(controls, values, initial));
    };
    let state = current();
    let width = 0;
    let frame = 0;
    let saving = 0;
    let font = ""; // of the drawing's words

    const svg = document.createElementNS(SVG, "svg");
    const [ink, overlay] = [document.createElementNS(SVG, "g"), document.createElementNS(SVG, "g")];
    svg.setAttribute("class", "rv-svg");
    svg.setAttribute("role", "img");
    svg.append(ink, overlay);
    /** @type {string[]} */
    const layers = [];
    /** @type {Drawing["probe"]} */
    let probe; // what the drawing says of a point, where it says something
    const figure = h("div", { className: "rv-figure" }, svg);
    const tiles = h("dl", { className: "rv-readouts" });
    const spoken = h("div", { className: "rv-spoken", role: "status" }); // what a screen reader says of the readouts
    const chips = h("div", { className: "rv-pins", role: "list", "aria-label": "Pinned settings" });
    const buttons = h("div", { className: "rv-actions" });
    /** @type {Frame["button"]} */
    const button = (label, onclick, title = "") => h("button", { type: "button", onclick, title, innerHTML: label });

    /** Sets what a reader chose. */
    const set = (/** @type {State} */ changes) => {
      for (const [key, value] of Object.entries(changes)) {
        if (JSON.stringify(state[key]) === JSON.stringify(value)) continue;
        state = { ...state, [key]: value };
        model.set(key, value);
      }
      redraw();
      // The kernel hears of it ten times a second, the address once nothing moves; both of the last value.
      saving ||= setTimeout(() => ((saving = 0), model.save_changes()), 100);
    };

    const parts = Object.fromEntries(
      controls.map((control) => [
        control.key,
        KINDS[control.kind](control, `${id}-${control.key}`, (value) => set({ [control.key]: value })),
      ]),
    );
    /** A fieldset for each group among the given controls. @type {(members: Control[]) => HTMLFieldSetElement[]} */
    const grouped = (members) =>
      [...new Set(members.map((c) => c.group))].map((group) =>
        h(
          "fieldset",
          { "data-group": group },
          h("legend", { innerHTML: group }),
          h(
            "div",
            { className: "rv-group" },
            ...members.filter((c) => c.group === group).map((c) => parts[c.key].element),
          ),
        ),
      );

    const paint = () => {
      frame = 0;
      if (!width) return;
      useFont(font);
      const made = prepared?.of(state);
      const view = compute(state, made?.data);
      svg.setAttribute("aria-busy", String(made?.waiting ?? false));
      const drawing = draw(view, width, id);
      const { height, parts: drawn } = drawing;
      probe = drawing.probe;
      // An attribute set again to what it was would lay the whole figure out again.
      if (svg.getAttribute("viewBox") !== `0 0 ${width} ${height}`) {
        svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
        svg.setAttribute("width", String(width));
        svg.setAttribute("height", String(height));
      }
      // Only the parts that changed are parsed, laid out and painted again.
      while (ink.childElementCount < drawn.length) ink.append(document.createElementNS(SVG, "g"));
      for (let i = 0; i < ink.childElementCount; i++) {
        const markup = drawn[i] ?? "";
        if (layers[i] !== markup) ink.children[i].innerHTML = layers[i] = markup;
      }
      svg.setAttribute("aria-label", describe(view));
      for (const control of controls) parts[control.key].show(state[control.key], view.limits?.[control.key]);
      showReadouts(readouts(view));
      if (initial.pins) showPins(view);
    };
    svg.addEventListener("pointermove", (event) => probe && (overlay.innerHTML = probe(event.offsetX, event.offsetY)));
    svg.addEventListener("pointerleave", () => (overlay.innerHTML = ""));
    const redraw = () => (frame ||= requestAnimationFrame(paint));
    const prepared = prepare && results(name, prepare, keys, redraw);

    /** @type {HTMLElement[]} */
    let values = [];
    const showReadouts = (/** @type {Readout[]} */ rows) => {
      if (rows.length !== values.length) {
        values = rows.map(() => h("dd"));
        tiles.replaceChildren(
          ...rows.map(([label, , tone, help], i) =>
            h(
              "div",
              { className: tone ? `rv-${tone}` : "", title: help ?? "" },
              h("dt", { innerHTML: label }),
              values[i],
            ),
          ),
        );
      }
      rows.forEach(([, value], i) => values[i].innerHTML !== value && (values[i].innerHTML = value));
      clearTimeout(speaking);
      if (heard.length) speaking = setTimeout(speak, 700);
      else heard = sentences();
    };

    // Readouts that changed are spoken once nothing moves any more, and those of the opening page not at all.
    let speaking = 0;
    /** @type {string[]} */
    let heard = [];
    const sentences = () => [...tiles.children].map((tile) => [...tile.children].map((e) => e.textContent).join(": "));
    const speak = () => {
      const now = sentences();
      const changed = now.filter((sentence) => !heard.includes(sentence));
      if (changed.length) spoken.textContent = changed.join("; ");
      heard = now;
    };

    let pinned = "";
    const showPins = (/** @type {V} */ view) => {
      const key = JSON.stringify(state.pins);
      if (key === pinned) return;
      pinned = key;
      chips.replaceChildren(
        ...state.pins.map((/** @type {S & State} */ pin, /** @type {number} */ i) =>
          h(
            "span",
            { className: "rv-pin", role: "listitem", style: `--pin: var(--rv-pin-${i})` },
            h("button", {
              type: "button",
              innerHTML: pinLabel?.(pin, view, i),
              title: "Go back to this setting",
              onclick: () => set(pin),
            }),
            h("button", {
              type: "button",
              textContent: "×",
              title: "Unpin",
              "aria-label": `Unpin ${"ABCDEF"[i]}`,
              onclick: () =>
                set({ pins: state.pins.filter((/** @type {State} */ _, /** @type {number} */ k) => k !== i) }),
            }),
          ),
        ),
      );
      pinButton.disabled = state.pins.length >= MAX_PINS;
    };
    const pinButton = button(
      "Pin this setting",
      () => {
        const { pins, ...setting } = state;
        set({ pins: [...pins, setting] });
      },
      "Keep these curves, and compare others with them",
    );

    const copy = button(
      "Copy link",
      async () => {
        model.save_changes();
        try {
          await navigator.clipboard.writeText(model.link?.() ?? location.href);
          copy.textContent = "Copied";
        } catch {
          copy.textContent = "The link is in the address bar";
        }
        setTimeout(() => (copy.textContent = "Copy link"), 2000);
      },
      "A link to this page with the sliders as they are",
    );
    const reset = () => {
      const opened = model.opened?.() ?? initial;
      const back = JSON.stringify(opened) === JSON.stringify(state) ? initial : opened;
      set(/** @type {S & State} */ (structuredClone(back)));
    };
    const extra = setup?.({ id, svg, set, button, redraw, state: () => state, controls });
    buttons.append(
      ...(initial.pins ? [pinButton] : []),
      button("Reset", reset, "Back to the setting the page opened with; from there, to the figure's own"),
    );
    if (model.link) {
      const href = new URL(`${name}.mjs`, import.meta.url).href;
      buttons.append(copy, h("a", { href, textContent: "Code of this figure" }));
    }

    // The picture is first, and the main controls are under it; the others are folded, unless one of them has been set.
    /** @type {string[]} */
    const main = model.get("main");
    const folded = controls.filter((c) => !main.includes(c.key));
    const hand = h("div", { className: "rv-controls" }, ...grouped(controls.filter((c) => main.includes(c.key))));
    hand.querySelector(".rv-group")?.append(...(extra?.first ?? []));
    const more = h(
      "details",
      { className: "rv-more", hidden: !folded.length },
      h("summary", {}, "More controls"),
      h("div", { className: "rv-controls" }, ...grouped(folded)),
    );
    const unfold = () => (more.open ||= folded.some(({ key }) => state[key] !== initial[key]));
    unfold();
    const root = h(
      "div",
      { className: `rv rv-${name}` },
      figure,
      hand,
      tiles,
      spoken,
      h("div", { className: "rv-foot" }, chips, buttons),
      more,
      h("p", { className: "rv-caption", innerHTML: model.get("caption") }),
    );
    // Arrow keys are the sliders': JupyterLab would fold or leave the cell.
    root.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    el.append(root);

    const fit = () => Object.values(parts).forEach((part) => part.fit?.());
    more.addEventListener("toggle", fit); // what is folded has no width
    const resize = (/** @type {number} */ now) => {
      if (now === width) return;
      width = now;
      font = getComputedStyle(svg).fontFamily;
      fit();
      paint();
    };
    resize(figure.clientWidth); // at once, so that nothing is seen to move into its place
    const sizes = new ResizeObserver(([entry]) => resize(Math.floor(entry.contentRect.width)));
    sizes.observe(figure);
    // A font that has come changes the width of words, by which they are laid out.
    const again = () => {
      font = getComputedStyle(svg).fontFamily;
      useFont(font, true);
      fit();
      redraw();
    };
    document.fonts?.addEventListener("loadingdone", again);
    document.fonts?.ready.then(again);
    const refresh = () => {
      const now = current();
      if (JSON.stringify(now) === JSON.stringify(state)) return;
      state = now;
      unfold();
      redraw();
    };
    const watched = [...controls.map((c) => c.key), ...(initial.pins ? ["pins"] : [])];
    for (const key of watched) model.on(`change:${key}`, refresh);
    return () => {
      sizes.disconnect();
      prepared?.stop();
      document.fonts?.removeEventListener("loadingdone", again);
      extra?.stop?.();
      cancelAnimationFrame(frame);
      clearTimeout(saving);
      clearTimeout(speaking);
      for (const key of watched) model.off(`change:${key}`, refresh);
    };
  }
  const made = { name, prepare, render, compute, draw, readouts, describe, pinLabel };
  explorables.set(name, made);
  return made;
}
