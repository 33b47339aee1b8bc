// @ts-check
// The exact world in the page: a port of rvlib.metrics and rvlib.tabular. Tests hold the two to 1e-8 of each other.
//
//   dθ/dt = (1/|S|) π ⊙ ( r^KL - E_π r^KL ),   r^KL = r - λ ln(π/π_ref)                  the paper's Lemma 7
//
// Arrays are of one prompt's outputs: plain arrays or Float64Array in, Float64Array out.

/** @typedef {number[] | Float64Array} Numbers a number for each output, (n,) */

const ORDER = 8;
const TOLERANCE = 1e-11;
const MAX_STEPS = 20000;
const FOREVER = 1e300;

// ---- metrics ----------------------------------------------------------------------------------------------------------

/** Σ_{i<n} of the terms. @type {(n: number, term: (i: number) => number) => number} */
export const sum = (n, term) => {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
};

/**
 * Share of pairs that the two rewards order alike; a tie agrees only with a tie (the paper's Def. 1).
 * @param {Numbers} proxy (n,)
 * @param {Numbers} groundTruth (n,)
 * @returns {number} in [0, 1]
 */
export function rankingAccuracy(proxy, groundTruth) {
  const n = proxy.length;
  let agree = 0;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++)
      if (Math.sign(proxy[i] - proxy[j]) === Math.sign(groundTruth[i] - groundTruth[j])) agree++;
  return agree / ((n * (n - 1)) / 2);
}

/**
 * Covariance of two rewards under probs; taken about the likeliest output, so that an almost sure policy costs no digits.
 * @param {Numbers} proxy (n,)
 * @param {Numbers} groundTruth (n,)
 * @param {Numbers} probs (n,)
 * @returns {number}
 */
export function rewardCovariance(proxy, groundTruth, probs) {
  let [top, meanProxy, meanTruth, covariance] = [0, 0, 0, 0];
  for (let i = 1; i < probs.length; i++) if (probs[i] > probs[top]) top = i;
  for (let i = 0; i < probs.length; i++) {
    meanProxy += probs[i] * (proxy[i] - proxy[top]);
    meanTruth += probs[i] * (groundTruth[i] - groundTruth[top]);
  }
  for (let i = 0; i < probs.length; i++)
    covariance += probs[i] * (proxy[i] - proxy[top] - meanProxy) * (groundTruth[i] - groundTruth[top] - meanTruth);
  return covariance;
}

/**
 * Variance of the reward under probs (the paper's Def. 2).
 * @param {Numbers} rewards (n,)
 * @param {Numbers} probs (n,)
 * @returns {number}
 */
export const rewardVariance = (rewards, probs) => rewardCovariance(rewards, rewards, probs);

// ---- policy -----------------------------------------------------------------------------------------------------------

/**
 * The policy of these logits.
 * @param {Numbers} logits (n,)
 * @returns {Float64Array} (n,)
 */
export function softmax(logits) {
  let top = -Infinity;
  for (let i = 0; i < logits.length; i++) top = Math.max(top, logits[i]);
  const weights = Float64Array.from(logits, (x) => Math.exp(x - top));
  const total = sum(weights.length, (i) => weights[i]);
  return weights.map((w) => w / total);
}

/**
 * E_π of the values.
 * @param {Numbers} probs (n,)
 * @param {Numbers} values (n,)
 * @returns {number}
 */
export const expectation = (probs, values) => sum(probs.length, (i) => probs[i] * values[i]);

/**
 * KL(p ‖ q) in nats.
 * @param {Numbers} p (n,)
 * @param {Numbers} q (n,)
 * @returns {number}
 */
export const klDivergence = (p, q) =>
  Math.max(
    0,
    sum(p.length, (i) => (p[i] > 0 ? p[i] * Math.log(p[i] / q[i]) - p[i] + q[i] : q[i])),
  );

// ---- gradient flow: implicit steps at all times, where rvlib/tabular/integrator.py takes Taylor's for most ----------------

/** One problem, and the space in which its steps are taken. */
class Problem {
  /**
   * @param {Numbers} logits (n,)
   * @param {Numbers} reward (n,)
   * @param {number} klCoef
   */
  constructor(logits, reward, klCoef) {
    this.logits0 = Float64Array.from(logits);
    this.n = this.logits0.length;
    const probs = softmax(this.logits0);
    const offset = reward[0];
    const mean = sum(this.n, (i) => probs[i] * (reward[i] - offset));
    this.reward = Float64Array.from(reward, (r) => r - offset - mean);
    this.klCoef = klCoef;
    const row = () => new Float64Array(this.n);
    this.probs0 = row();
    this.a0 = row();
    this.probs = row();
    this.a = row();
    this.b = row();
    this.state = row();
    this.table = Array.from({ length: ORDER }, row);
    this.previous = row();
  }

  /**
   * Writes π and a = π ⊙ (g - E g), g = r - λu, at u. Everything is a difference to the likeliest output, to keep digits.
   * @param {Float64Array} u (n,)
   * @param {Float64Array} probs (n,), written
   * @param {Float64Array} a (n,), written
   */
  field(u, probs, a) {
    const { n, logits0, reward, klCoef } = this;
    let top = 0;
    for (let i = 1; i < n; i++) if (logits0[i] + u[i] > logits0[top] + u[top]) top = i;
    const [topLogit, topReward, topU] = [logits0[top] + u[top], reward[top], u[top]];
    let total = 0;
    for (let i = 0; i < n; i++) total += probs[i] = Math.exp(logits0[i] + u[i] - topLogit);
    let mean = 0;
    for (let i = 0; i < n; i++) {
      probs[i] /= total;
      a[i] = reward[i] - topReward - klCoef * (u[i] - topU);
      mean += probs[i] * a[i];
    }
    for (let i = 0; i < n; i++) a[i] = probs[i] * (a[i] - mean);
  }

  /**
   * One step of length h from u: the increment goes to `out`.
   * @param {Float64Array} u (n,)
   * @param {number} h
   * @param {Float64Array} out (n,), written
   * @param {number} tolerance
   * @returns {number} the estimate of its error relative to `tolerance`
   */
  step(u, h, out, tolerance) {
    const { n, klCoef, probs0, a0, probs, a, b, state, table, previous } = this;
    this.field(u, probs0, a0);
    for (let parts = 1; parts <= ORDER; parts++) {
      const length = h / parts;
      const x = table[parts - 1];
      // I - hJ = D - U C Uᵀ with U = [a, π]: Sherman-Morrison-Woodbury.
      let [aa, ap, pp] = [0, 0, 0];
      for (let i = 0; i < n; i++) {
        const inverse = (b[i] = 1 / (1 - length * (a0[i] - klCoef * probs0[i])));
        aa += a0[i] * a0[i] * inverse;
        ap += a0[i] * probs0[i] * inverse;
        pp += probs0[i] * probs0[i] * inverse;
      }
      const [mAa, mAp, mPp] = [klCoef + length * aa, 1 + length * ap, length * pp];
      const scale = length / (mAa * mPp - mAp * mAp);
      x.fill(0);
      for (let taken = 0; taken < parts; taken++) {
        let field = a0;
        if (taken) {
          for (let i = 0; i < n; i++) state[i] = u[i] + x[i];
          this.field(state, probs, a);
          field = a;
        }
        let [alongA, alongP] = [0, 0];
        for (let i = 0; i < n; i++) {
          const moved = b[i] * length * field[i];
          alongA += a0[i] * moved;
          alongP += probs0[i] * moved;
        }
        const yA = scale * (mPp * alongA - mAp * alongP);
        const yP = scale * (mAa * alongP - mAp * alongA);
        let drift = 0;
        for (let i = 0; i < n; i++) {
          state[i] = b[i] * (length * field[i] - yA * a0[i] - yP * probs0[i]);
          drift += state[i];
        }
        for (let i = 0; i < n; i++) x[i] += state[i] - probs0[i] * drift;
      }
    }
    for (let column = 1; column < ORDER; column++) {
      if (column === ORDER - 1) previous.set(table[ORDER - 1]);
      for (let j = ORDER - 1; j >= column; j--) {
        const ratio = (j + 1) / (j + 1 - column) - 1;
        for (let i = 0; i < n; i++) table[j][i] += (table[j][i] - table[j - 1][i]) / ratio;
      }
    }
    let error = 0;
    for (let i = 0; i < n; i++) {
      out[i] = table[ORDER - 1][i];
      const estimate = Math.abs(out[i] - previous[i]) / (1 + Math.abs(u[i]));
      if (!(estimate <= error)) error = estimate; // a NaN is kept
    }
    return Number.isFinite(error) ? error / tolerance : Infinity;
  }
}

/**
 * Integrates to tMax, calling visit(t, u, h, increment) for each accepted step; stops early where it returns true.
 * @param {Problem} problem
 * @param {number} tMax
 * @param {number} tolerance
 * @param {(t: number, u: Float64Array, h: number, increment: Float64Array) => boolean | void} visit
 */
function march(problem, tMax, tolerance, visit) {
  const { n, klCoef, probs, a } = problem;
  const [u, increment] = [new Float64Array(n), new Float64Array(n)];
  problem.field(u, probs, a);
  let t = 0;
  let h = 0.1 / (a.reduce((m, x) => Math.max(m, Math.abs(x)), 0) + klCoef * probs.reduce((m, x) => Math.max(m, x), 0));
  for (let steps = 0; t < tMax; steps++) {
    if (steps === MAX_STEPS)
      throw new Error(`gradient flow: not finished after ${MAX_STEPS} steps; it reached t = ${t}.`);
    const left = tMax - t;
    const length = Math.min(h, left);
    const error = problem.step(u, length, increment, tolerance);
    const next = length * Math.min(6, Math.max(0.1, 0.9 * error ** (-1 / ORDER)));
    if (!(error <= 1 && length === left)) h = next;
    if (error > 1) continue;
    if (visit(t, u, length, increment)) return;
    t = length === left ? tMax : t + length;
    for (let i = 0; i < n; i++) u[i] += increment[i];
  }
}

/**
 * Where the policy is at each of T times: logits and probs (T, n), all else (T,).
 * @typedef {{t: Numbers, logits: Float64Array[], probs: Float64Array[], proxy: number[], groundTruth: number[],
 *   variance: number[], kl: number[], gradientNorm: number[]}} States
 * @typedef {{t: Float64Array, at: (times: Numbers, options?: {exact?: boolean}) => States}} Flow t: the integrator's own times
 */

/**
 * The flow until tMax: {t, at(times)}; at() gives logits, probs, proxy, groundTruth, variance, kl and gradientNorm at each time.
 * at(times, {exact: false}) is ten times cheaper and meant for drawing: between the integrator's times, whose states are exact,
 * it follows the cubic that has the flow's logits and velocities at both ends.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} tMax
 * @param {{groundTruth?: Numbers, klCoef?: number, nPrompts?: number, tolerance?: number}} [options]
 * @returns {Flow}
 */
export function gradientFlow(
  logits,
  reward,
  tMax,
  { groundTruth = reward, klCoef = 0, nPrompts = 1, tolerance = TOLERANCE } = {},
) {
  const problem = new Problem(logits, reward, klCoef);
  const reference = softmax(problem.logits0);
  const [t, states] = [[0], [new Float64Array(problem.n)]];
  march(problem, tMax / nPrompts, tolerance, (start, u, length, increment) => {
    t.push((start + length) * nPrompts);
    states.push(u.map((x, i) => x + increment[i]));
  });
  t[t.length - 1] = tMax;
  const knots = Float64Array.from(t);

  const velocity = (/** @type {number} */ k) => {
    problem.field(states[k], problem.probs, problem.a);
    return Float64Array.from(problem.a);
  };
  /** @type {(low: number, length: number, out: Float64Array) => void} */
  const cubic = (low, length, out) => {
    const step = (knots[low + 1] - knots[low]) / nPrompts;
    const x = length / step;
    const [v0, v1] = [(velocities[low] ??= velocity(low)), (velocities[low + 1] ??= velocity(low + 1))];
    const [rise, in0, in1] = [x * x * (3 - 2 * x), step * x * (1 - x) ** 2, step * x * x * (x - 1)];
    for (let i = 0; i < problem.n; i++)
      out[i] = rise * (states[low + 1][i] - states[low][i]) + in0 * v0[i] + in1 * v1[i];
  };
  /** @type {Float64Array[]} */
  const velocities = [];

  /** @type {Flow["at"]} */
  const at = (times, { exact = true } = {}) => {
    /** @type {States} */
    const out = { t: times, logits: [], probs: [], proxy: [], groundTruth: [], variance: [], kl: [], gradientNorm: [] };
    const increment = new Float64Array(problem.n);
    for (const time of times) {
      // The last knot not after `time`, by bisection; from it one step, as exact as the flow itself.
      let [low, high] = [0, knots.length];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (knots[middle] <= time) low = middle;
        else high = middle;
      }
      const length = (time - knots[low]) / nPrompts;
      increment.fill(0);
      // After the last knot, be it by a rounding error, there is no cubic.
      if (length > 0 && (exact || low === knots.length - 1)) problem.step(states[low], length, increment, tolerance);
      else if (length > 0) cubic(low, length, increment);
      const [u, now] = [states[low], new Float64Array(problem.n)];
      for (let i = 0; i < problem.n; i++) increment[i] += u[i];
      const probs = new Float64Array(problem.n);
      problem.field(increment, probs, problem.a); // a is the gradient
      let [proxy, truth, squared] = [0, 0, 0];
      for (let i = 0; i < problem.n; i++) {
        now[i] = problem.logits0[i] + increment[i];
        proxy += probs[i] * reward[i];
        truth += probs[i] * groundTruth[i];
        squared += problem.a[i] * problem.a[i];
      }
      out.logits.push(now);
      out.probs.push(probs);
      out.proxy.push(proxy);
      out.groundTruth.push(truth);
      out.variance.push(rewardVariance(reward, probs));
      out.kl.push(klDivergence(probs, reference));
      out.gradientNorm.push(Math.sqrt(squared));
    }
    return out;
  };
  return { t: knots, at };
}

/**
 * t_γ, the first time the expected measured reward has risen by gain; Infinity if never. If tMax comes first and it is not
 * certain that the gain is never reached: `undecided`.
 * @param {Numbers} logits (n,)
 * @param {Numbers} reward (n,)
 * @param {number} gain
 * @param {{measured?: Numbers, klCoef?: number, nPrompts?: number, tMax?: number, undecided?: number, tolerance?: number}} [options]
 * @returns {number}
 */
export function timeToGain(
  logits,
  reward,
  gain,
  { measured = reward, klCoef = 0, nPrompts = 1, tMax = Infinity, undecided = Infinity, tolerance = TOLERANCE } = {},
) {
  const problem = new Problem(logits, reward, klCoef);
  const centred = new Problem(logits, measured, 0).reward;
  let [reached, hopeless] = [Infinity, false];
  const after = new Float64Array(problem.n);
  if (never(problem, after, centred, gain)) return reached;
  march(problem, Math.min(tMax, FOREVER) / nPrompts, tolerance, (start, u, length, increment) => {
    const from = Float64Array.from(u);
    const end = Float64Array.from(increment);
    const crossing = firstCrossing(problem, centred, gain, from, length, end, tolerance);
    reached = (start + crossing) * nPrompts;
    for (let i = 0; i < problem.n; i++) after[i] = from[i] + end[i];
    increment.set(end); // looking closer used the problem's scratch space
    hopeless = never(problem, after, centred, gain);
    return reached < Infinity || hopeless;
  });
  if (reached <= tMax) return reached;
  return hopeless && reached === Infinity ? Infinity : undecided;
}

/**
 * Expected measured reward at u, and its derivative in time.
 * @type {(problem: Problem, u: Float64Array, measured: Float64Array) => [number, number]}
 */
function rewardAndSlope(problem, u, measured) {
  const { n, probs, a } = problem;
  problem.field(u, probs, a);
  const value = expectation(probs, measured);
  return [value, sum(n, (i) => probs[i] * (measured[i] - value) * a[i])];
}

/**
 * Where in a step the measured reward first reaches the gain, Infinity if it does not; it may rise and fall within the step.
 * @type {(problem: Problem, measured: Float64Array, gain: number, u: Float64Array, length: number, increment: Float64Array,
 *   tolerance: number) => number}
 */
function firstCrossing(problem, measured, gain, u, length, increment, tolerance) {
  const move = new Float64Array(problem.n);
  const excess = (/** @type {number} */ x) => {
    move.fill(0);
    if (x > 0) problem.step(u, x, move, tolerance);
    const [value, slope] = rewardAndSlope(
      problem,
      u.map((v, i) => v + move[i]),
      measured,
    );
    return [value - gain, slope];
  };
  const [left, slopeLeft] = rewardAndSlope(problem, u, measured);
  const [right, slopeRight] = rewardAndSlope(
    problem,
    u.map((v, i) => v + increment[i]),
    measured,
  );
  const peaks =
    slopeLeft > 0 && slopeRight < 0 && Math.max(left, right) + length * Math.max(slopeLeft, -slopeRight) >= gain;
  if (!(right >= gain || peaks)) return Infinity;
  const points = 16;
  let low = 0;
  let atLow = excess(0);
  for (let k = 1; k <= points; k++) {
    const high = (length * k) / points;
    const atHigh = excess(high);
    if (atHigh[0] >= 0) return root((x) => excess(x)[0], low, high, atLow[0], atHigh[0]);
    if (atLow[1] > 0 && atHigh[1] < 0) {
      const top = root((x) => -excess(x)[1], low, high, -atLow[1], -atHigh[1]);
      const atTop = excess(top)[0];
      if (atTop >= 0) return root((x) => excess(x)[0], low, top, atLow[0], atTop);
    }
    [low, atLow] = [high, atHigh];
  }
  return Infinity;
}

/**
 * Root of f in [low, high] with f(low) < 0 <= f(high): regula falsi that halves the stale side (Illinois), to rounding.
 * @type {(f: (x: number) => number, low: number, high: number, atLow: number, atHigh: number) => number}
 */
function root(f, low, high, atLow, atHigh) {
  let side = 0;
  for (let i = 0; i < 200 && atHigh !== 0 && high - low > 4e-16 * high; i++) {
    let middle = (atHigh * low - atLow * high) / (atHigh - atLow);
    if (!(middle > low && middle < high)) middle = (low + high) / 2;
    const atMiddle = f(middle);
    if (atMiddle === 0) return middle;
    if (atMiddle > 0) {
      [high, atHigh] = [middle, atMiddle];
      if (side === 1) atLow /= 2;
      side = 1;
    } else {
      [low, atLow] = [middle, atMiddle];
      if (side === -1) atHigh /= 2;
      side = -1;
    }
    if (middle === low + (high - low) / 2 && high - low <= 4e-16 * high) break;
  }
  return high;
}

/**
 * Whether the measured reward, below the gain now, provably stays below: see _never in rvlib/tabular/crossing.py.
 * @type {(problem: Problem, u: Float64Array, measured: Float64Array, gain: number) => boolean}
 */
function never(problem, u, measured, gain) {
  const { n, logits0, reward, klCoef, probs, a } = problem;
  problem.field(u, probs, a);
  const spread = Math.max(...measured) - Math.min(...measured);
  if (klCoef > 0) {
    const limit = softmax(logits0.map((x, i) => x + Math.max(-FOREVER, Math.min(FOREVER, reward[i] / klCoef))));
    return expectation(limit, measured) + spread * Math.sqrt(klDivergence(probs, limit) / 2) < gain;
  }
  const top = reward.reduce((m, r) => Math.max(m, r), -Infinity);
  let [lead, likeliest] = [Infinity, -Infinity];
  for (let i = 0; i < n; i++) {
    if (reward[i] < top) lead = Math.min(lead, top - reward[i]);
    else likeliest = Math.max(likeliest, logits0[i]);
  }
  // The proxy's own supremum is not reached: without this the last digit of a sum would say that it is.
  if (top <= gain && reward.every((r, i) => r === measured[i])) return true;
  if (lead === Infinity) return expectation(probs, measured) < gain;
  let [limit, count, offBest, limitMass, others] = [0, 0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    if (reward[i] < top) offBest += ((top - reward[i]) * probs[i]) / lead;
    else if (logits0[i] === likeliest)
      [limit, count, limitMass] = [limit + measured[i], count + 1, limitMass + probs[i]];
    else others += probs[i];
  }
  return limit / count + spread * (offBest + others / limitMass) < gain;
}

// ---- bounds -----------------------------------------------------------------------------------------------------------

/**
 * The paper's Lemma 8: the l1 norm of a tabular gradient is at most this.
 * @param {number} variance
 * @returns {number}
 */
export const tabularGradientBound = (variance) => Math.sqrt(variance);

/**
 * The paper's Prop. 3: gradient flow of a tabular policy cannot gain γ before this time.
 * @param {number} variance
 * @param {number} gain
 * @returns {number}
 */
export const tabularSlowTimeBound = (variance, gain, nPrompts = 1) =>
  (2 * nPrompts * -Math.expm1(-gain / 2)) / Math.sqrt(variance);
