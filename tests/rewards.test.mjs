// @ts-check
// Reward models made in the page are those that Python makes: the cases of tests/test_rewards.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { rankingAccuracy, rewardVariance } from "../rvlib/explore/web/flow.mjs";
import {
  accurateButSlow,
  attainableVariance,
  bestOfNProbs,
  fastTimeBounds,
  inaccurateButFast,
  makeRewardModel,
  random,
} from "../rvlib/explore/web/rewards.mjs";

/**
 * @typedef {{accuracy: number, variance: number, seed: number, random: number[], ground_truth: number[], probs: number[], reward: number[],
 *   largest: number, tied: number[], best_of: number, best_of_n: number[], slow: number[], sorted_truth: number[],
 *   fast_accuracy: number, fast: number[], gain: number, fast_time_bound: number, sharper_fast_time_bound: number}} Case
 * @type {Case[]}
 */
const cases = JSON.parse(readFileSync(new URL("cases/rewards.json", import.meta.url), "utf-8"));

for (const c of cases)
  test(`reward model: accuracy ${c.accuracy}, variance ${c.variance}, seed ${c.seed}`, () => {
    const next = random(c.seed);
    c.random.forEach((value) => assert.ok(Math.abs(next() - value) < 1e-12));
    const made = makeRewardModel(c.ground_truth, c.probs, c.accuracy, c.variance, c.seed);
    c.reward.forEach((value, y) => assert.ok(Math.abs(made[y] - value) < 1e-8, `${made} is not ${c.reward}`));
    assert.ok(Math.abs(attainableVariance(c.ground_truth, c.probs, c.accuracy, c.seed)[1] - c.largest) < 1e-12);
    assert.equal(rankingAccuracy(made, c.ground_truth), c.accuracy);
    /** @type {(ours: Numbers, theirs: number[]) => void} */
    const same = (ours, theirs) =>
      theirs.forEach((value, i) =>
        assert.ok(Math.abs(ours[i] - value) <= 1e-8 * Math.max(1, Math.abs(value)), `${ours} is not ${theirs}`),
      );
    same(bestOfNProbs(c.probs, c.tied, c.best_of), c.best_of_n);
    same(accurateButSlow(c.ground_truth, c.accuracy, 10, c.seed), c.slow);
    same(inaccurateButFast(c.sorted_truth, c.probs, c.fast_accuracy, c.seed), c.fast);
    const { paper, ours } = fastTimeBounds(c.sorted_truth, c.probs, c.fast, c.gain);
    same([paper, ours], [c.fast_time_bound, c.sharper_fast_time_bound]);
    assert.ok(Math.abs(rewardVariance(made, c.probs) - c.variance) < 1e-9);
  });

test("what cannot be had is refused with the range", () => {
  const [truth, probs] = [
    [1, 0, -1],
    [0.2, 0.3, 0.5],
  ];
  assert.throws(() => makeRewardModel(truth, probs, 1, 2, 0), /variance must be in \(0, /);
  assert.throws(() => makeRewardModel(truth, probs, 0.5, 0.1, 0), /accuracy must be a multiple/);
  assert.throws(() => makeRewardModel([1, 1, -1], probs, 1, 0.1, 0), /groundTruth must be free of ties/);
});
