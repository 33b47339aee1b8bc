// @ts-check
// Typesets the formulas of a page by the book's own MathJax, once the figures in sight have come to life: they are what a
// reader sees first, and the formulas of a long page take a slow computer seconds.

import { alive, hasFigures, idle } from "./alive.mjs";

const BATCH = hasFigures ? 5 : 200; // formulas between which the page answers its reader; the first ones of a page
const LONGEST_BATCH = 50; // ms that they take, if the computer is not so slow that one takes longer
const LONGEST_WAIT = 500; // ms after which the next batch waits no longer for the page to be idle

/**
 * Until the figures that are now in sight have come to life, and one that its reader moves is drawn. A page without figures does
 * not wait, since its lines would move longer.
 */
const breath = () =>
  hasFigures ? alive().then(() => idle(LONGEST_WAIT)) : new Promise((resolve) => setTimeout(resolve));

// MathJax's lines stand by a typeface of its own that has no letters; one that came after its formulas would move them. When a
// typeface is added, the whole page is laid out again, so it is added no sooner than the first formulas are set.
const zero = new URL("vendor/mathjax/font/chtml/woff2/mjx-ncm-zero.woff2", import.meta.url);
const lines = () =>
  new FontFace("MJX-NCM-ZERO", `url("${zero.href}")`).load().then(
    (face) => document.fonts.add(face),
    () => {}, // then they move
  );

// A formula wider than its column scrolls in its own box, which Tab then reaches. Whether it is wider changes with the
// width of the page, and when a fold is opened.
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  }
});

const page = /** @type {any} */ (window);
const { options } = page.MathJax ?? {}; // what Sphinx says of where formulas stand
page.MathJax = {
  options,
  // The five parts that the book needs; the combined file has a menu and a reader of 0.5 MB more.
  loader: {
    load: ["core", "input/tex", "output/chtml", "a11y/assistive-mml"],
    paths: { "mathjax-newcm": "[mathjax]/font" },
  },
  output: { font: "mathjax-newcm", displayOverflow: "linebreak", linebreaks: { inline: true, lineleading: 0.4 } },
  startup: {
    ready() {
      delete page.MathJax.config.options.menuOptions; // set by a part for a menu that is not there
      page.MathJax.startup.defaultReady();
    },
    async pageReady() {
      await lines();
      const formulas = [...document.querySelectorAll(".math")];
      let count = BATCH;
      while (formulas.length) {
        await breath();
        const batch = formulas.splice(0, count);
        const started = performance.now();
        await page.MathJax.typesetPromise(batch);
        if (hasFigures) count = Math.ceil((count * LONGEST_BATCH) / (performance.now() - started));
        for (const formula of batch)
          formula.querySelectorAll("mjx-container[display]").forEach((box) => boxes.observe(box));
      }
      document.documentElement.dataset.typeset = ""; // plots out of sight wait for it
      dispatchEvent(new Event("typeset"));
    },
  },
};
await breath();
document.head.append(
  Object.assign(document.createElement("script"), {
    src: new URL("vendor/mathjax/startup.js", import.meta.url).href,
  }),
);
