// Generation of a text, a picture or speech from the items that are chosen.

import { byId, make, say, show } from "./dom.js";
import { addMade, items, titleOf } from "./items.js";
import { bytesOf, dataUrl, waveform } from "./media.js";
import { post, stream } from "./server.js";
import { t } from "./words.js";

const PATH = "v1/chat/completions";
const PICTURES = "v1/images/generations";
const SPEECH = "v1/audio/speech";
/** Pictures or utterances on the way to one, which is the most that the server sends. */
const PARTIAL = 3;
const PARTS = {
  text: (item) => ({ type: "text", text: item.text }),
  image: (item) => ({ type: "image_url", image_url: { url: item.url } }),
  audio: (item) => ({ type: "audio_url", audio_url: { url: item.url } }),
};
const TARGETS = ["text", "image", "speech"];
let running = null;
let generates = [];

function ordered() {
  const lang = byId("make-lang").value;
  const kinds = new Set(items.chosen.map((item) => item.kind));
  const asks = kinds.has("text") && kinds.size > 1 && !generates.includes("answers");
  const options = { ...(lang && { lang }), ...(asks && target() === "text" && { task: "describe" }) };
  return {
    model: items.model,
    messages: [{ role: "user", content: items.chosen.map((item) => PARTS[item.kind](item)) }],
    seed: Number(byId("make-seed").value),
    ...(Object.keys(options).length && { trimodal: options }),
  };
}

function target() {
  return document.querySelector("[name=target]:checked").value;
}

/** A text, shown as it is written. */
async function writeText(order, signal) {
  const body = make("p", { className: "body" });
  byId("made").replaceChildren(body);
  byId("made").hidden = false;
  for await (const event of stream(PATH, { ...order, stream: true }, signal)) {
    body.textContent += event.choices[0]?.delta.content ?? "";
  }
  return { kind: "text", text: body.textContent, name: body.textContent };
}

/** A picture of a text, shown as it is drawn. */
async function sketch({ model, seed }, prompt, signal) {
  const order = { model, prompt, seed, partial_images: PARTIAL, stream: true };
  let url = "";
  for await (const event of stream(PICTURES, order, signal)) {
    url = `data:image/${event.output_format};base64,${event.b64_json}`;
    if (event.type !== "image_generation.partial_image") continue;
    showPart("drawn", event.partial_image_index, { url, label: t("part_picture") });
  }
  return { kind: "image", url, name: t("made_picture") };
}

/** A text read aloud; what it will sound like is drawn as it is made. */
async function readAloud({ model, seed, trimodal }, input, signal) {
  const order = {
    model, input, seed, voice: "default", response_format: "wav", stream_format: "sse",
    trimodal: { ...trimodal, partial_sounds: PARTIAL },
  };
  const pieces = [];
  for await (const event of stream(SPEECH, order, signal)) {
    if (event.type === "speech.audio.delta") pieces.push(bytesOf(event.audio));
    if (event.type !== "speech.audio.partial") continue;
    const { url, seconds } = waveform(bytesOf(event.audio));
    showPart("spoken", event.partial_index, { url, label: t("part_speech", { n: seconds.toFixed(1) }) });
  }
  const url = await dataUrl(new Blob(pieces, { type: "audio/wav" }));
  return { kind: "audio", url, name: (await heard({ model, trimodal }, url, signal)) || t("made_speech") };
}

/** What the model hears in what it said. */
async function heard(order, url, signal) {
  if (!generates.includes("text")) return "";
  const messages = [{ role: "user", content: [PARTS.audio({ url })] }];
  return (await post(PATH, { ...order, messages }, signal)).choices[0].message.content;
}

function showPart(words, index, { url, label }) {
  const [n, of] = [index + 1, PARTIAL + 1];
  byId("make-progress").value = n / of;
  say(byId("make-status"), t(words, { n, of }));
  byId("made").replaceChildren(show("image", { url, label }));
  byId("made").hidden = false;
}

/** The text, if that is all there is: only what is made of it can be watched. */
function onlyText() {
  const [first, ...others] = items.chosen;
  return first.kind === "text" && !others.length ? first.text : null;
}

async function drawPicture(order, signal) {
  const text = onlyText();
  if (text && !order.trimodal) return sketch(order, text, signal);
  const answer = await post(PATH, { ...order, modalities: ["text", "image"] }, signal);
  const url = answer.choices[0].message.images[0].image_url.url;
  return { kind: "image", url, name: t("made_picture") };
}

async function speak(order, signal) {
  const text = onlyText();
  if (text) return readAloud(order, text, signal);
  const audio = { voice: "default", format: "wav" };
  const answer = await post(PATH, { ...order, modalities: ["text", "audio"], audio }, signal);
  const { data, transcript } = answer.choices[0].message.audio;
  return { kind: "audio", url: `data:audio/wav;base64,${data}`, name: transcript || t("made_speech") };
}

const MAKERS = { text: writeText, image: drawPicture, speech: speak };

function showMade(thing) {
  const empty = thing.kind === "text" && !thing.text;
  const shown = empty
    ? make("p", { className: "hint" }, t("empty_text"))
    : show(thing.kind, { text: thing.text, url: thing.url, label: thing.name });
  const keep = make("button", { type: "button", id: "keep" }, t("keep"));
  keep.addEventListener("click", () => addMade(thing));
  const words = thing.kind === "audio" ? [make("p", { className: "body" }, thing.name)] : [];
  byId("made").replaceChildren(shown, ...words, ...(empty ? [] : [keep]));
  byId("made").hidden = false;
}

async function run(event) {
  event.preventDefault();
  if (running || !items.chosen.length || !generates.length) return;
  running = new AbortController();
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  const clock = setInterval(() => { byId("make-time").textContent = t("seconds", { n: seconds() }); }, 100);
  byId("made").hidden = true;
  byId("make-progress").removeAttribute("value");
  say(byId("make-error"), "");
  say(byId("make-status"), t("making"));
  draw();
  try {
    showMade(await MAKERS[target()](ordered(), running.signal));
    say(byId("make-status"), t("done", { n: seconds() }));
  } catch (error) {
    const ended = error.name === "AbortError";
    say(byId("make-status"), ended ? t("cancelled") : "");
    if (!ended) say(byId("make-error"), error.message);
  } finally {
    clearInterval(clock);
    byId("make-time").textContent = "";
    const focused = document.activeElement === byId("cancel");
    running = null;
    draw();
    if (focused) byId("make").focus();
  }
}

function draw() {
  const chosen = items.chosen.map(titleOf).join(", ");
  byId("make-from").textContent = chosen ? t("make_from", { items: chosen }) : t("make_none");
  const ready = Boolean(chosen) && !running && generates.length > 0;
  byId("make").setAttribute("aria-disabled", String(!ready));
  byId("cancel").hidden = !running;
  byId("make-progress").hidden = !running;
  byId("make-cannot").hidden = generates.length > 0;
  byId("make-cannot").textContent = t("make_nothing");
}

/** Only what the model learnt can be asked for. */
export function setGenerates(kinds) {
  generates = kinds;
  for (const kind of TARGETS) {
    const radio = document.querySelector(`[name=target][value=${kind}]`);
    radio.disabled = !kinds.includes(kind);
    radio.checked = kind === TARGETS.find((one) => kinds.includes(one));
  }
  draw();
}

export function startMaking() {
  byId("make-form").addEventListener("submit", run);
  byId("cancel").addEventListener("click", () => running?.abort());
  items.addEventListener("change", draw);
  document.addEventListener("language", draw);
  draw();
}
