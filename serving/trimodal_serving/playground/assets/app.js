// The page as a whole: its language, its theme, and the model behind it.

import { byId } from "./dom.js";
import { items, startItems } from "./items.js";
import { setGenerates, startMaking } from "./making.js";
import { startMatrix } from "./matrix.js";
import { startSearching } from "./searching.js";
import { get } from "./server.js";
import { setLanguage, t } from "./words.js";

const RETRY_MS = 1000;

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // a browser that keeps nothing forgets the choice
  }
}

function remembered(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function startSwitches() {
  const language = byId("language");
  language.value = remembered("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
  language.addEventListener("change", () => {
    remember("language", language.value);
    setLanguage(language.value);
  });
  const theme = byId("theme");
  theme.value = remembered("theme") ?? "";
  const apply = () => { document.documentElement.dataset.theme = theme.value; };
  theme.addEventListener("change", () => {
    remember("theme", theme.value);
    apply();
  });
  apply();
  setLanguage(language.value);
}

/** The model, once it is loaded. */
async function ready() {
  for (;;) {
    try {
      await get("readyz");
      return (await get("v1/models")).data[0];
    } catch (error) {
      const words = error.code === "loading" ? t("model_waits") : error.message;
      if (byId("model").textContent !== words) byId("model").textContent = words;
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
    }
  }
}

function describe(model) {
  const kinds = model.generates.map((kind) => t(kind)).join(", ");
  byId("model").textContent = kinds
    ? t("model_ready", { name: model.id, kinds })
    : t("model_embeds", { name: model.id });
}

startSwitches();
startItems();
startMatrix();
startMaking();
const model = await ready();
items.model = model.id;
describe(model);
document.addEventListener("language", () => describe(model));
setGenerates(model.generates);
await startSearching();
document.documentElement.dataset.ready = "true";
