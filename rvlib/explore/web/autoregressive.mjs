// @ts-check
// Autoregressive policies in the page: a port of rvlib.tabular.autoregressive and of the bounds for them.
//
//   E_{y~π}[ b(y) ∂ ln π(y)/∂θ_h ] = π(h) · p_h ⊙ A_h,   A_h(v) = E[b | hv] - E[b | h]  (the paper's Prop. 2)
//
// logits: a row of V for each prefix h, shorter prefixes first, in one Float64Array; outputs: V^L, in the order of their tokens.

/**
 * [prefixes, outputs] of strings of `length` tokens.
 * @param {number} vocabulary
 * @param {number} length
 * @returns {[number, number]}
 */
export const shapeOf = (vocabulary, length) => [(vocabulary ** length - 1) / (vocabulary - 1), vocabulary ** length];

/**
 * Every prefix's log-probabilities of the next token (prefixes · V), ln π of prefixes and then of outputs, and of outputs; and
 * what the first two are the logarithms of, once a gradient was asked for.
 * @typedef {{rows: Float64Array, reach: Float64Array, logProbs: Float64Array, probs?: Float64Array, mass?: Float64Array}} Policy
 */

/**
 * @param {Numbers} logits (prefixes · V,)
 * @param {number} vocabulary V
 * @param {number} length
 * @returns {Policy}
 */
export function policy(logits, vocabulary, length) {
  const [prefixes, outputs] = shapeOf(vocabulary, length);
  const rows = new Float64Array(prefixes * vocabulary);
  // Node h has the children h·V + 1 to h·V + V, in both the tree of prefixes and its last layer, the outputs.
  const reach = new Float64Array(prefixes + outputs);
  for (let h = 0; h < prefixes; h++) {
    const at = h * vocabulary;
    let top = -Infinity;
    for (let v = 0; v < vocabulary; v++) top = Math.max(top, logits[at + v]);
    let total = 0;
    for (let v = 0; v < vocabulary; v++) total += Math.exp(logits[at + v] - top);
    const normal = top + Math.log(total);
    for (let v = 0; v < vocabulary; v++) {
      rows[at + v] = logits[at + v] - normal;
      reach[at + v + 1] = reach[h] + rows[at + v];
    }
  }
  return { rows, reach, logProbs: reach.subarray(prefixes) };
}

/** @type {(logarithms: Float64Array) => Float64Array} */
function exponentials(logarithms) {
  const numbers = new Float64Array(logarithms.length);
  for (let i = 0; i < numbers.length; i++) numbers[i] = Math.exp(logarithms[i]);
  return numbers;
}

/**
 * The gradient E[b ∇ ln π] of the values b held fixed, with the mean and the variance of b.
 * @param {Policy} policy
 * @param {Numbers} values (V^L,)
 * @param {number} vocabulary V
 */
export function policyGradient(policy, values, vocabulary) {
  const { rows, reach, logProbs } = policy;
  const probs = (policy.probs ??= exponentials(rows));
  const mass = (policy.mass ??= exponentials(reach));
  const prefixes = rows.length / vocabulary;
  const value = new Float64Array(reach.length);
  value.set(values, prefixes);
  const gradient = new Float64Array(rows.length);
  for (let h = prefixes - 1; h >= 0; h--) {
    const at = h * vocabulary;
    for (let v = 0; v < vocabulary; v++) value[h] += probs[at + v] * value[at + v + 1];
    for (let v = 0; v < vocabulary; v++) gradient[at + v] = mass[at + v + 1] * (value[at + v + 1] - value[h]);
  }
  let variance = 0;
  for (let y = 0; y < logProbs.length; y++) variance += mass[prefixes + y] * (values[y] - value[0]) ** 2;
  return { gradient, mean: value[0], variance };
}

/**
 * The gradient in one row of logits that all prefixes share.
 * @param {Float64Array} gradient (prefixes · V,)
 * @param {number} vocabulary V
 * @returns {Float64Array} (V,)
 */
export function shared(gradient, vocabulary) {
  const row = new Float64Array(vocabulary);
  for (let i = 0; i < gradient.length; i++) row[i % vocabulary] += gradient[i];
  return row;
}

/**
 * The chains of inequalities behind the paper's Prop. 2 and behind the sharper bound: two lists of numbers that only grow, each
 * from the gradient norm to the bound.
 * @param {Policy} now
 * @param {Float64Array} values (V^L,)
 * @param {number} vocabulary V
 * @param {number} length L
 * @param {Numbers[]} columns the Jacobian of the logits in a network's parameters, a column for each
 * @param {number} jacobianNorm its J
 * @returns {[number[], number[]]}
 */
export function proofSteps(now, values, vocabulary, length, columns, jacobianNorm) {
  const { rows, reach, logProbs } = now;
  const [prefixes, norm] = [rows.length / vocabulary, jacobianNorm];
  const size = (/** @type {Float64Array} */ b) =>
    Math.sqrt(columns.reduce((sum, column) => sum + b.reduce((dot, g, i) => dot + g * column[i], 0) ** 2, 0));
  const { gradient, mean, variance } = policyGradient(now, values, vocabulary);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const cut = Math.cbrt(largest * variance);
  const centred = values.map((value) => value - mean);
  const far = centred.map((a) => (Math.abs(a) > cut ? a : 0));
  const [farGradient, nearGradient] = [far, centred.map((a, y) => a - far[y])].map(
    (b) => policyGradient(now, b, vocabulary).gradient,
  );
  // Σ_l ‖e_{y_l} - p_l‖₁ = Σ_l 2 (1 - p_l(y_l)) of every output, down the tree.
  const errors = new Float64Array(reach.length);
  for (let h = 0; h < prefixes; h++)
    for (let v = 0; v < vocabulary; v++)
      errors[h * vocabulary + v + 1] = errors[h] + 2 * (1 - Math.exp(rows[h * vocabulary + v]));
  let [farMass, pulledFar] = [0, 0];
  for (let y = 0; y < far.length; y++)
    if (far[y]) {
      farMass += Math.exp(logProbs[y]);
      pulledFar += Math.exp(logProbs[y]) * Math.abs(far[y]) * errors[prefixes + y];
    }
  const pulledNear = nearGradient.reduce((sum, g) => sum + Math.abs(g), 0);
  const whole = size(gradient);
  let [pulled, spread] = [0, 0];
  for (let h = 0; h < prefixes; h++) {
    let [squares, moment] = [0, 0];
    for (let v = 0; v < vocabulary; v++) {
      const g = gradient[h * vocabulary + v];
      squares += g * g;
      moment += (g * g) / Math.exp(rows[h * vocabulary + v]); // π(h)² p A² from g = π(h) p A
    }
    pulled += norm * Math.sqrt(squares);
    spread += norm * Math.sqrt(moment / 2);
  }
  return [
    [
      whole,
      size(farGradient) + size(nearGradient),
      norm * (pulledFar + pulledNear),
      norm * length * (4 * largest * farMass + 2 * cut),
      6 * norm * length * cut,
    ],
    [whole, pulled, spread, norm * Math.sqrt((length * variance) / 2)],
  ];
}

/**
 * The paper's Prop. 2.
 * @type {(variance: number, length: number, jacobianNorm: number, rewardBound: number) => number}
 */
export const gradientNormBound = (variance, length, jacobianNorm, rewardBound) =>
  6 * Math.cbrt(rewardBound * variance) * length * jacobianNorm;

/** J √(L Var/2); ours. @type {(variance: number, length: number, jacobianNorm: number) => number} */
export const sharperGradientNormBound = (variance, length, jacobianNorm) =>
  jacobianNorm * Math.sqrt((length * variance) / 2);

/**
 * The paper's Theorem 4.
 * @type {(variance: number, gain: number, length: number, jacobianNorm: number, klCoef?: number) => number}
 */
export function slowTimeBound(variance, gain, length, jacobianNorm, klCoef = 0) {
  const reach = Math.min(-Math.expm1(-gain / 9), -Math.expm1(-7 / (3 * klCoef)));
  return reach / (8 * length ** 2 * jacobianNorm ** 2 * Math.cbrt(variance));
}

/**
 * 2 (1 - exp(-γ√L)) / (L^{3/2} J² √Var); ours.
 * @type {(variance: number, gain: number, length: number, jacobianNorm: number) => number}
 */
export const sharperSlowTimeBound = (variance, gain, length, jacobianNorm) =>
  (-2 * Math.expm1(-gain * Math.sqrt(length))) / (length ** 1.5 * jacobianNorm ** 2 * Math.sqrt(variance));

/**
 * t_γ under gradient flow: Bogacki and Shampine's pair of orders 2 and 3, the crossing by a cubic. Infinity if it is not
 * reached by tMax, in maxSteps, or before the flow comes to rest.
 * @param {Numbers} logits (prefixes · V,)
 * @param {Numbers} reward (V^L,)
 * @param {number} gain
 * @param {number} vocabulary V
 * @param {number} length L
 * @param {{measured?: Numbers, klCoef?: number, tMax?: number, tolerance?: number, maxSteps?: number}} [options]
 * @returns {number}
 */
export function timeToGain(
  logits,
  reward,
  gain,
  vocabulary,
  length,
  { measured = reward, klCoef = 0, tMax = 1e8, tolerance = 1e-6, maxSteps = 2000 } = {},
) {
  const start = policy(logits, vocabulary, length).logProbs;
  const field = (/** @type {Float64Array} */ u) => {
    const now = policy(u, vocabulary, length);
    const values = klCoef ? new Float64Array(reward) : reward;
    if (klCoef) for (let y = 0; y < values.length; y++) values[y] -= klCoef * (now.logProbs[y] - start[y]);
    const { gradient } = policyGradient(now, values, vocabulary);
    const { gradient: uphill, mean } = policyGradient(now, measured, vocabulary);
    let [slope, size] = [0, 0];
    for (let i = 0; i < gradient.length; i++) {
      slope += uphill[i] * gradient[i];
      size += gradient[i] ** 2;
    }
    return { gradient, mean, slope, size: Math.sqrt(size) };
  };
  /** @type {(u: Float64Array, ...terms: [number, {gradient: Float64Array}][]) => Float64Array} */
  const plus = (u, ...terms) => {
    const sum = u.slice();
    for (const [c, { gradient }] of terms) for (let i = 0; i < sum.length; i++) sum[i] += c * gradient[i];
    return sum;
  };

  let [t, u] = [0, /** @type {Float64Array} */ (Float64Array.from(logits))];
  let k1 = field(u);
  const [goal, rest] = [k1.mean + gain, 1e-9 * k1.size];
  let h = 0.1 / k1.size;
  for (let step = 0; step < maxSteps && t < tMax && k1.size > rest; step++) {
    const k2 = field(plus(u, [h / 2, k1]));
    const k3 = field(plus(u, [(3 * h) / 4, k2]));
    const next = plus(u, [(2 * h) / 9, k1], [h / 3, k2], [(4 * h) / 9, k3]);
    const k4 = field(next);
    let error = 0;
    for (let i = 0; i < u.length; i++)
      error = Math.max(
        error,
        (h * Math.abs((-5 / 72) * k1.gradient[i] + k2.gradient[i] / 12 + k3.gradient[i] / 9 - k4.gradient[i] / 8)) /
          (1 + Math.abs(u[i])),
      );
    const scale = Math.min(5, Math.max(0.2, 0.9 * Math.cbrt(tolerance / error)));
    if (error <= tolerance) {
      if (k4.mean >= goal) return t + h * crossing(k1.mean - goal, h * k1.slope, k4.mean - goal, h * k4.slope);
      [t, u, k1] = [t + h, next, k4];
    }
    h *= scale;
  }
  return Infinity;
}

/**
 * Where in [0, 1] the cubic with the values a < 0 <= b and the slopes da, db at its ends is zero.
 * @type {(a: number, da: number, b: number, db: number) => number}
 */
function crossing(a, da, b, db) {
  let [low, high] = [0, 1];
  for (let i = 0; i < 50; i++) {
    const x = (low + high) / 2;
    const value = a + x * x * (3 - 2 * x) * (b - a) + x * (1 - x) ** 2 * da + x * x * (x - 1) * db;
    if (value < 0) low = x;
    else high = x;
  }
  return high;
}

/**
 * What the sliders of λ and drift say. λ weighs the logarithm of a ratio, and drift makes that ratio differ from one: each changes
 * nothing without the other. Where both are 0 one of them has to move first, so λ can.
 * @param {{kl_coef: number, drift: number}} state
 */
export const penaltyLimits = ({ kl_coef: klCoef, drift }) => ({
  ...(klCoef ? {} : { drift: { hint: "matters where λ > 0", idle: true } }),
  ...(drift ? {} : { kl_coef: { hint: "matters where drift > 0", idle: klCoef > 0 } }),
});
