// @ts-check
// What a run of policy gradient costs: memory by part against the GPU's, hours and money. The numbers are cost.mjs's.

import { memory, step, total, TURNS } from "./cost.mjs";
import { fitted, linear, measure, px, rows, tag, text } from "./plot.mjs";
import { METHODS, MACHINES, SIZES, USUAL_PROMPT_TOKENS } from "./sizes.mjs";
import { explorable } from "./ui.mjs";

/**
 * @typedef {{policy: keyof typeof NAMES, teacher: "tulu" | "grm" | "gemma", method: keyof typeof WAYS, checkpointing: boolean,
 *   gpu: keyof typeof MACHINES} & Record<"gpus" | "price" | "batch" | "rows" | "micro_batch" | "prompt" |
 *   "reply" | "replies", number>} State
 */
/** @typedef {ReturnType<typeof compute>} View */

/** @typedef {import("./cost.mjs").Part} Part */

/** @type {Record<Part, string>} */
const COLOURS = {
  weights: "truth",
  gradients: "pin-3",
  optimiser: "pin-4",
  reference: "pin-0",
  "reward model": "proxy",
  "ground truth": "pin-2",
  "KV cache": "other",
  "gathered weights": "other",
  scoring: "other",
  activations: "other",
};
/** @type {Partial<Record<Part, string>>} */
const WORDS = {
  "KV cache": "sampling: cache",
  "gathered weights": "sampling: gathered weights",
  scoring: "scoring: a layer, logits",
  activations: "learning: activations",
};
const PARTS = /** @type {Part[]} */ (Object.keys(COLOURS));
/** @type {(part: Part) => string} */
const name = (part) => WORDS[part] ?? part;
/** @type {[kind: string, part: "sampling" | "scoring" | "updating"][]} */
const KINDS = [
  ["sampling", "sampling"],
  ["scoring", "scoring"],
  ["learning", "updating"],
]; // of a step, and cost.mjs's word for each
const NAMES = {
  llama8b: "Llama-3.1-8B",
  llama3b: "Llama-3.2-3B",
  llama1b: "Llama-3.2-1B",
  pythia3b: "Pythia-2.8B",
  pythia1b: "Pythia-1B",
};
const WAYS = { adam8bit: "all weights by 8-bit Adam", lora: "adapters of rank 64", adam: "all weights by 32-bit Adam" };

/** @param {State} state */
export function compute(state) {
  const alone = state.method === "adam8bit"; // it runs in one process
  const gpus = alone ? 1 : state.gpus;
  const machine = MACHINES[state.gpu];
  const setting = {
    .../** @type {Pick<import("./cost.mjs").Setting, "optimizer" | "weights_dtype" | "rank">} */ (
      METHODS[state.method]
    ),
    compute_dtype: /** @type {const} */ ("bfloat16"),
    frozen_dtype: /** @type {const} */ ("bfloat16"),
    gradient_checkpointing: state.checkpointing,
    micro_batch: state.micro_batch,
    batch_size: state.rows,
    prompt: state.prompt,
    reply: state.reply,
    gpus,
  };
  const [policy, teacher] = [SIZES[state.policy], SIZES[state.teacher]];
  const parts = memory(policy, teacher, SIZES.truth, setting);
  const prompt = Math.min(state.prompt, USUAL_PROMPT_TOKENS);
  const time = step(policy, teacher, { ...setting, prompt, replies: state.batch, machine });
  const seconds = time.sampling + time.scoring + time.updating;
  const hours = (Math.max(Math.round(state.replies / state.batch), 1) * seconds) / 3600;
  /** @type {Record<string, Limit>} */
  const limits = alone ? { gpus: { value: 1, hint: "8-bit Adam runs on one", idle: true } } : {};
  return {
    state,
    gpus,
    alone,
    machine,
    parts,
    peak: total(parts),
    time,
    seconds,
    hours,
    money: hours * gpus * state.price,
    limits,
  };
}

const GB = (/** @type {number} */ bytes) =>
  bytes / 1e9 >= 99.95 ? (bytes / 1e9).toFixed(0) : (bytes / 1e9).toFixed(1);
const clock = (/** @type {number} */ seconds) =>
  seconds < 99.5 ? `${seconds.toPrecision(seconds < 10 ? 2 : 3)} s` : `${(seconds / 60).toFixed(1)} min`;

/** @type {Draw<View>} */
function draw({ gpus, alone, machine, parts, peak, time, seconds }, width) {
  const narrow = width < 560;
  const labels = [...PARTS.map(name), ...KINDS.map(([kind]) => kind)];
  const [left, right] = [narrow ? 8 : 16 + Math.ceil(Math.max(...labels.map((words) => measure(words)))), 12];
  const row = narrow ? 32 : 24;
  const axis = linear([0, (Math.max(peak, machine.memory) * 1.08) / 1e9], [left, width - right]);
  const x = (/** @type {number} */ bytes) => axis(bytes / 1e9);
  const shown = PARTS.filter((part) => parts[part] > 0);
  const turns = TURNS.flat();
  const note = alone
    ? "8-bit Adam runs on one GPU; adapters or 32-bit Adam on several"
    : "each bar begins where the one above it ends; the last ones take turns";
  const under = rows(8, 31, width - 16, [{ words: note, class: "rv-note" }]);
  const top = 57 + under.height;
  let out =
    fitted(8, 14, `Memory${gpus > 1 ? " on each GPU" : ""}, GB`, [0, width], { class: "rv-title" }) + under.markup;
  let held = 0;
  let before = 0; // within sampling's turn
  shown.forEach((part, i) => {
    const bytes = parts[part];
    const y = top + i * row;
    const from = part === "gathered weights" ? held + before : held;
    const bar = y + (narrow ? 16 : 4);
    const end = x(from + bytes);
    const inside = end + 5 + measure(GB(bytes), "rv-tick") > width;
    out += text(narrow ? left : left - 8, narrow ? y + 11 : y + 16, name(part), {
      "text-anchor": narrow ? "start" : "end",
    });
    out += tag(
      "rect",
      {
        x: x(from),
        y: bar,
        width: Math.max(end - x(from), 1),
        height: 14,
        rx: 2,
        style: `fill:var(--rv-${COLOURS[part]})`,
      },
      tag("title", {}, `${name(part)}: ${GB(bytes)} GB`),
    );
    out += fitted(inside ? x(from) - 5 : end + 5, bar + 11, GB(bytes), [0, width], {
      class: "rv-tick rv-halo",
      "text-anchor": inside ? "end" : "start",
    });
    if (turns.includes(part)) before = part === "KV cache" ? bytes : 0;
    else held += bytes;
  });
  const bottom = top + shown.length * row;
  const at = x(machine.memory);
  out += tag("path", {
    d: `M${px(at)} ${top - 8}V${bottom}`,
    style: `stroke:var(--rv-${peak > machine.memory ? "proxy" : "ink"})`,
    "stroke-width": 1.6,
    "stroke-dasharray": "6 4",
  });
  out += fitted(at, top - 12, `${machine.name}: ${(machine.memory / 1e9).toFixed(0)}`, [0, width], {
    class: "rv-tick rv-halo",
    "text-anchor": "middle",
  });
  for (const value of axis.ticks(narrow ? 4 : 8)) {
    out += tag("path", { class: "rv-grid", d: `M${px(axis(value))} ${bottom}v4` });
    out += text(axis(value), bottom + 16, axis.say(value), { class: "rv-tick", "text-anchor": "middle" });
  }
  out += tag("path", { class: "rv-axis", d: `M${left} ${bottom}H${width - right}` });

  const second = bottom + 54;
  let steps = fitted(8, second - 8, `One step: ${clock(seconds)}, an estimate`, [0, width], { class: "rv-title" });
  const longest = Math.max(...KINDS.map(([, part]) => measure(clock(time[part]), "rv-tick")));
  const scale = linear([0, seconds], [left, width - longest - 8]);
  let begun = 0;
  KINDS.forEach(([kind, part], i) => {
    const spent = time[part];
    const y = second + i * row;
    const bar = y + (narrow ? 16 : 4);
    steps += text(narrow ? left : left - 8, narrow ? y + 11 : y + 16, kind, {
      "text-anchor": narrow ? "start" : "end",
    });
    steps += tag("rect", {
      x: scale(begun),
      y: bar,
      width: Math.max(scale(begun + spent) - scale(begun), 1),
      height: 14,
      rx: 2,
      style: "fill:var(--rv-quiet)",
    });
    begun += spent;
    steps += text(scale(begun) + 5, bar + 11, clock(spent), { class: "rv-tick rv-halo" });
  });
  return { height: second + 3 * row + 6, parts: [out, steps] };
}

const dollars = (/** @type {number} */ amount) =>
  `$${amount >= 100 ? Math.round(amount).toLocaleString("en") : amount.toFixed(2)}`;

/** @type {Readouts<View>} */
const readouts = ({ machine, peak, hours, money }) => [
  [
    "peak memory",
    `${GB(peak)} GB`,
    peak > machine.memory ? "proxy" : "truth",
    "All parts, but of sampling, scoring and learning the largest alone",
  ],
  [
    "fits?",
    peak > machine.memory
      ? `no: ${GB(peak - machine.memory)} GB too much`
      : `yes: ${GB(machine.memory - peak)} GB free`,
    peak > machine.memory ? "proxy" : "truth",
  ],
  ["whole run", `${hours < 10 ? hours.toFixed(1) : Math.round(hours)} h`, "", "An estimate; without evaluations"],
  ["costs", dollars(money), "", "Hours × GPUs × dollars an hour"],
];

/** @type {Describe<View>} */
const describe = ({ state, gpus, machine, parts, peak, seconds, hours, money }) =>
  `Policy gradient on ${NAMES[state.policy]}, ${WAYS[state.method]}, on ${gpus} ${machine.name}: ${GB(peak)} GB at the peak of ${(machine.memory / 1e9).toFixed(0)} GB. ` +
  PARTS.map((part) => `${name(part)} ${GB(parts[part])}`).join(", ") +
  ` GB. A step takes about ${clock(seconds)}, the run ${hours.toFixed(1)} hours and ${dollars(money)}.`;

export default explorable({ name: "calculator", compute, draw, readouts, describe });
