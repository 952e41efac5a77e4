// Fields: builds forms from schemas. A control has
// - `node`, `read()`, which may throw a Mistake, and `write(value)`,
// - `draft()`, what is filled in so far, and `restore(draft)`, which takes of another form's draft what fits,
// - `locate(path)`, the node of the value at a path, as in the `loc` of an error.

/** An invalid input of the user, with the control to show it at. */
class Mistake extends Error {
  constructor(message, node) {
    super(message);
    this.node = node;
  }
}

let fieldCount = 0;

/** A control for a single value. */
function leaf(node, read, write, fits = () => true) {
  const draft = () => {
    try {
      return read();
    } catch (mistake) {
      if (!(mistake instanceof Mistake)) throw mistake;
      return undefined; // nothing valid is filled in yet
    }
  };
  return { node, read, write, draft, restore: (value) => fits(value) && write(value), locate: () => node };
}

/** A named value of an object: its label, its control and, if it is optional, a checkbox to include it. */
function makeField(document_, name, schema, required, changed) {
  const { schema: plain } = kindOf(document_, schema);
  const id = `field-${++fieldCount}`;
  const node = element("div", { class: "field" });
  const holder = element("div", { class: "holder" });
  let control = null;
  const build = () => {
    if (control) return;
    control = makeControl(document_, schema, changed, id);
    if ("default" in plain) control.write(plain.default);
    if (control.node.matches("[role=group]")) control.node.setAttribute("aria-label", name);
    holder.append(control.node);
  };
  const box = required ? null : element("input", { type: "checkbox", id: `${id}-has`, "aria-label": `Send ${name}` });
  const isGroup = ["object", "array"].includes(kindOf(document_, schema).kind);
  const label = required && isGroup ? element("span", { class: "label" }, name) : element("label", { for: required ? id : `${id}-has` }, name);
  const head = element("div", { class: "head" }, box, label, element("span", { class: "faint" }, describeType(document_, schema)));
  const show = () => {
    if (required || box.checked) build();
    holder.hidden = !(required || box.checked);
  };
  box?.addEventListener("change", () => {
    show();
    if (box.checked) holder.querySelector("input, select, textarea, button")?.focus();
    changed();
  });
  node.append(head);
  if (plain.description) node.append(element("div", { class: "hint" }, markdown(plain.description)));
  node.append(holder);
  show();
  const include = () => {
    if (box) box.checked = true;
    show();
  };
  return {
    name,
    node,
    present: () => required || box.checked,
    read: () => control.read(),
    write(value) {
      include();
      control.write(value);
    },
    draft: () => (required || box.checked ? control.draft() : undefined),
    restore(draft) {
      include();
      control.restore(draft);
    },
    locate: (path) => (holder.hidden ? box : control.locate(path)),
    clear() {
      if (box) box.checked = false;
      show();
    },
  };
}

/** Creates the control for a schema. */
function makeControl(document_, schema, changed, id) {
  const { kind, schema: plain, nullable } = kindOf(document_, schema);
  const makers = { choice, string, integer: number, number, boolean, object, array, json };
  const control = makers[kind](document_, plain, changed, id);
  return nullable ? orNull(control, changed) : control;
}

function string(document_, schema, changed, id) {
  const node = element(schema.maxLength > 200 ? "textarea" : "input", { id, oninput: changed, autocomplete: "off", spellcheck: "false" });
  const samples = { "date-time": "2026-11-23T12:00:00Z", date: "2026-11-23", time: "12:00:00", uuid: "00000000-0000-4000-8000-000000000000" };
  node.placeholder = samples[schema.format] ?? String(schema.examples?.[0] ?? "");
  return leaf(node, () => node.value, (value) => (node.value = value ?? ""), (value) => typeof value === "string");
}

function number(document_, schema, changed, id) {
  const isInteger = schema.type === "integer";
  const node = element("input", { id, oninput: changed, inputmode: isInteger ? "numeric" : "decimal", autocomplete: "off" });
  const read = () => {
    const text = node.value.trim();
    const value = Number(text);
    if (text === "" || !Number.isFinite(value)) throw new Mistake("Enter a number.", node);
    if (isInteger && !Number.isSafeInteger(value)) throw new Mistake("Enter a whole number.", node);
    return value;
  };
  return leaf(node, read, (value) => (node.value = value ?? ""), (value) => typeof value === "number");
}

function choice(document_, schema, changed, id) {
  const values = schema.enum ?? [schema.const];
  const labelOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const node = element("select", { id, onchange: changed }, values.map((one, at) => element("option", { value: String(at) }, labelOf(one))));
  const write = (value) => {
    const at = values.findIndex((one) => JSON.stringify(one) === JSON.stringify(value));
    if (at >= 0) node.selectedIndex = at;
  };
  return leaf(node, () => values[node.selectedIndex], write);
}

function boolean(document_, schema, changed, id) {
  return choice(document_, { enum: [false, true] }, changed, id);
}

function json(document_, schema, changed, id) {
  const node = element("textarea", { id, rows: "3", class: "code", oninput: changed, spellcheck: "false", placeholder: "JSON" });
  const read = () => {
    try {
      return JSON.parse(node.value);
    } catch (error) {
      throw new Mistake(node.value.trim() ? `Invalid JSON: ${error.message}` : "Enter JSON.", node);
    }
  };
  return leaf(node, read, (value) => (node.value = JSON.stringify(value, null, 2)));
}

function object(document_, schema, changed, id) {
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties).map(([name, one]) => makeField(document_, name, one, required.includes(name), changed));
  const node = element("div", { class: "nested", id, role: "group", tabindex: "-1" }, fields.map((one) => one.node));
  const others = {}; // keys of a loaded value that the schema does not name
  const read = () => ({ ...others, ...readFields(fields) });
  const write = (value) => {
    for (const name of Object.keys(others)) delete others[name];
    writeFields(fields, value ?? {}, others);
  };
  const draft = () => Object.fromEntries(fields.map((one) => [one.name, one.draft()]).filter(([, value]) => value !== undefined));
  const restore = (values) => restoreFields(fields, values);
  const locate = ([name, ...rest]) => fields.find((one) => one.name === name)?.locate(rest) ?? node;
  return { node, read, write, draft, restore, locate };
}

function array(document_, schema, changed, id) {
  const items = [];
  const list = element("div", { class: "items" });
  const add = (value) => {
    const control = makeControl(document_, schema.items, changed, `field-${++fieldCount}`);
    const remove = () => {
      items.splice(items.indexOf(item), 1);
      item.row.remove();
      changed();
    };
    const button = element("button", { type: "button", class: "quiet icon", "aria-label": "Remove this item", onclick: remove }, "×");
    const item = { control, row: element("div", { class: "item" }, control.node, button) };
    if (value !== undefined) control.write(value);
    items.push(item);
    list.append(item.row);
    return item;
  };
  const append = () => {
    add().row.querySelector("input, select, textarea")?.focus();
    changed();
  };
  const more = element("button", { type: "button", class: "quiet", id, onclick: append }, "Add an item");
  const write = (values) => {
    items.length = 0;
    list.replaceChildren();
    for (const value of Array.isArray(values) ? values : []) add(value);
  };
  const draft = () => items.map((one) => one.control.draft()).filter((value) => value !== undefined);
  const restore = (values) => {
    write([]);
    for (const value of Array.isArray(values) ? values : []) add().control.restore(value);
  };
  const locate = ([at, ...rest]) => items[at]?.control.locate(rest) ?? more;
  const node = element("div", { class: "nested", role: "group" }, list, more);
  return { node, read: () => items.map((one) => one.control.read()), write, draft, restore, locate };
}

function orNull(control, changed) {
  const box = element("input", { type: "checkbox" });
  const show = () => (control.node.hidden = box.checked);
  box.addEventListener("change", () => {
    show();
    changed();
  });
  const node = element("div", { class: "nullable" }, control.node, element("label", { class: "null" }, box, "null"));
  const write = (value) => {
    box.checked = value === null;
    show();
    if (value !== null) control.write(value);
  };
  const draft = () => (box.checked ? null : control.draft());
  const restore = (value) => {
    box.checked = value === null;
    show();
    if (value !== null) control.restore(value);
  };
  const locate = (path) => (box.checked ? box : control.locate(path));
  return { node, read: () => (box.checked ? null : control.read()), write, draft, restore, locate };
}

/** Shows a problem below its control, until the user changes it. */
function showProblem(node, message) {
  const problem = element("p", { class: "problem", id: `problem-${++fieldCount}` }, message);
  let place = node;
  while (place.parentElement.matches(".item, .nullable, .null, .head")) place = place.parentElement; // below a row, not within it
  while (place.nextElementSibling?.matches(".problem")) place = place.nextElementSibling;
  place.after(problem);
  if (node.matches("input, select, textarea")) node.setAttribute("aria-invalid", "true");
  node.setAttribute("aria-describedby", [node.getAttribute("aria-describedby"), problem.id].filter(Boolean).join(" "));
  const clear = () => {
    problem.remove();
    node.removeAttribute("aria-invalid");
    node.removeAttribute("aria-describedby");
  };
  node.addEventListener(node.matches("button") ? "click" : "input", clear, { once: true });
  problem.clear = clear;
}

function clearProblems(root) {
  for (const problem of root.querySelectorAll(".problem")) problem.clear?.();
}

/** Fills fields with the values of a draft. */
function restoreFields(fields, values) {
  if (values === null || typeof values !== "object") return;
  for (const one of fields) if (Object.hasOwn(values, one.name)) one.restore(values[one.name]);
}

function readFields(fields) {
  return Object.fromEntries(fields.filter((one) => one.present()).map((one) => [one.name, one.read()]));
}

function writeFields(fields, values, others = {}) {
  const known = new Map(fields.map((one) => [one.name, one]));
  for (const one of fields) if (!(one.name in values)) one.clear();
  for (const [name, value] of Object.entries(values)) {
    if (known.has(name)) known.get(name).write(value);
    else others[name] = value;
  }
}
