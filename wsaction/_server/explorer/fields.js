// Fields: builds forms from schemas. A control has `node`, `read()`, which may throw a Mistake, and `write(value)`.

/** An invalid input of the user, with the control to show it at. */
class Mistake extends Error {
  constructor(message, node) {
    super(message);
    this.node = node;
  }
}

let fieldCount = 0;

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
    holder.append(control.node);
  };
  const box = required ? null : element("input", { type: "checkbox", id: `${id}-has`, "aria-label": `Send ${name}` });
  const label = element("label", { for: required ? id : `${id}-has` }, name);
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
  if (plain.description) node.append(element("p", { class: "hint" }, prose(plain.description)));
  node.append(holder);
  show();
  return {
    name,
    node,
    present: () => required || box.checked,
    read: () => control.read(),
    write(value) {
      if (box) box.checked = true;
      show();
      control.write(value);
    },
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
  return { node, read: () => node.value, write: (value) => (node.value = value ?? "") };
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
  return { node, read, write: (value) => (node.value = value ?? "") };
}

function choice(document_, schema, changed, id) {
  const values = schema.enum ?? [schema.const];
  const labelOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const node = element("select", { id, onchange: changed }, values.map((one, at) => element("option", { value: String(at) }, labelOf(one))));
  const write = (value) => {
    const at = values.findIndex((one) => JSON.stringify(one) === JSON.stringify(value));
    if (at >= 0) node.selectedIndex = at;
  };
  return { node, read: () => values[node.selectedIndex], write };
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
  return { node, read, write: (value) => (node.value = JSON.stringify(value, null, 2)) };
}

function object(document_, schema, changed, id) {
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties).map(([name, one]) => makeField(document_, name, one, required.includes(name), changed));
  const node = element("div", { class: "nested", id, role: "group" }, fields.map((one) => one.node));
  const others = {}; // keys of a loaded value that the schema does not name
  const read = () => ({ ...others, ...readFields(fields) });
  const write = (value) => {
    for (const name of Object.keys(others)) delete others[name];
    writeFields(fields, value ?? {}, others);
  };
  return { node, read, write };
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
  return { node: element("div", { class: "nested" }, list, more), read: () => items.map((one) => one.control.read()), write };
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
  return { node, read: () => (box.checked ? null : control.read()), write };
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
