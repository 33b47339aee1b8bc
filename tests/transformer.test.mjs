// @ts-check
// The page's GPT-2 is that of the transformers library, and its proofs are Python's: the cases that tests/test_enumerate.py hands over.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import process from "node:process";
import test from "node:test";
import { policy, proofSteps } from "../rvlib/explore/web/autoregressive.mjs";
import { jacobian, jacobianNorm, table } from "../rvlib/explore/web/transformer.mjs";

/** @type {(a: number, b: number, within: number) => void} */
const near = (a, b, within) => assert.ok(Math.abs(a - b) <= within * (1 + Math.abs(b)), `${a} is not ${b}`);

/**
 * @typedef {{vocabulary: number, length: number, width: number, vector: number[], values: number[], logits: number[],
 *   jacobian: number[][], norm: number, steps: number[][]}} Case
 * @type {Case[]}
 */
const cases = JSON.parse(readFileSync(process.env.CASES, "utf-8"));

for (const { vocabulary, length, width, vector, values, logits, jacobian: columns, norm, steps } of cases)
  test(`${length} tokens from ${vocabulary}, width ${width}`, () => {
    const parameters = Float64Array.from(vector);
    const rows = table(parameters, vocabulary, length, width);
    logits.forEach((value, i) => near(rows[i], value, 1e-9));
    const differences = jacobian(parameters, vocabulary, length, width);
    columns.forEach((column, i) => column.forEach((value, k) => near(differences[i][k], value, 1e-6)));
    near(jacobianNorm(differences, vocabulary), norm, 1e-6);
    const chains = proofSteps(
      policy(rows, vocabulary, length),
      Float64Array.from(values),
      vocabulary,
      length,
      differences,
      norm,
    );
    steps.forEach((chain, k) => chain.forEach((value, i) => near(chains[k][i], value, 1e-6)));
  });
