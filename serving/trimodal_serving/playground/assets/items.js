// The items and their cards: items.all; items.addText("…"); items.addEventListener("change", …).

import { byId, make, say, show } from "./dom.js";
import { dataUrl, read, record } from "./media.js";
import { post } from "./server.js";
import { t } from "./words.js";

class Items extends EventTarget {
  all = [];
  model = "";
  #made = 0;

  get chosen() {
    return this.all.filter((item) => item.chosen);
  }

  addText(text) {
    return this.add({ kind: "text", text, name: text });
  }

  async addFile(file) {
    const { kind, url } = await read(file);
    return this.add({ kind, url, name: file.name });
  }

  /** Embed a thing and keep it; what the server does not take is not kept. */
  async add({ kind, text, url, name }) {
    const input = { [kind]: text ?? url };
    const answer = await post("v1/embeddings", { model: this.model, input: [input] });
    const vector = answer.data[0].embedding;
    const item = { id: ++this.#made, kind, text, url, name, input, vector, chosen: !this.all.length };
    this.all.push(item);
    this.#changed();
    return item;
  }

  /** Go on with another model, for which every item has another vector. */
  async use(model) {
    if (this.all.length) {
      const kept = [...this.all];
      const answer = await post("v1/embeddings", { model, input: kept.map((item) => item.input) });
      kept.forEach((item, i) => { item.vector = answer.data[i].embedding; });
    }
    this.model = model;
    this.#changed();
  }

  remove(item) {
    this.all.splice(this.all.indexOf(item), 1);
    this.#changed();
  }

  /** An input has at most one medium of a kind, so the others of its kind are not chosen any more. */
  choose(item, chosen) {
    for (const other of this.all) if (other.kind === item.kind) other.chosen = false;
    item.chosen = chosen;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const items = new Items();

export function titleOf(item) {
  const name = item.name.length > 24 ? `${item.name.slice(0, 23)}…` : item.name;
  return `${item.id} ${item.kind === "text" ? name : `${t(item.kind)} ${name}`}`;
}

let last = Promise.resolve();

/** Add what `adding` gives once it is there, and say so; one after the other, as they were asked for. */
function added(what, adding) {
  last = last.then(() => attempted(what, adding));
  return last;
}

async function attempted(what, adding) {
  say(byId("items-error"), "");
  say(byId("items-status"), t("reading", { what }));
  try {
    const item = await adding();
    say(byId("items-status"), t("added", { what: titleOf(item) }));
    return item;
  } catch (error) {
    say(byId("items-status"), "");
    say(byId("items-error"), error.message);
    return null;
  }
}

export async function addFiles(files) {
  for (const file of files) await added(file.name, () => items.addFile(file));
}

/** Add what was generated. */
export function addMade(thing) {
  return added(thing.name, () => items.add(thing));
}

function card(item) {
  const what = titleOf(item);
  const box = make("input", { type: "checkbox", checked: item.chosen, id: `use-${item.id}` });
  box.setAttribute("aria-label", t("use_item", { what }));
  box.addEventListener("change", () => {
    items.choose(item, box.checked);
    byId(`use-${item.id}`).focus();
  });
  const button = make("button", { type: "button", className: "remove" }, t("remove"));
  button.setAttribute("aria-label", t("remove_item", { what }));
  button.addEventListener("click", () => removed(item));
  return make("li", { className: "card" },
    make("div", { className: "head" }, `${item.id} · ${t(item.kind)}`, make("label", {}, box, t("use"))),
    show(item.kind, { text: item.text, url: item.url, label: what }),
    make("div", { className: "foot" }, make("span", {}, item.kind === "text" ? "" : item.name), button));
}

function removed(item) {
  const at = items.all.indexOf(item);
  items.remove(item);
  const buttons = byId("cards").querySelectorAll(".remove");
  (buttons[Math.min(at, buttons.length - 1)] ?? byId("text")).focus();
  say(byId("items-status"), t("removed", { what: titleOf(item) }));
}

function draw() {
  byId("cards").replaceChildren(...items.all.map(card));
}

export function startItems() {
  items.addEventListener("change", draw);
  document.addEventListener("language", draw);
  startText();
  startFiles();
  startRecording();
}

function startText() {
  let adding = false;
  byId("text-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (!text || adding) return;
    adding = true;
    const item = await added(text, () => items.addText(text));
    adding = false;
    // what was written meanwhile stays
    if (item && byId("text").value.trim() === text) byId("text").value = "";
  });
  byId("text").addEventListener("keydown", (event) => {
    // while a Chinese word is being composed, Enter ends the word
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("text-form").requestSubmit();
  });
}

function startFiles() {
  byId("choose").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", async (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    await addFiles(files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    addFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) addFiles(event.clipboardData.files);
  });
}

function startRecording() {
  const button = byId("record");
  let stop = null;
  let busy = false;
  const label = () => {
    button.dataset.t = stop ? "record_stop" : "record";
    button.textContent = t(button.dataset.t);
    button.classList.toggle("recording", Boolean(stop));
  };
  const toggle = async () => {
    if (!stop) {
      stop = await record();
      label();
      say(byId("items-status"), t("recording"));
      return;
    }
    const ending = stop;
    stop = null;
    label();
    await addFiles([await ending()]);
  };
  button.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    try {
      await toggle();
    } catch (error) {
      say(byId("items-error"), t("no_microphone", { why: error.message }));
    } finally {
      busy = false;
    }
  });
}
