// The book's ES modules, for pages that are opened from a file (scripts/offline.py).
const sources = SOURCES;
const here = document.currentScript;
const root = new URL(".", here.src);
const made = new Map();
// A module's text as an address: what it imports is made first, and it is told where it would lie on a server.
const address = (name) => {
  if (!made.has(name)) {
    const folder = name.slice(0, name.lastIndexOf("/") + 1);
    const text = sources[name]
      .replaceAll("import.meta.url", JSON.stringify(new URL(name, root).href))
      .replace(
        /(\bfrom\s*|\bimport\s*)"\.\/([\w-]+\.mjs)"/g,
        (all, head, other) => `${head}"${address(folder + other)}"`,
      )
      .replace(/\bimport\(`\.\//g, "rvImport(`" + folder);
    made.set(name, URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  }
  return made.get(name);
};
window.rvImport = (name) => import(address(name));
document.addEventListener("DOMContentLoaded", () => {
  for (const name of here.dataset.modules.split(" ")) rvImport(name); // none waits for another: formulas wait for figures
});
