// @ts-check
// A GPT-2 of one layer in the page: the logits of every prefix, and their Jacobian by differences in every parameter.
//
//   f_θ(h) = W ln( z + mlp(ln z) ),   z = e + attention(ln e)      over the nodes of the tree of prefixes
//
// With one layer a node's key and value depend on itself alone, so each is computed once and serves all that follow it.
// Parameters lie in one vector, in the order of the `transformers` library: tests hold the two to 1e-9 of each other.

import { shapeOf } from "./autoregressive.mjs";

const HEADS = 2;

/**
 * The parts of the vector, each with its start and size, and its length, for one prompt token and `width` channels.
 * @param {number} vocabulary
 * @param {number} length
 * @param {number} width
 */
function layout(vocabulary, length, width) {
  const inner = 2 * width;
  const sizes = {
    wte: (vocabulary + 1) * width,
    wpe: length * width,
    gain1: width,
    shift1: width,
    attn: width * 3 * width,
    attnBias: 3 * width,
    proj: width * width,
    projBias: width,
    gain2: width,
    shift2: width,
    up: width * inner,
    upBias: inner,
    down: inner * width,
    downBias: width,
    gain3: width,
    shift3: width,
    head: (vocabulary + 1) * width,
  };
  let total = 0;
  /** @typedef {keyof typeof sizes} Part */
  const parts = /** @type {Record<Part, Pair>} */ ({});
  for (const name of /** @type {Part[]} */ (Object.keys(sizes))) {
    parts[name] = [total, sizes[name]];
    total += sizes[name];
  }
  return { parts, total };
}

/**
 * Random parameters: normal with this spread, gains of the norms at 1, biases at 0.
 * @param {number} vocabulary
 * @param {number} length
 * @param {number} width
 * @param {number} spread
 * @param {() => number} normal
 */
export function start(vocabulary, length, width, spread, normal) {
  const { parts, total } = layout(vocabulary, length, width);
  const vector = new Float64Array(total);
  for (const [name, [from, size]] of Object.entries(parts))
    if (name.startsWith("gain")) vector.fill(1, from, from + size);
    else if (!name.startsWith("shift") && !name.endsWith("Bias"))
      for (let i = from; i < from + size; i++) vector[i] = spread * normal();
  return vector;
}

/** @type {(x: Float64Array, gain: Float64Array, shift: Float64Array) => Float64Array} */
function norm(x, gain, shift) {
  const n = x.length;
  let [mean, square] = [0, 0];
  for (let i = 0; i < n; i++) mean += x[i] / n;
  for (let i = 0; i < n; i++) square += (x[i] - mean) ** 2 / n;
  const scale = 1 / Math.sqrt(square + 1e-5);
  return x.map((value, i) => (value - mean) * scale * gain[i] + shift[i]);
}

/**
 * x (n) times a matrix (n × m), plus a bias (m).
 * @type {(x: Float64Array, matrix: Float64Array, bias: Float64Array) => Float64Array}
 */
function affine(x, matrix, bias) {
  const out = Float64Array.from(bias);
  const m = bias.length;
  for (let i = 0; i < x.length; i++) for (let j = 0; j < m; j++) out[j] += x[i] * matrix[i * m + j];
  return out;
}

const gelu = (/** @type {number} */ x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** @typedef {{parent?: Node, depth: number, key: Float64Array, value: Float64Array}} Node of the tree of prefixes */

/**
 * The logits of every prefix, a row of V each, for the prompt token V.
 * @param {Float64Array} vector parameters
 * @param {number} vocabulary
 * @param {number} length
 * @param {number} width
 * @returns {Float64Array} (prefixes · V,)
 */
export function table(vector, vocabulary, length, width) {
  const { parts } = layout(vocabulary, length, width);
  const p = /** @type {Record<keyof typeof parts, Float64Array>} */ (
    Object.fromEntries(Object.entries(parts).map(([name, [from, size]]) => [name, vector.subarray(from, from + size)]))
  );
  const [prefixes] = shapeOf(vocabulary, length);
  const out = new Float64Array(prefixes * vocabulary);
  /** @type {Node[]} */
  const nodes = [];
  for (let h = 0; h < prefixes; h++) {
    const parent = h ? nodes[Math.floor((h - 1) / vocabulary)] : undefined;
    const token = h ? (h - 1) % vocabulary : vocabulary;
    const depth = parent ? parent.depth + 1 : 0;
    const x = Float64Array.from({ length: width }, (_, i) => p.wte[token * width + i] + p.wpe[depth * width + i]);
    const qkv = affine(norm(x, p.gain1, p.shift1), p.attn, p.attnBias);
    /** @type {Node} */
    const node = { parent, depth, key: qkv.subarray(width, 2 * width), value: qkv.subarray(2 * width) };
    nodes.push(node);
    const mixed = new Float64Array(width);
    const size = width / HEADS;
    for (let head = 0; head < HEADS; head++) {
      /** @type {[number, Node][]} */
      const weights = [];
      for (let at = /** @type {Node | undefined} */ (node); at; at = at.parent) {
        let score = 0;
        for (let i = head * size; i < (head + 1) * size; i++) score += qkv[i] * at.key[i];
        weights.push([Math.exp(score / Math.sqrt(size)), at]);
      }
      const total = weights.reduce((sum, [w]) => sum + w, 0);
      for (const [w, at] of weights)
        for (let i = head * size; i < (head + 1) * size; i++) mixed[i] += (w / total) * at.value[i];
    }
    const attended = affine(mixed, p.proj, p.projBias).map((y, i) => x[i] + y);
    const inner = affine(norm(attended, p.gain2, p.shift2), p.up, p.upBias).map(gelu);
    const last = norm(
      affine(inner, p.down, p.downBias).map((y, i) => attended[i] + y),
      p.gain3,
      p.shift3,
    );
    for (let v = 0; v < vocabulary; v++)
      for (let i = 0; i < width; i++) out[h * vocabulary + v] += p.head[v * width + i] * last[i];
  }
  return out;
}

/**
 * ∂(logits)/∂θ by central differences: an array of columns, one for each parameter, of the length of `table`.
 * @param {Float64Array} vector parameters
 * @param {number} vocabulary
 * @param {number} length
 * @param {number} width
 */
export function jacobian(vector, vocabulary, length, width) {
  const step = 1e-5;
  const moved = Float64Array.from(vector);
  return Array.from(vector, (value, i) => {
    moved[i] = value + step;
    const above = table(moved, vocabulary, length, width);
    moved[i] = value - step;
    const below = table(moved, vocabulary, length, width);
    moved[i] = value;
    return above.map((x, k) => (x - below[k]) / (2 * step));
  });
}

/**
 * The largest spectral norm of the Jacobian's blocks, one block of V rows for each prefix.
 * @param {Numbers[]} columns of the Jacobian, as `jacobian` gives them
 * @param {number} vocabulary
 */
export function jacobianNorm(columns, vocabulary) {
  let largest = 0;
  for (let from = 0; from < columns[0].length; from += vocabulary) {
    const gram = Array.from({ length: vocabulary }, (_, a) =>
      Array.from({ length: vocabulary }, (_, b) =>
        columns.reduce((sum, column) => sum + column[from + a] * column[from + b], 0),
      ),
    );
    // The power method, from a vector that is no eigenvector of a symmetric problem.
    let x = gram.map((_, i) => 1 + 0.37 * i * i);
    let size = 0;
    for (let k = 0; k < 300; k++) {
      const y = gram.map((row) => row.reduce((sum, g, i) => sum + g * x[i], 0));
      size = Math.sqrt(
        y.reduce((sum, value) => sum + value * value, 0) / x.reduce((sum, value) => sum + value * value, 0),
      );
      if (size === 0) break;
      x = y.map((value) => value / size);
    }
    largest = Math.max(largest, Math.sqrt(size));
  }
  return largest;
}
