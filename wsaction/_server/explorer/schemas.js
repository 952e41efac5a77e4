"use strict";
// Schemas: resolves and describes the JSON Schemas of the document.

const MAX_CHARACTERS = 100_000; // of a value on the page; the rest is cut
const MAX_LINE = 64;

/** The node that a `#/...` reference points to. */
function follow(document_, reference) {
  return reference
    .slice(2)
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((node, part) => node?.[part], document_);
}

/** A schema with `$ref`s and single `allOf`s resolved. Keywords beside an `allOf` take precedence. */
function resolved(document_, schema, depth = 0) {
  if (schema === null || typeof schema !== "object" || depth > 20) return {};
  if (schema.$ref) return resolved(document_, follow(document_, schema.$ref), depth + 1);
  if (schema.allOf?.length === 1) {
    const { allOf, ...beside } = schema;
    return { ...resolved(document_, allOf[0], depth + 1), ...beside };
  }
  return schema;
}

/** A schema with its references replaced, four levels deep. */
function inlined(document_, schema, depth = 0) {
  if (schema === null || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map((one) => inlined(document_, one, depth));
  if (schema.$ref) return depth > 3 ? { $ref: schema.$ref } : inlined(document_, follow(document_, schema.$ref) ?? schema, depth + 1);
  return Object.fromEntries(Object.entries(schema).map(([name, one]) => [name, inlined(document_, one, depth)]));
}

/** The kind of control for a schema, the schema without null, and whether null is allowed. */
function kindOf(document_, schema) {
  let plain = resolved(document_, schema);
  let nullable = false;
  const options = plain.anyOf ?? plain.oneOf;
  if (options) {
    const kept = options.map((one) => resolved(document_, one)).filter((one) => one.type !== "null");
    nullable = kept.length < options.length;
    if (kept.length === 1) {
      const { anyOf, oneOf, ...beside } = plain;
      const inner = kindOf(document_, { ...kept[0], ...beside });
      return { ...inner, nullable: nullable || inner.nullable };
    }
    const values = kept.flatMap((one) => one.enum ?? ("const" in one ? [one.const] : [undefined]));
    if (!values.includes(undefined)) return { kind: "choice", schema: { ...plain, enum: values }, nullable };
    return { kind: "json", schema: plain, nullable: false };
  }
  if (Array.isArray(plain.type)) {
    const types = plain.type.filter((one) => one !== "null");
    nullable = types.length < plain.type.length;
    if (types.length !== 1) return { kind: "json", schema: plain, nullable: false };
    plain = { ...plain, type: types[0] };
  }
  return { kind: kindOfPlain(plain), schema: plain, nullable };
}

function kindOfPlain(schema) {
  if ("const" in schema || schema.enum) return "choice";
  if (["string", "integer", "number", "boolean"].includes(schema.type)) return schema.type;
  if (schema.type === "object" && Object.keys(schema.properties ?? {}).length) return "object";
  if (schema.type === "array" && schema.items && !Array.isArray(schema.items)) return "array";
  return "json";
}

/** A short description of the allowed values: "integer, at least 0". */
function describeType(document_, schema) {
  const { kind, schema: plain, nullable } = kindOf(document_, schema);
  const words = [];
  if (kind === "json") words.push(`${typesOf(document_, plain) || "anything"}, as JSON`);
  else if (kind === "choice") words.push(choicesOf(plain));
  else words.push(plain.format ? `${plain.type}, ${plain.format}` : (plain.type ?? kind));
  const bounds = [
    ["minimum", "at least"], ["exclusiveMinimum", "more than"], ["maximum", "at most"],
    ["exclusiveMaximum", "less than"], ["minLength", "length from"], ["maxLength", "length to"],
    ["minItems", "items from"], ["maxItems", "items to"],
  ];
  for (const [key, label] of bounds) if (key in plain) words.push(`${label} ${plain[key]}`);
  if (nullable) words.push("or null");
  if ("default" in plain) words.push(`by default ${shortened(plain.default)}`);
  return words.join(", ");
}

function typesOf(document_, schema) {
  const options = (schema.anyOf ?? schema.oneOf)?.map((one) => resolved(document_, one)) ?? [schema];
  return options.map((one) => one.title ?? one.type).filter(Boolean).flat().join(" or ");
}

function choicesOf(schema) {
  return shortened((schema.enum ?? [schema.const]).map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(" | "));
}

function shortened(value) {
  const text = typeof value === "string" && value !== "" ? value : JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/** A value as JSON: on one line if short, else indented; a very long value is cut. */
function pretty(value) {
  const text = JSON.stringify(value, null, 2) ?? "";
  const line = text.length < 2 * MAX_LINE ? text.replace(/\n\s*/g, " ") : text; // a line break within a string is escaped
  if (line.length <= MAX_LINE) return line;
  if (text.length <= MAX_CHARACTERS) return text;
  return `${text.slice(0, MAX_CHARACTERS)}\n… ${text.length - MAX_CHARACTERS} more characters`;
}
