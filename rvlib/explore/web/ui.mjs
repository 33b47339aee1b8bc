// @ts-check
// What every explorable has around its drawing: native sliders with labels and readouts, reset, pins, a link to the state;
// and the loop from an input event to a painted figure. An explorable itself is four functions of its state:
//
//   compute(state) → view,   draw(view, width, id) → {height, parts},   readouts(view) → [[label, value]],   describe(view) → text
//
// A drawing may have a probe(x, y) too: markup that reads off its values where the pointer is.

import { MAX_PINS, sanitise } from "./state.mjs";
import { number } from "./plot.mjs";

let instances = 0;

/** An element with properties, attributes (where the name has a dash, or the element has no such property) and children. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.includes("-") && key !== "list") element[key] = value;
    else if (value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

// ---- one control --------------------------------------------------------------------------------------------------------

const toPosition = (control, value) => {
  if (!control.log) return value;
  return value > 0 ? Math.log10(value) : Math.log10(control.min) - control.step;
};

const fromPosition = (control, position) => {
  if (!control.log) return control.whole ? Math.round(position) : Number(position.toFixed(10));
  if (control.zero && position < Math.log10(control.min) - control.step / 2) return 0;
  const value = Number((10 ** position).toPrecision(4));
  return Math.min(control.max, Math.max(control.min, control.whole ? Math.round(value) : value));
};

export function say(control, value) {
  if (control.whole) return String(value).replace("-", "−");
  if (control.log) return value >= 1e4 && Number.isInteger(Math.log10(value)) ? number(value, 1) : number(value, 3);
  const digits = Math.max(0, Math.ceil(-Math.log10(control.step) - 1e-9));
  return (Number(value.toFixed(digits)) < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
}

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
  const hint = h("span", { className: "rv-hint", id: `${id}-hint` });
  const label = h("label", { htmlFor: id, innerHTML: control.label, title: control.help });
  const element = h(
    "div",
    { className: `rv-slider${control.tone ? ` rv-${control.tone}` : ""}` },
    label,
    output,
    input,
    hint,
  );
  input.setAttribute("aria-describedby", hint.id);
  const share = (value) => `${((100 * (toPosition(control, value) - low)) / (high - low)).toFixed(2)}%`;
  input.addEventListener("input", () => onInput(fromPosition(control, Number(input.value))));
  const shown = {};
  const once = (key, value, apply) => shown[key] !== value && apply((shown[key] = value));
  return {
    element,
    /** value: the setting; limit: {value, max, hint} where the setting could not be reached as it is. */
    show(value, limit = {}) {
      once("value", value, () => {
        input.value = toPosition(control, value);
        input.style.setProperty("--at", share(value));
      });
      const words = say(control, limit.value ?? value);
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
      once("hint", limit.hint ?? "", (text) => (hint.textContent = text));
    },
  };
}

function toggle(control, id, onInput) {
  const input = h("input", { type: "checkbox", id, "data-key": control.key });
  input.addEventListener("input", () => onInput(input.checked));
  const element = h(
    "div",
    { className: "rv-toggle" },
    input,
    h("label", { htmlFor: id, innerHTML: control.label, title: control.help }),
  );
  return { element, show: (value) => (input.checked = value) };
}

function choice(control, id, onInput) {
  const inputs = control.options.map(([value, label]) => {
    const input = h("input", { type: "radio", name: id, value, id: `${id}-${value}`, "data-key": control.key });
    input.addEventListener("input", () => onInput(value));
    return [input, h("label", { htmlFor: input.id, innerHTML: label })];
  });
  const element = h(
    "div",
    { className: "rv-choice", role: "radiogroup", "aria-label": control.label },
    ...inputs.map((pair) => h("span", {}, ...pair)),
  );
  return { element, show: (value) => inputs.forEach(([input]) => (input.checked = input.value === value)) };
}

const KINDS = { slider, toggle, choice };

// ---- the explorable -----------------------------------------------------------------------------------------------------

/**
 * What every explorable shares: controls, readouts, pins, the state in the page's address, drawing once a frame.
 * @param {object} figure
 * @param {string} figure.name of the figure in the page's address
 * @param {(state: any) => any} figure.compute everything that is drawn, from the state of the controls
 * @param {(view: any, width: number, id: string) => { height: number, parts: any[], probe?: any }} figure.draw
 * @param {(view: any) => any[][]} [figure.readouts] rows [label, value, colour]
 * @param {(view: any) => string} [figure.describe] the figure in words
 * @param {(pin: any, view: any, index: number) => string} [figure.pinLabel] markup of a pin's button
 * @param {(parts: any) => { shown?: (view: any) => void, first?: HTMLElement[], stop?: () => void } | void} [figure.setup]
 * @param {number} [figure.above]
 * @returns {any} the figure with its `render({ model, el })`
 */
export function explorable({ name, compute, draw, readouts, describe, pinLabel, setup, above = 1 }) {
  function render({ model, el }) {
    const id = `rv-${name}-${++instances}`;
    const controls = model.get("controls");
    const initial = model.get("initial");
    const current = () =>
      sanitise(
        controls,
        Object.fromEntries([...controls.map((c) => c.key), "pins"].map((key) => [key, model.get(key)])),
        initial,
      );
    let state = current();
    let width = 0;
    let frame = 0;
    let saving = 0;

    const [svg, ink, overlay] = ["svg", "g", "g"].map((kind) =>
      document.createElementNS("http://www.w3.org/2000/svg", kind),
    );
    svg.setAttribute("class", "rv-svg");
    svg.setAttribute("role", "img");
    svg.append(ink, overlay);
    const layers = [];
    let probe; // what the drawing says of a point, where it says something
    const figure = h("div", { className: "rv-figure" }, svg);
    const tiles = h("dl", { className: "rv-readouts" });
    const chips = h("div", { className: "rv-pins", role: "list", "aria-label": "Pinned settings" });
    const buttons = h("div", { className: "rv-actions" });
    const button = (label, onclick, title = "") => h("button", { type: "button", onclick, title, innerHTML: label });

    /** Sets what a reader chose; `save: false` while something moves by itself. */
    const set = (changes) => {
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
    const groups = [...new Set(controls.map((c) => c.group))].map((group) =>
      h(
        "fieldset",
        { "data-group": group },
        h("legend", { innerHTML: group }),
        ...controls.filter((c) => c.group === group).map((c) => parts[c.key].element),
      ),
    );

    const paint = () => {
      frame = 0;
      if (!width) return;
      const view = compute(state);
      const { height, parts: drawn, ...rest } = draw(view, width, id);
      probe = rest.probe;
      // An attribute set again to what it was would lay the whole figure out again.
      if (svg.getAttribute("viewBox") !== `0 0 ${width} ${height}`) {
        svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
        svg.setAttribute("width", String(width));
        svg.setAttribute("height", String(height));
      }
      // Only the parts that changed are parsed, laid out and painted again.
      while (ink.childElementCount < drawn.length) ink.append(document.createElementNS(svg.namespaceURI, "g"));
      for (let i = 0; i < ink.childElementCount; i++) {
        const markup = drawn[i] ?? "";
        if (layers[i] !== markup) ink.children[i].innerHTML = layers[i] = markup;
      }
      svg.setAttribute("aria-label", describe(view));
      for (const control of controls) parts[control.key].show(state[control.key], view.limits?.[control.key]);
      showReadouts(readouts(view));
      if (initial.pins) showPins(view);
      extra?.shown?.(view);
    };
    svg.addEventListener("pointermove", (event) => probe && (overlay.innerHTML = probe(event.offsetX, event.offsetY)));
    svg.addEventListener("pointerleave", () => (overlay.innerHTML = ""));
    const redraw = () => (frame ||= requestAnimationFrame(paint));
    document.fonts?.ready.then(redraw); // words are measured again in the font that has come

    let values = [];
    const showReadouts = (rows) => {
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
    };

    let pinned = "";
    const showPins = (view) => {
      const key = JSON.stringify(state.pins);
      if (key === pinned) return;
      pinned = key;
      chips.replaceChildren(
        ...state.pins.map((pin, i) =>
          h(
            "span",
            { className: "rv-pin", role: "listitem", style: `--pin: var(--rv-pin-${i})` },
            h("button", {
              type: "button",
              innerHTML: pinLabel(pin, view, i),
              title: "Go back to this setting",
              onclick: () => set(pin),
            }),
            h("button", {
              type: "button",
              textContent: "×",
              title: "Unpin",
              "aria-label": `Unpin ${"ABCDEF"[i]}`,
              onclick: () => set({ pins: state.pins.filter((_, k) => k !== i) }),
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
          await navigator.clipboard.writeText(model.link());
          copy.textContent = "Copied";
        } catch {
          copy.textContent = "The link is in the address bar";
        }
        setTimeout(() => (copy.textContent = "Copy link"), 2000);
      },
      "A link to this page with the sliders as they are",
    );
    const extra = /** @type {any} */ (setup)?.({ id, svg, set, button, redraw, state: () => state, controls });
    groups[0].append(...(extra?.first ?? []));
    buttons.append(
      ...(initial.pins ? [pinButton] : []),
      button("Reset", () => set(structuredClone(initial)), "Back to the setting the page opened with"),
    );
    if (model.link) buttons.append(copy);

    // The first groups stand above the figure, in reach of it; what sets the scene stands below.
    const caption = h("p", { className: "rv-caption", innerHTML: model.get("caption") });
    const [hand, scene] = [groups.slice(0, above), groups.slice(above)].map((some) =>
      h("div", { className: "rv-controls" }, ...some),
    );
    const root = h(
      "div",
      { className: `rv rv-${name}` },
      hand,
      tiles,
      figure,
      h("div", { className: "rv-foot" }, chips, buttons),
      scene,
      caption,
    );
    // Arrow keys are the sliders': JupyterLab would fold or leave the cell.
    root.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    el.append(root);

    const sizes = new ResizeObserver(([entry]) => {
      const now = Math.floor(entry.contentRect.width);
      if (now === width) return;
      width = now;
      paint();
    });
    sizes.observe(figure);
    const refresh = () => {
      const now = current();
      if (JSON.stringify(now) === JSON.stringify(state)) return;
      state = now;
      redraw();
    };
    const keys = [...controls.map((c) => c.key), ...(initial.pins ? ["pins"] : [])];
    for (const key of keys) model.on(`change:${key}`, refresh);
    return () => {
      sizes.disconnect();
      extra?.stop?.();
      cancelAnimationFrame(frame);
      clearTimeout(saving);
      for (const key of keys) model.off(`change:${key}`, refresh);
    };
  }
  return { name, render, compute, draw, readouts, describe };
}
