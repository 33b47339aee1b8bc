// @ts-check
// What an explorable's state may be, and how it is written into a page's address:
//
//   #curves.accuracy=0.9&curves.variance=0.01&curves.pins=variance:0.001;variance:0.001,accuracy:0.6
//
// Only what differs from the initial state is written. What makes no sense is read as the initial value.

/** @typedef {number | boolean | string} Value */
/**
 * One thing that a reader can set, as rvlib.explore describes it.
 * @typedef {{kind: "slider", min: number, max: number, step: number, log: boolean, zero: boolean, whole: boolean, tone: string}} Slider
 * @typedef {{kind: "toggle"}} Toggle
 * @typedef {{kind: "choice", options: [string, string][]}} Choice
 * @typedef {{key: string, group: string, label: string, help?: string} & (Slider | Toggle | Choice)} Control
 */
/** @typedef {Record<string, any>} State a value for each control's key, and where there are pins {pins: State[]} */

export const MAX_PINS = 6;

/**
 * `value` if the control may take it, else undefined.
 * @param {Control} control
 * @param {unknown} value
 * @returns {Value | undefined}
 */
export function allowed(control, value) {
  if (control.kind === "slider") {
    const good =
      typeof value === "number" &&
      value >= control.min &&
      value <= control.max &&
      (!control.whole || Number.isInteger(value));
    return good || (control.zero && value === 0) ? /** @type {number} */ (value) : undefined;
  }
  if (control.kind === "toggle") return typeof value === "boolean" ? value : undefined;
  return control.options.map(([name]) => name).find((name) => name === value);
}

/** @type {(control: Control, text: string) => Value | undefined} */
function read(control, text) {
  if (control.kind === "slider") return /\d/.test(text) ? allowed(control, Number(text)) : undefined;
  if (control.kind === "toggle") return text === "true" ? true : text === "false" ? false : undefined;
  return allowed(control, text);
}

/**
 * The state that the controls can take nearest to `values`: what is missing or not allowed comes from `initial`.
 * @param {Control[]} controls
 * @param {State} values
 * @param {State} initial
 * @returns {State}
 */
export function sanitise(controls, values, initial) {
  /** @type {State} */
  const state = {};
  for (const control of controls) state[control.key] = allowed(control, values[control.key]) ?? initial[control.key];
  if (Array.isArray(initial.pins)) {
    const pins = Array.isArray(values.pins) ? values.pins : initial.pins;
    state.pins = pins
      .filter((/** @type {unknown} */ pin) => pin && typeof pin === "object")
      .slice(0, MAX_PINS)
      .map((/** @type {State} */ pin) => sanitise(controls, pin, without(initial)));
  }
  return state;
}

/** @type {(state: State) => State} */
const without = ({ pins, ...rest }) => rest;

/**
 * The parts of a fragment that belong to the explorable called `name`, as a state.
 * @param {string} fragment of an address
 * @param {string} name
 * @param {Control[]} controls
 * @param {State} initial
 * @returns {State}
 */
export function decode(fragment, name, controls, initial) {
  /** @type {State} */
  const values = { ...initial };
  for (const part of fragment.replace(/^#/, "").split("&")) {
    const [, owner, key, raw] = part.match(/^([\w-]+)\.(\w+)=(.*)$/) ?? [];
    if (owner !== name) continue;
    let text;
    try {
      text = decodeURIComponent(raw);
    } catch {
      continue;
    }
    const control = controls.find((c) => c.key === key);
    if (control) values[key] = read(control, text) ?? values[key];
    else if (key === "pins" && initial.pins)
      values.pins = text
        .split(";")
        .map((/** @type {string} */ pin) => decodePin(pin, controls, initial))
        .filter(Boolean);
  }
  return sanitise(controls, values, initial);
}

/** @type {(text: string, controls: Control[], initial: State) => State | undefined} */
function decodePin(text, controls, initial) {
  const pin = without(initial);
  for (const part of text.split(",").filter(Boolean)) {
    const [key, value] = part.split(":");
    const control = controls.find((c) => c.key === key);
    const known = control && read(control, value ?? "");
    if (known === undefined) return undefined;
    pin[key] = known;
  }
  return pin;
}

/**
 * The fragment's parts for this state: what differs from `initial`.
 * @param {string} name
 * @param {Control[]} controls
 * @param {State} state
 * @param {State} initial
 * @returns {string[]}
 */
export function encode(name, controls, state, initial) {
  const changed = (/** @type {State} */ values) =>
    controls.filter(({ key }) => values[key] !== initial[key]).map(({ key }) => [key, values[key]]);
  const parts = changed(state).map(([key, value]) => `${name}.${key}=${value}`);
  if (state.pins && JSON.stringify(state.pins) !== JSON.stringify(initial.pins))
    parts.push(
      `${name}.pins=${state.pins
        .map((/** @type {State} */ pin) =>
          changed(pin)
            .map((pair) => pair.join(":"))
            .join(","),
        )
        .join(";")}`,
    );
  return parts;
}
