// Indexes: made, filled with the items, and searched by one of them.

import { byId, make, say, show } from "./dom.js";
import { items, titleOf } from "./items.js";
import { thumbnail } from "./media.js";
import { get, post } from "./server.js";
import { t } from "./words.js";

let indexes = [];
let found = [];

/** Do something and say what came of it, or what went wrong. */
async function reported(action) {
  say(byId("index-error"), "");
  say(byId("index-status"), "");
  try {
    say(byId("index-status"), await action());
  } catch (error) {
    say(byId("index-error"), error.message);
  }
}

async function refresh(chosen = byId("index-chosen").value) {
  indexes = (await get("v1/indexes")).data;
  draw();
  if (indexes.some((index) => index.name === chosen)) byId("index-chosen").value = chosen;
}

/** What search will show of an item: an index keeps vectors, and this beside them. */
async function entry(item) {
  const payload = { name: [...item.name].slice(0, 1000).join("") };
  if (item.kind === "image") payload.picture = await thumbnail(item.url);
  return { id: `${item.kind}-${crypto.randomUUID()}`, input: item.input, payload };
}

async function create() {
  const name = byId("index-name").value.trim();
  await post("v1/indexes", { name });
  byId("index-name").value = "";
  await refresh(name);
  return t("index_created", { name });
}

async function put() {
  const name = byId("index-chosen").value;
  if (!items.all.length || !name) throw new Error(t("nothing_chosen"));
  const entries = await Promise.all(items.all.map(entry));
  await post(`v1/indexes/${name}/items`, { model: items.model, items: entries });
  await refresh();
  return t("index_put", { n: entries.length, name });
}

async function search() {
  const item = items.all.find((one) => String(one.id) === byId("search-by").value);
  if (!item) throw new Error(t("nothing_chosen"));
  const index = byId("index-chosen").value;
  const answer = await post("v1/search", { model: items.model, index, query: item.input, k: 12 });
  found = answer.data;
  draw();
  return t("found", { n: found.length });
}

function result(one) {
  const name = one.payload?.name ?? one.id;
  const picture = one.payload?.picture;
  const shown = picture
    ? show("image", { url: picture, label: name })
    : show("text", { text: name });
  return make("li", { className: "card" },
    make("div", { className: "head" },
      make("span", {}, t(one.modality)), make("span", {}, t("score", { n: one.score.toFixed(3) }))),
    shown);
}

function options(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, words]) => make("option", { value }, words)));
  if (entries.some(([value]) => value === before)) select.value = before;
}

function draw() {
  options(byId("index-chosen"), indexes.map(({ name, items: n }) => [name, t("index_entry", { name, n })]));
  options(byId("search-by"), items.all.map((item) => [String(item.id), titleOf(item)]));
  byId("found").replaceChildren(...found.map(result));
}

export async function startSearching() {
  const submitted = (form, action) => byId(form).addEventListener("submit", (event) => {
    event.preventDefault();
    reported(action);
  });
  submitted("create-form", create);
  submitted("search-form", search);
  byId("index-add").addEventListener("click", () => reported(put));
  items.addEventListener("change", draw);
  document.addEventListener("language", draw);
  try {
    await refresh();
    byId("index").hidden = false;
  } catch (error) {
    const none = byId("index-none");
    none.hidden = false;
    if (error.code === "no_indexes") return;
    delete none.dataset.t;
    none.textContent = error.message;
  }
}
