// @ts-check
// What a reader sees first are the figures: what takes longer, formulas and plots, waits until they have come to life, and
// then for moments in which the page has nothing else to do.

const PATIENCE = 3000; // ms after which nothing waits for a figure
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

/** Until the figures that are in sight, or soon will be, have come to life. @type {() => Promise<void>} */
export async function alive() {
  const near = figures.filter((figure) => !waitedFor.has(figure) && isNear(figure));
  await Promise.race([Promise.all(near.map(mounted)), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  near.forEach((figure) => waitedFor.add(figure));
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
