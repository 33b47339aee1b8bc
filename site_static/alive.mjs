// @ts-check
// What a reader sees first are the figures: what takes longer, formulas and plots, waits until they have come to life, and
// then until their reader has had time to move them, and then for moments in which the page has nothing else to do.

const PATIENCE = 3000; // ms after which nothing waits for a figure
const REST = 500; // ms for which a page's reader touches nothing before it does what takes longer
const NEAR = 600; // pixels from the screen within which explore/mount.mjs brings a figure to life

/** Until a figure shows itself. @type {(figure: HTMLElement) => Promise<void>} */
const mounted = (figure) =>
  new Promise((resolve) => {
    const look = () => {
      if ("mounted" in figure.dataset) resolve();
    };
    new MutationObserver(look).observe(figure, { attributes: true, attributeFilter: ["data-mounted"] });
    look();
  });

/** @type {(element: Element) => boolean} */
const isNear = (element) => {
  const { top, bottom } = element.getBoundingClientRect();
  return top < innerHeight + NEAR && bottom > -NEAR;
};

const figures = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("figure[data-explorable]")]);
export const hasFigures = figures.length > 0;

/** @type {Set<HTMLElement>} */
const waitedFor = new Set(); // once each, for a figure that is folded away does not come to life

let answersUntil = 0; // ms of the page's time: until then it has nothing to do but to answer its reader
const answer = (/** @type {number} */ ms) => (answersUntil = Math.max(answersUntil, performance.now() + ms));
for (const touch of ["pointerdown", "keydown", "input"])
  addEventListener(touch, () => answer(REST), { capture: true, passive: true });

/** Until the page is there, and then as long again: a slow computer, or a slow line, takes its reader longer too. */
const opened = new Promise((resolve) => {
  if (document.readyState === "complete") resolve(undefined);
  else addEventListener("load", resolve, { once: true });
}).then(() => answer(Math.min(PATIENCE, performance.now())));

/**
 * Until the figures that are in sight, or soon will be, have come to life, and nobody moves them.
 * @type {() => Promise<void>}
 */
export async function alive() {
  const near = figures.filter((figure) => !waitedFor.has(figure) && isNear(figure));
  await Promise.race([Promise.all(near.map(mounted)), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  near.forEach((figure) => waitedFor.add(figure));
  if (!hasFigures) return;
  await opened;
  while (performance.now() < answersUntil)
    await new Promise((resolve) => setTimeout(resolve, answersUntil - performance.now()));
}

/**
 * Until the page has nothing else to do, or so many milliseconds have passed.
 * @type {(longest?: number) => Promise<unknown>}
 */
export const idle = (longest) =>
  new Promise((resolve) =>
    "requestIdleCallback" in window
      ? requestIdleCallback(resolve, longest ? { timeout: longest } : {})
      : setTimeout(resolve, Math.min(200, longest ?? 200)),
  );
