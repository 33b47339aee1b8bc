// @ts-check
// What policy gradient costs, in bytes and seconds: a port of rvlib.lm.experiments.cost, which says why each term is there.

import { BYTES, LOGITS, MACHINES, MOMENTS } from "./sizes.mjs";

/** @typedef {{parameters: number, layers: number, width: number, keys: number, inner: number, matrices: number, vocabulary: number}} Size of a model */
/** @typedef {keyof typeof BYTES} Type of numbers */
/** @typedef {(typeof MACHINES)["H200"]} Machine bytes, bytes and operations a second, and the shares of them that are reached */
/**
 * @typedef {{micro_batch: number, batch_size: number, prompt: number, reply: number, weights_dtype: Type,
 *   compute_dtype: Type, frozen_dtype: Type, optimizer: keyof typeof MOMENTS, gradient_checkpointing: boolean,
 *   rank: number | null, gpus: number}} Setting
 */

/** @type {(size: Size, rank: number) => number} */
const adapter = (size, rank) =>
  rank * size.layers * (4 * size.width + 2 * (size.width + size.keys) + size.matrices * (size.width + size.inner));

/** @type {(size: Size, rows: number, longest: number, reply: number, setting: Setting) => number} */
function gradientPass(size, rows, longest, reply, { compute_dtype, gradient_checkpointing, rank }) {
  const b = BYTES[compute_dtype];
  const [tokens, logits] = [rows * longest, rows * reply];
  const layer = tokens * ((8 * b + 8) * size.width + 2 * (size.matrices - 1) * b * size.inner + b * longest + 8);
  const kept = size.layers * (gradient_checkpointing ? tokens * b * size.width : layer) + tokens * (4 + b) * size.width;
  const above = (4 * logits + 8 * Math.min(logits, LOGITS) + (rank ? 0 : size.width * b)) * size.vocabulary;
  return kept + Math.max(above, gradient_checkpointing ? layer : 0);
}

/** @type {(size: Size, setting: Setting) => {weights: number, gradients: number, optimiser: number}} */
function trainingState(size, { optimizer, weights_dtype, compute_dtype, rank, gpus }) {
  const learns = rank ? adapter(size, rank) : size.parameters;
  const number = BYTES[weights_dtype];
  const copies = weights_dtype === "float32" && compute_dtype === "bfloat16" ? 2 : 0;
  const frozen = rank ? size.parameters * BYTES[compute_dtype] : 0;
  const kept = gpus > 1 && !rank ? 0 : copies;
  return {
    weights: frozen / gpus + learns * (number / gpus + kept),
    gradients: (learns * (number + kept)) / gpus,
    optimiser: (learns * MOMENTS[optimizer]) / gpus,
  };
}

/** @type {(size: Size, tokens: number, compute_dtype: Type) => number} */
const scoringPass = (size, tokens, compute_dtype) =>
  tokens * (4 * size.width + size.matrices * size.inner) * BYTES[compute_dtype];

/**
 * Bytes on each GPU, by part.
 * @param {Size} policy
 * @param {Size} teacher
 * @param {Size} truth
 * @param {Setting} setting
 */
export function memory(policy, teacher, truth, setting) {
  const { micro_batch, batch_size, prompt, reply, compute_dtype, frozen_dtype, rank, gpus } = setting;
  const [b, longest] = [BYTES[compute_dtype], prompt + reply];
  const logits = batch_size * longest * b * policy.width + Math.min(batch_size * reply, LOGITS) * policy.vocabulary * 8;
  const gathered = gpus > 1 ? policy.parameters * b : 0;
  return {
    ...trainingState(policy, setting),
    reference: rank ? 0 : policy.parameters * BYTES[frozen_dtype],
    "reward model": teacher.parameters * BYTES[frozen_dtype],
    "ground truth": truth.parameters * BYTES[frozen_dtype],
    "KV cache": batch_size * longest * policy.layers * policy.keys * 2 * b,
    "gathered weights": gathered,
    scoring: Math.max(
      gathered + Math.max(scoringPass(policy, batch_size * longest, compute_dtype), logits),
      scoringPass(teacher, batch_size * longest, frozen_dtype),
      scoringPass(truth, batch_size * longest, frozen_dtype),
    ),
    activations: gradientPass(policy, micro_batch, longest, reply, setting),
  };
}

/** @typedef {keyof ReturnType<typeof memory>} Part */

/** @type {Part[][]} */
export const TURNS = [["KV cache", "gathered weights"], ["scoring"], ["activations"]];

/**
 * Bytes at the peak: sampling, scoring and learning take turns.
 * @param {Record<Part, number>} parts
 * @returns {number}
 */
export function total(parts) {
  const turns = TURNS.map((turn) => turn.reduce((sum, part) => sum + parts[part], 0));
  const all = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  return all - turns.reduce((sum, bytes) => sum + bytes, 0) + Math.max(...turns);
}

/**
 * Seconds of one step.
 * @param {Size} policy
 * @param {Size} teacher
 * @param {Omit<Setting, "micro_batch" | "frozen_dtype" | "weights_dtype" | "optimizer"> & {replies: number, machine: Machine}} setting
 * @returns {{sampling: number, scoring: number, updating: number}}
 */
export function step(
  policy,
  teacher,
  { replies, batch_size, prompt, reply, machine, compute_dtype, gradient_checkpointing, rank, gpus },
) {
  const [matrix, tokens, shares] = [machine[compute_dtype] * gpus, replies * (prompt + reply), machine.shares];
  const cache =
    Math.min(replies, batch_size) * (prompt + reply) * policy.layers * policy.keys * 2 * BYTES[compute_dtype];
  const learnt = 6 + (gradient_checkpointing ? 2 : 0) - (rank ? 2 : 0);
  return {
    sampling:
      (Math.ceil(replies / (batch_size * gpus)) * reply * (policy.parameters * BYTES[compute_dtype] + cache / 2)) /
      (machine.bandwidth * shares.sampling),
    scoring: (tokens * 2 * (2 * policy.parameters + teacher.parameters)) / (matrix * shares.scoring),
    updating: (tokens * learnt * policy.parameters) / (matrix * shares.updating),
  };
}
