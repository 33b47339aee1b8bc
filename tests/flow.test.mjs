// @ts-check
// The page's mathematics on the cases that tests/test_flow.py reads too, and on the same errors allowed: 1e-8.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import * as flow from "../rvlib/explore/web/flow.mjs";

/**
 * @typedef {{name: string, logits: number[], reward: number[], truth: number[], counts: number[], kl_coef: number, n_prompts: number,
 *   times: number[], gains: number[], gain_times: (number | "inf")[], probs: number[][]} & Record<Series, number[]>} Case
 * @typedef {"proxy" | "ground_truth" | "variance" | "kl" | "gradient_norm"} Series
 * @type {Case[]}
 */
const cases = JSON.parse(readFileSync(new URL("cases/flow.json", import.meta.url), "utf-8"));
/** @type {(values: number[], counts: number[]) => number[]} */
const repeat = (values, counts) => values.flatMap((value, i) => Array(counts[i]).fill(value));
/** @type {(a: number, b: number, error: number, name: string) => void} */
const near = (a, b, error, name) => assert.ok(Math.abs(a - b) <= error, `${name}: ${a} is not ${b}`);

for (const c of cases) {
  const [logits, reward, groundTruth] = [c.logits, c.reward, c.truth].map((x) => repeat(x, c.counts));
  const options = { klCoef: c.kl_coef, nPrompts: c.n_prompts };
  const first = c.counts.map((_, i) => c.counts.slice(0, i).reduce((a, b) => a + b, 0));

  test(`flow: ${c.name}`, () => {
    const states = flow
      .gradientFlow(logits, reward, c.times[c.times.length - 1], { ...options, groundTruth })
      .at(c.times);
    c.times.forEach((_, k) => {
      first.forEach((y, i) => near(states.probs[k][y], c.probs[k][i], 1e-8, "a probability"));
      near(states.proxy[k], c.proxy[k], 1e-8, "proxy");
      near(states.groundTruth[k], c.ground_truth[k], 1e-8, "ground truth");
      near(states.variance[k], c.variance[k], 1e-8, "variance");
      near(states.kl[k], c.kl[k], 1e-8, "kl");
      near(states.gradientNorm[k], c.gradient_norm[k], 1e-8, "gradient norm");
    });
  });

  test(`t_γ: ${c.name}`, () => {
    c.gains.forEach((gain, i) => {
      const [time, expected] = [flow.timeToGain(logits, reward, gain, options), c.gain_times[i]];
      if (expected === "inf") assert.equal(time, Infinity);
      else near(time, expected, 1e-8 * expected, "t_γ");
    });
  });
}

test("the drawing's cubic stays within a pixel of the flow", () => {
  const [c] = cases.filter(({ name }) => name === "a plateau");
  const path = flow.gradientFlow(c.logits, c.reward, 1e4, { tolerance: 1e-8 });
  const times = Array.from({ length: 200 }, (_, i) => 10 ** (-2 + (6 * i) / 199) * (1 - 1e-12));
  const [exact, drawn] = [path.at(times), path.at(times, { exact: false })];
  exact.proxy.forEach((value, i) => near(drawn.proxy[i], value, 1e-3, "the drawn reward"));
});

test("a measured reward that rises and falls: first crossing", () => {
  // Output 1 rises first and gives way to output 2: the reward of 1 passes the gain twice.
  const time = flow.timeToGain([3, 0, -6], [0, 0.5, 1], 0.3, { measured: [0, 1, 0] });
  const at = flow
    .gradientFlow([3, 0, -6], [0, 0.5, 1], 1e5)
    .at([0, time * 0.999, time])
    .probs.map((p) => p[1]);
  assert.ok(at[1] - at[0] < 0.3 && at[2] - at[0] > 0.3 - 1e-9);
});

test("never: the wrong teacher, a constant reward, a KL term that stops short", () => {
  assert.equal(flow.timeToGain([0, 0], [0, 1], 0.1, { measured: [1, 0] }), Infinity);
  assert.equal(flow.timeToGain([0, 0], [1, 1], 0.1), Infinity);
  assert.equal(flow.timeToGain([0, 0], [0, 1], 0.4, { klCoef: 1 }), Infinity);
});

test("what is drawn may end a rounding error after the flow does", () => {
  const states = flow.gradientFlow([0, 1, -1], [0, 0.5, 1], 210.6).at([210.6 * (1 + 1e-14)], { exact: false });
  assert.ok(Number.isFinite(states.proxy[0]));
});
