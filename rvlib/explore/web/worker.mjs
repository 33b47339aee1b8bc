// @ts-check
// Prepares what an explorable draws, outside the page's thread: work.mjs asks, and takes the results. A request that comes
// meanwhile ends the one before it.

let newest = 0;

addEventListener("message", async ({ data: { name, key, state } }) => {
  const request = ++newest;
  const { default: explorable } = await import(`./${name}.mjs`);
  for (const data of explorable.prepare(state)) {
    postMessage({ key, data });
    await new Promise((resume) => setTimeout(resume)); // so that a newer request is heard
    if (request !== newest) return;
  }
  postMessage({ key, last: true });
});
