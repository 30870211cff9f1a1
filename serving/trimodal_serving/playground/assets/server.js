// The server: await post("v1/embeddings", {…}); for await (const event of stream(…)).

import { t } from "./words.js";

export class ServerError extends Error {
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(t("no_server"));
  }
  if (answer.ok) return answer;
  const tree = await answer.json().catch(() => ({}));
  const message = tree.error?.message ?? t("bad_answer", { status: answer.status });
  throw new ServerError(message, tree.error?.code);
}

function posted(body, signal) {
  const headers = { "content-type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

export async function get(path) {
  return (await answered(path, {})).json();
}

export async function post(path, body, signal) {
  return (await answered(path, posted(body, signal))).json();
}

/** The data of server-sent events, up to `[DONE]`; an event with an error is thrown. */
export async function* stream(path, body, signal) {
  const answer = await answered(path, posted(body, signal));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const tree = JSON.parse(event.slice("data: ".length));
      if (tree.error) throw new ServerError(tree.error.message, tree.error.code);
      yield tree;
    }
  }
}
