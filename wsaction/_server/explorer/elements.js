// Elements: creates the DOM of the page. Data from the server is only inserted as text, never as HTML.

/** Creates an element: `element("button", {class: "quiet", onclick: send}, "Send")`. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A control below its label. */
function labelled(text, control) {
  return element("div", { class: "field" }, element("label", { for: control.id }, text), control);
}

const byId = (id) => document.getElementById(id);

const TOKENS = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** A value as highlighted JSON. */
function asCode(value) {
  const text = pretty(value);
  const code = element("code");
  let end = 0;
  for (const found of text.length > 20_000 ? [] : text.matchAll(TOKENS)) {
    code.append(text.slice(end, found.index));
    const kind = found[1] ? (found[2] ? "key" : "text") : found[3] ? "word" : "number";
    code.append(element("span", { class: kind }, found[1] ?? found[0]), found[2] ?? "");
    end = found.index + found[0].length;
  }
  code.append(text.slice(end));
  return element("pre", { tabindex: "0" }, code);
}

/** Copies text to the clipboard, and shows a message. */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { class: "away", value: text }); // the Clipboard API needs a secure context
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(`Copied ${what}`);
}

let toastEnds = 0;

function toast(text) {
  clearTimeout(toastEnds);
  byId("toast").textContent = text;
  toastEnds = setTimeout(() => (byId("toast").textContent = ""), 2500);
}
