// The table of cosines between all items.

import { byId, make } from "./dom.js";
import { items, titleOf } from "./items.js";
import { t } from "./words.js";

/** Of unit vectors. */
export function cosine(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

function cell(value) {
  const node = make("td", {}, value.toFixed(3));
  node.style.setProperty("--hue", value < 0 ? "var(--opposite)" : "var(--alike)");
  node.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.abs(value)))}%`);
  return node;
}

function heading(item, scope) {
  const title = titleOf(item);
  return make("th", { scope, title }, scope === "col" ? String(item.id) : title);
}

function draw() {
  const all = items.all;
  if (all.length < 2) {
    byId("matrix-scroll").replaceChildren(make("p", { className: "hint" }, t("matrix_none")));
    return;
  }
  const corner = make("td", {});
  const head = make("tr", {}, corner, ...all.map((item) => heading(item, "col")));
  const rows = all.map((row) => make("tr", {}, heading(row, "row"),
    ...all.map((column) => cell(cosine(row.vector, column.vector)))));
  const caption = make("caption", { className: "unseen" }, t("matrix_caption"));
  byId("matrix-scroll").replaceChildren(
    make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...rows)));
}

export function startMatrix() {
  items.addEventListener("change", draw);
  document.addEventListener("language", draw);
  draw();
}
