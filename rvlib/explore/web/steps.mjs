// @ts-check
// Steps: a GPT-2 that runs in the page, and for it the proofs of two bounds on the gradient, link by link.
//
//   ‖∇φ‖ ≤ … ≤ 6 M^{1/3} L J Var^{1/3}    (the paper's Prop. 2)        ‖∇φ‖ ≤ … ≤ J √(L Var/2)    (ours)

import { penaltyLimits, policy, policyGradient, proofSteps, shapeOf } from "./autoregressive.mjs";
import { normals, random } from "./rewards.mjs";
import { axes, fitted, logarithmic, measure, number, px, tag, text } from "./plot.mjs";
import { jacobian, jacobianNorm, start, table } from "./transformer.mjs";
import { explorable } from "./ui.mjs";
import { remembering } from "./work.mjs";

/**
 * @typedef {{length: number, vocabulary: number, width: string, spread: number, seed: number, scale: number, kl_coef: number,
 *   drift: number}} State
 */
/** @typedef {ReturnType<typeof compute>} View */

/** @type {[title: string, steps: string[]][]} */
const CHAINS = [
  [
    "The paper’s Prop. 2",
    [
      "gradient norm",
      "split into far and near outputs",
      "Jacobian taken out",
      "every output replaced by the worst one",
      "Chebyshev: the bound",
    ],
  ],
  ["This book’s bound", ["gradient norm", "Jacobian taken out", "Euclidean norm, Jensen", "Cauchy–Schwarz: the bound"]],
];

const KEPT = 20; // networks

/** A transformer's parameters, Jacobian and J: the slow part, which λ and the drift do not change. */
const network = remembering(
  (/** @type {Pick<State, "vocabulary" | "length" | "width" | "spread" | "seed">} */ setting) => {
    const { vocabulary, length, width, spread, seed } = setting;
    const normal = normals(random(seed));
    const vector = start(vocabulary, length, Number(width), spread, normal);
    const columns = jacobian(vector, vocabulary, length, Number(width));
    const direction = vector.map(() => normal());
    return { vector, columns, direction, norm: jacobianNorm(columns, vocabulary) };
  },
  KEPT,
);

/** @param {State} state */
function compute(state) {
  const { vocabulary, length, width, spread, kl_coef: klCoef, drift, scale, seed } = state;
  const { vector, columns, direction, norm } = network({ vocabulary, length, width, spread, seed });
  const uniform = random(seed + 1000);
  const now = policy(table(vector, vocabulary, length, Number(width)), vocabulary, length);
  const values = Float64Array.from({ length: shapeOf(vocabulary, length)[1] }, () => scale * (2 * uniform() - 1));
  if (klCoef) {
    const before = policy(
      table(
        vector.map((x, i) => x - drift * direction[i]),
        vocabulary,
        length,
        Number(width),
      ),
      vocabulary,
      length,
    );
    for (let y = 0; y < values.length; y++) values[y] -= klCoef * (now.logProbs[y] - before.logProbs[y]);
  }
  const { variance } = policyGradient(now, values, vocabulary);
  return {
    limits: penaltyLimits(state),
    state,
    norm,
    variance,
    parameters: vector.length,
    outputs: values.length,
    chains: proofSteps(now, values, vocabulary, length, columns, norm),
  };
}

/** @type {Draw<View>} */
function draw({ chains }, width) {
  const ROW = 34;
  const left = 14;
  const right = width - 12 - measure("×8.8×10⁸⁸", "rv-tick", 600); // room for a number behind the longest bar
  const smallest = Math.max(chains[0][0], 1e-12);
  const low = 10 ** Math.floor(Math.log10(smallest) - 0.5);
  const high = 10 ** Math.ceil(Math.log10(Math.max(chains[0][chains[0].length - 1], 1e-11)));
  const x = logarithmic([low, high], [left, right]);
  let out = "";
  let top = 0;
  chains.forEach((chain, k) => {
    out += fitted(left, top + 14, CHAINS[k][0], [left, width], { class: "rv-title" });
    chain.forEach((value, i) => {
      const y = top + 24 + i * ROW;
      const end = Math.max(left + 1, x(value));
      const tone = i === 0 ? "truth" : i === chain.length - 1 ? (k ? "good" : "proxy") : "bound";
      out += fitted(left, y + 11, CHAINS[k][1][i], [left, width], { class: "rv-tick" });
      out += tag("rect", {
        x: left,
        y: y + 15,
        width: end - left,
        height: 11,
        style: `fill:var(--rv-${tone})`,
        "fill-opacity": i === 0 || i === chain.length - 1 ? "1" : "0.55",
      });
      out += tag("path", {
        d: `M${px(x(chain[0]))} ${y + 13}v15`,
        style: "stroke:var(--rv-truth)",
        "stroke-width": "1.2",
        "stroke-dasharray": "2 2",
      });
      out += text(end + 6, y + 25, i ? `×${number(value / chain[0], 2)}` : number(value, 2), {
        class: "rv-tick",
        "font-weight": 600,
      });
    });
    top += 24 + chain.length * ROW + 18;
  });
  const box = { left, top: top - 18, width: right - left, height: 0 };
  out += axes(box, x, logarithmic([1, 2], [box.top, box.top - 1]), { xTicks: width < 560 ? 4 : 8, yTicks: 0 });
  return { height: top + 12, parts: [out] };
}

/** The bound over the gradient norm. @type {(chain: number[]) => number} */
const slack = (chain) => chain[chain.length - 1] / chain[0];

/** @type {Readouts<View>} */
const readouts = ({ norm, variance, parameters, outputs, chains }) => [
  ["parameters, outputs", `${parameters}, ${outputs}`],
  ["Jacobian norm <i>J</i>", number(norm), "", "Largest spectral norm of the logits' Jacobian over the prefixes"],
  ["variance", number(variance), "", "Of the KL-regularised reward under the policy"],
  ["the paper’s Prop. 2 over gradient", `×${number(slack(chains[0]), 2)}`, "bound"],
  ["ours over gradient", `×${number(slack(chains[1]), 2)}`, "bound"],
];

/** @type {Describe<View>} */
const describe = ({ state, norm, chains }) =>
  `A transformer with random weights that writes ${state.length} tokens from ${state.vocabulary}; Jacobian norm ${number(norm)}. Bars on a logarithmic axis. ` +
  CHAINS.map(
    ([title, names], k) => `${title}: ${names.map((name, i) => `${name} ${number(chains[k][i], 2)}`).join(", ")}.`,
  ).join(" ");

export default explorable({ name: "steps", compute, draw, readouts, describe });
