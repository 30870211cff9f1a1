// Elements: byId("text"); make("li", { className: "card" }, "1", make("b", {}, "2")).

export function byId(id) {
  return document.getElementById(id);
}

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Say something to everybody, screen readers included, which hear what changes. */
export function say(node, words) {
  node.textContent = "";
  if (words) requestAnimationFrame(() => { node.textContent = words; });
}

/** Picture, player or words of a thing of some kind. */
export function show(kind, { text, url, label }) {
  if (kind === "image") {
    const image = make("img", { src: url, alt: label });
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 96));
    return image;
  }
  if (kind === "audio") {
    const player = make("audio", { src: url, controls: true });
    player.setAttribute("aria-label", label);
    return player;
  }
  return make("p", { className: "body" }, text);
}
