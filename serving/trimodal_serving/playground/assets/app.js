// The page as a whole: its language, its theme, and the model behind it.

import { byId, make, say } from "./dom.js";
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

/** The models, once they are loaded. */
async function ready() {
  for (;;) {
    try {
      await get("readyz");
      return (await get("v1/models")).data;
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

async function use(model) {
  await items.use(model.id);
  describe(model);
  setGenerates(model.generates);
}

/** Where there are several models, one is chosen. */
function startChoice(models) {
  const chosen = byId("model-chosen");
  const named = (id) => models.find((model) => model.id === id);
  chosen.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  byId("model-switch").hidden = models.length === 1;
  chosen.addEventListener("change", async () => {
    say(byId("items-error"), "");
    try {
      await use(named(chosen.value));
    } catch (error) {
      chosen.value = items.model;
      say(byId("items-error"), error.message);
    }
  });
  document.addEventListener("language", () => describe(named(items.model)));
}

startSwitches();
startItems();
startMatrix();
startMaking();
const models = await ready();
startChoice(models);
await use(models[0]);
await startSearching();
document.documentElement.dataset.ready = "true";
