// What policy gradient costs, in bytes and seconds: a port of rvlib.lm.cost, which says why each term is there.

import { BYTES, MOMENTS, SHARE } from "./sizes.mjs";

const adapter = (size, rank) => rank * size.layers * (4 * size.width + 2 * (size.width + size.keys) + 3 * (size.width + size.inner));

export function activations(size, tokens, longest, { compute, checkpointing }) {
  const b = BYTES[compute];
  const layer = (8 * b + 8) * size.width + 4 * b * size.inner + b * longest + 8;
  const kept = checkpointing ? size.layers * b * size.width + layer : size.layers * layer;
  return tokens * (kept + (4 + b) * size.width);
}

function learning(size, { optimizer, dtype, compute, rank, gpus }) {
  const learns = rank ? adapter(size, rank) : size.parameters;
  const number = BYTES[dtype];
  const copies = dtype === "float32" && compute === "bfloat16" ? 2 : 0;
  const frozen = rank ? size.parameters * (gpus > 1 ? 4 : BYTES[compute]) : 0;
  const kept = gpus > 1 && !rank ? 0 : copies;
  return { weights: frozen / gpus + learns * (number / gpus + kept), gradients: (learns * (number + kept)) / gpus, optimiser: (learns * MOMENTS[optimizer]) / gpus };
}

/** {part: bytes} on each GPU. */
export function memory(policy, teacher, truth, setting) {
  const { micro_batch, rows, prompt, reply, compute, frozen, rank, gpus } = setting;
  const [b, longest] = [BYTES[compute], prompt + reply];
  return {
    ...learning(policy, setting),
    reference: rank ? 0 : policy.parameters * BYTES[frozen],
    "reward model": teacher.parameters * BYTES[frozen],
    "ground truth": truth.parameters * BYTES[frozen],
    "KV cache": rows * longest * policy.layers * policy.keys * 2 * b,
    "gathered weights": gpus > 1 ? policy.parameters * b : 0,
    scoring: rows * longest * (2 * policy.width + 3 * policy.inner) * b + rows * reply * policy.vocabulary * 8,
    activations: activations(policy, micro_batch * longest, longest, setting) + micro_batch * reply * policy.vocabulary * 12,
  };
}

export const TURNS = [["KV cache", "gathered weights"], ["scoring"], ["activations"]];

/** Bytes at the peak: sampling, scoring and learning take turns. */
export function total(parts) {
  const turns = TURNS.map((some) => some.reduce((sum, part) => sum + parts[part], 0));
  const all = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  return all - turns.reduce((sum, bytes) => sum + bytes, 0) + Math.max(...turns);
}

/** Seconds of one step: {sampling, scoring, updating}. */
export function step(policy, teacher, { batch, rows, prompt, reply, machine, compute, checkpointing, rank, gpus }) {
  const [matrix, tokens] = [machine[compute] * SHARE * gpus, batch * (prompt + reply)];
  const cache = Math.min(batch, rows) * (prompt + reply) * policy.layers * policy.keys * 2 * BYTES[compute];
  const learnt = 6 + (checkpointing ? 2 : 0) - (rank ? 2 : 0);
  return {
    sampling: (Math.ceil(batch / (rows * gpus)) * reply * (policy.parameters * BYTES[compute] + cache / 2)) / (machine.bandwidth * SHARE),
    scoring: (tokens * 2 * (2 * policy.parameters + teacher.parameters)) / matrix,
    updating: (tokens * learnt * policy.parameters) / matrix,
  };
}
