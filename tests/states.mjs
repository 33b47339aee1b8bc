// @ts-check
// Draws explorables in random joint states of all their controls, and reports what may not be seen in a figure.
//
//   node tests/states.mjs COUNT SEED < figures.json      figures: [{name, controls, initial}]
//
// Prints a JSON list of {name, state, width, wrong}: an error, or the words around a number that is none.

import { readFileSync } from "node:fs";
import process from "node:process";
import { random } from "../rvlib/explore/web/rewards.mjs";

const WIDTHS = [320, 560, 760, 1100];
const [count, seed] = process.argv.slice(2).map(Number);
const uniform = random(seed);
/** @type {<T>(list: T[]) => T} */
const pick = (list) => list[Math.floor(uniform() * list.length)];

/**
 * A value that a reader can give to a control: an end in a fifth of the cases, for there most goes wrong.
 * @param {Control} control
 */
function value(control) {
  if (control.kind === "toggle") return uniform() < 0.5;
  if (control.kind === "choice") return pick(control.options)[0];
  const ends = [...(control.zero ? [0] : []), control.min, control.max];
  if (uniform() < 0.2) return pick(ends);
  if (control.log) {
    const [low, high] = [Math.log10(control.min), Math.log10(control.max)];
    const x = Number((10 ** (low + uniform() * (high - low))).toPrecision(4));
    return Math.min(control.max, Math.max(control.min, control.whole ? Math.round(x) : x));
  }
  const steps = Math.round((control.max - control.min) / control.step);
  return Number((control.min + control.step * Math.floor(uniform() * (steps + 1))).toFixed(10));
}

/** @type {(controls: Control[]) => State} */
const setting = (controls) => Object.fromEntries(controls.map((control) => [control.key, value(control)]));

const failures = [];
for (const { name, controls, initial } of JSON.parse(readFileSync(0, "utf-8"))) {
  const { default: figure } = await import(`../rvlib/explore/web/${name}.mjs`);
  const [began, before] = [performance.now(), failures.length];
  for (let i = 0; i < count; i++) {
    const state = setting(controls);
    if (initial.pins) state.pins = Array.from({ length: Math.floor(uniform() * 3) }, () => setting(controls));
    const width = pick(WIDTHS);
    try {
      const view = figure.compute(state);
      const seen = [
        ...figure.draw(view, width, name).parts,
        ...figure.readouts(view).flat(),
        figure.describe(view),
        ...(state.pins ?? []).map((/** @type {State} */ pin, /** @type {number} */ k) =>
          figure.pinLabel?.(pin, view, k),
        ),
      ].join("\n");
      const wrong = seen.match(/.{0,60}(NaN|undefined|Infinity|\[object).{0,20}/)?.[0];
      if (wrong) failures.push({ name, state, width, wrong });
    } catch (error) {
      failures.push({ name, state, width, wrong: String(error) });
    }
  }
  const each = ((performance.now() - began) / count).toFixed(1);
  console.error(`${name}: ${each} ms a state, ${failures.length - before} of ${count} wrong`);
}
console.log(JSON.stringify(failures));
