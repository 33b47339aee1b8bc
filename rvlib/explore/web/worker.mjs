// @ts-check
// Prepares what an explorable draws, outside the page's thread: work.mjs asks, and takes the results. A request that comes
// meanwhile ends the one before it.

const SPELL = 4; // milliseconds of work between two looks for a newer request

let newest = 0;

addEventListener("message", async ({ data: { name, key, state } }) => {
  const request = ++newest;
  const { default: explorable } = await import(`./${name}.mjs`);
  let looked = performance.now();
  for (const data of explorable.prepare(state)) {
    if (data) postMessage({ key, data });
    else if (performance.now() - looked < SPELL) continue;
    await new Promise((resume) => setTimeout(resume)); // so that a newer request is heard
    if (request !== newest) return;
    looked = performance.now();
  }
  postMessage({ key, last: true });
});
