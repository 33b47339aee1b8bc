// @ts-check
// The page's autoregressive policies and their bounds are Python's: the cases that tests/test_autoregressive.py hands over.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import process from "node:process";
import test from "node:test";
import * as ar from "../rvlib/explore/web/autoregressive.mjs";

/** @type {(a: number, b: number, within?: number) => void} */
const near = (a, b, within = 1e-8) => assert.ok(Math.abs(a - b) <= within * (1 + Math.abs(b)), `${a} is not ${b}`);

/**
 * @typedef {{vocabulary: number, length: number, logits: number[], values: number[], reward: number[], measured: number[], gain: number,
 *   kl_coef: number, log_probs: number[], gradient: number[], shared: number[], variance: number, bounds: number[],
 *   time: number | null}} Case
 * @type {Case[]}
 */
const cases = JSON.parse(readFileSync(process.env.CASES, "utf-8"));

for (const c of cases) {
  const { vocabulary, length, logits, values, reward, gain } = c;
  test(`${length} tokens from ${vocabulary}`, () => {
    const now = ar.policy(logits, vocabulary, length);
    c.log_probs.forEach((value, y) => near(now.logProbs[y], value));
    const { gradient, variance } = ar.policyGradient(now, values, vocabulary);
    c.gradient.forEach((value, i) => near(gradient[i], value));
    c.shared.forEach((value, v) => near(ar.shared(gradient, vocabulary)[v], value));
    near(variance, c.variance);
    near(ar.gradientNormBound(variance, length, 2, 1.5), c.bounds[0]);
    near(ar.sharperGradientNormBound(variance, length, 2), c.bounds[1]);
    near(ar.slowTimeBound(variance, gain, length, 2, c.kl_coef), c.bounds[2]);
    near(ar.sharperSlowTimeBound(variance, gain, length, 2), c.bounds[3]);
    const time = ar.timeToGain(logits, reward, gain, vocabulary, length, {
      measured: c.measured,
      klCoef: c.kl_coef,
      tMax: 1e4,
      maxSteps: 20000,
    });
    c.time === null ? assert.equal(time, Infinity) : near(time, c.time, 1e-3);
  });
}
