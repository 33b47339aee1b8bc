// @ts-check
// What takes an explorable longer than a frame is done in a worker, in parts: prepare(state) is a generator whose every yield
// is a result to be drawn, each better than the one before it, or undefined, where it can be ended. It yields several times a
// frame, since a newer state waits until then. Without workers, in a notebook and in Node, the last result is waited for.

/** @typedef {any} Data what a worker can send: no functions */
/** @typedef {(state: any) => Generator<Data>} Prepare */

/**
 * `make`, which remembers its last results: what a slider does not concern is not done again.
 * @template I, T
 * @param {(input: I) => T} make
 * @param {number} [count] of the results
 * @returns {(input: I) => T}
 */
export function remembering(make, count = 1) {
  /** @type {Map<string, T>} */
  const known = new Map();
  return (input) => {
    const key = JSON.stringify(input);
    if (!known.has(key)) {
      const made = make(input);
      if (known.size >= count) known.delete(String(known.keys().next().value));
      known.set(key, made);
    }
    return /** @type {T} */ (known.get(key));
  };
}

/** @type {(results: Generator<Data>) => Data} the last of them */
export function finished(results) {
  let last;
  for (const result of results) last = result ?? last;
  return last;
}

/** @type {(state: any, keys: string[]) => string} what of the state the results depend on */
const keyOf = (state, keys) => JSON.stringify(keys.map((key) => state[key]));

/**
 * Results for a state as it moves: the newest that there are, with whether better ones are on their way.
 * @param {string} name of the explorable, whose module the worker imports
 * @param {Prepare} prepare
 * @param {string[]} keys of the state that the results depend on
 * @param {() => void} arrived called when there are better ones
 */
export function results(name, prepare, keys, arrived) {
  /** @type {{key: string, data: Data, whole: boolean} | undefined} */
  let newest;
  let asked = "";
  /** @type {Worker | undefined} */
  let worker;
  try {
    // A module that a notebook inlines has no address from which another could be fetched.
    if (import.meta.url.startsWith("http"))
      worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  } catch {
    worker = undefined;
  }
  if (worker) {
    worker.onmessage = ({ data: { key, data, last } }) => {
      if (key !== asked) return;
      if (!last) newest = { key, data, whole: false };
      else if (newest) newest.whole = true;
      if (last) asked = "";
      arrived();
    };
    worker.onerror = () => {
      worker = undefined;
      asked = "";
      arrived();
    };
  }
  return {
    /** @type {(state: any) => {data: Data, waiting: boolean}} */
    of(state) {
      const key = keyOf(state, keys);
      if (!newest || (!worker && newest.key !== key)) newest = { key, data: finished(prepare(state)), whole: true };
      const waiting = newest.key !== key || !newest.whole;
      if (!waiting)
        asked = ""; // what is still on its way for another state is not wanted
      else if (asked !== key) worker?.postMessage({ name, key: (asked = key), state });
      return { data: newest.data, waiting };
    },
    stop: () => worker?.terminate(),
  };
}
