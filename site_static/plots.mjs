// @ts-check
// Draws the Plotly figures of a static page: the page holds their JSON, and one copy of Plotly is loaded when the first one
// comes near the screen, so that pages without figures, and readers who do not scroll, never load it.

const source = new URL("vendor/plotly.min.js", import.meta.url);

let plotly;
const load = () =>
  (plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source.href;
    script.onload = () => resolve(/** @type {any} */ (window).Plotly);
    script.onerror = () => reject(new Error("Plotly could not be loaded"));
    document.head.append(script);
  }));

/** The page's text colour, so that a figure can be read on light and on dark. */
const text = () => ({ "font.color": getComputedStyle(document.body).color });

async function draw(box) {
  const { data, layout } = JSON.parse(box.querySelector("script").textContent);
  const library = await load();
  const place = document.createElement("div");
  place.style.minHeight = `${layout.height ?? layout.template?.layout?.height ?? 380}px`;
  box.append(place);
  await library.newPlot(place, data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: false,
    scrollZoom: false,
  });
  await library.relayout(place, text());
  box.dataset.drawn = "";
}

/** @type {NodeListOf<HTMLElement>} */
const figures = document.querySelectorAll(".rv-plotly");
const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) {
        seen.unobserve(target);
        draw(target);
      }
  },
  { rootMargin: "600px" },
);
figures.forEach((figure) => seen.observe(figure));

// Light or dark: the theme's switch and the system's both end in another colour of the page's text.
const recolour = () =>
  document
    .querySelectorAll(".rv-plotly[data-drawn] > div")
    .forEach((place) => /** @type {any} */ (window).Plotly.relayout(place, text()));
new MutationObserver(recolour).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
// On paper all of them are wanted, seen or not.
addEventListener("beforeprint", () => figures.forEach((figure) => "drawn" in figure.dataset || draw(figure)));
