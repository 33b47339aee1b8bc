// @ts-check
// What a page does besides its figures and formulas: a way to the figure by keyboard, paper that is light whatever the
// screen is, and a search that understands Greek.

// The sidebar's links come before the figure: whoever goes by Tab may pass them.
const skip = document.querySelector(".skip-link");
const figure = document.querySelector("figure[data-explorable]");
if (skip && figure) {
  const toFigure = /** @type {HTMLAnchorElement} */ (skip.querySelector("a")?.cloneNode());
  toFigure.textContent = "Skip to the figure";
  toFigure.addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the figure's state
    figure.scrollIntoView();
    /** @type {HTMLElement | null} */ (figure.querySelector("input, select, button"))?.focus({ preventScroll: true });
  });
  skip.append(toFigure);
}

const page = document.documentElement;
let screen = page.dataset.theme;
addEventListener("beforeprint", () => {
  screen = page.dataset.theme;
  page.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  if (screen) page.dataset.theme = screen;
});

// The index has formulas as they are written in TeX: t_\gamma is the words "t_" and "gamma", however a reader writes it.
const GREEK =
  "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon phi chi psi omega";
const name = (/** @type {string} */ letter) => GREEK.split(" ")[letter.toLowerCase().charCodeAt(0) - "α".charCodeAt(0)];
const inTex = (/** @type {string} */ words) =>
  words
    .replace(/\\(?=[a-z])|[${}]/gi, "") // TeX itself
    .replace(/([a-z])_?([α-ω])/gi, "$1_ $2")
    .replace(/[α-ω]/gi, name)
    .replace(new RegExp(`\\b([a-z])_(?=(?:${GREEK.replaceAll(" ", "|")})\\b)`, "gi"), "$1_ ");
const address = new URL(location.href);
const query = address.searchParams.get("q");
if (query && document.querySelector("#search-results")) {
  address.searchParams.set("q", inTex(query));
  history.replaceState(null, "", address);
}
