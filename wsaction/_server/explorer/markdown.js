// Markdown: docstrings as paragraphs, lists, code, emphasis and links. It only creates elements and text, so HTML in a
// docstring stays text. Fields such as `:param name: text` are items of a list.

const FENCE = /^\s*(```+|~~~+)/;
const ITEM = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/;
const FIELD = /^\s*:(\w+)(?: ([^:]+))?:\s*(.*)$/;
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const INLINE = new RegExp(
  [
    /(?<ticks>`+)(?<code>(?:(?!\k<ticks>).)+?)\k<ticks>(?!`)/,
    /\[(?<label>[^\]]+)\]\((?<href>[^\s)]+)\)/,
    /(?<![\w*])\*\*(?=[^\s*])(?<strong>.+?)(?<=[^\s*])\*\*(?!\*)/,
    /(?<![\w*])\*(?=[^\s*])(?<star>.+?)(?<=[^\s*])\*(?![\w*])/,
    /(?<!\w)_(?=[^\s_])(?<line>.+?)(?<=[^\s_])_(?!\w)/,
  ].map((one) => one.source).join("|"),
  "gs",
);

/** The blocks of a text, as elements. */
function markdown(text) {
  const lines = String(text).split("\n");
  const blocks = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else blocks.push(takeCode(lines) ?? takeList(lines) ?? element("p", {}, inline(takeText(lines).join("\n"))));
  }
  return blocks;
}

/** The parts of a line of text, as nodes: code, emphasis and links. */
function inline(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    const { code, label, href, strong, star, line } = found.groups;
    if (href && !SAFE_LINK.test(href)) continue;
    nodes.push(text.slice(end, found.index));
    if (code !== undefined) nodes.push(element("code", {}, code.trim()));
    else if (href) nodes.push(element("a", { href, target: "_blank", rel: "noopener noreferrer" }, inline(label)));
    else nodes.push(element(strong ? "strong" : "em", {}, inline(strong ?? star ?? line)));
    end = found.index + found[0].length;
  }
  return [...nodes, text.slice(end)];
}

/** Takes a block of code from the lines: fenced, indented, or a session of the interpreter. */
function takeCode(lines) {
  const fence = FENCE.exec(lines[0])?.[1];
  const code = [];
  if (fence) {
    lines.shift();
    while (lines.length && !lines[0].trim().startsWith(fence)) code.push(lines.shift());
    lines.shift();
  } else if (/^( {4}|\t)/.test(lines[0])) {
    while (lines.length && (/^( {4}|\t)/.test(lines[0]) || !lines[0].trim())) code.push(lines.shift().replace(/^( {4}|\t)/, ""));
  } else if (lines[0].startsWith(">>>")) {
    while (lines.length && lines[0].trim()) code.push(lines.shift());
  } else return null;
  return element("pre", { tabindex: "0" }, element("code", {}, code.join("\n").trimEnd()));
}

function takeList(lines) {
  if (!startsItem(lines[0])) return null;
  const isNumbered = ITEM.exec(lines[0])?.[1] !== undefined;
  const items = [];
  while (lines.length && startsItem(lines[0])) {
    const field = FIELD.exec(lines[0]);
    const [first, ...more] = takeText(lines);
    const text = [field ? field[3] : ITEM.exec(first)[2], ...more].join("\n");
    items.push(element("li", {}, field ? [element("code", {}, field[2] ?? field[1]), " "] : null, inline(text)));
  }
  return element(isNumbered ? "ol" : "ul", {}, items);
}

/** Takes the lines of one paragraph or item. */
function takeText(lines) {
  const text = [lines.shift()];
  while (lines.length && lines[0].trim() && !startsItem(lines[0]) && !FENCE.test(lines[0])) text.push(lines.shift());
  return text;
}

function startsItem(line) {
  return ITEM.test(line) || FIELD.test(line);
}
