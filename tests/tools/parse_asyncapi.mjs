// Reads {"documents": [...], "frames": [[document, message, frame], ...]} from stdin. Prints what @asyncapi/parser finds
// in each document, and of each frame what ajv says against the payload of the message it is said to be.
import { createRequire } from "node:module";
const require = createRequire(process.argv[2] + "/");
const { Parser } = require("@asyncapi/parser");
const Ajv = require("ajv");

const text = await new Promise((resolve) => {
  let all = "";
  process.stdin.on("data", (part) => (all += part)).on("end", () => resolve(all));
});
const { documents, frames } = JSON.parse(text);
const diagnostics = [];
for (const document of documents) {
  const found = await new Parser().parse(JSON.stringify(document));
  diagnostics.push(found.diagnostics.map((one) => ({ ...one, path: one.path.join("/") })));
}
const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
documents.forEach((document, number) => ajv.addSchema(document, `document${number}`));
const verdicts = frames.map(([number, channel, message, frame]) => {
  const pointer = ["channels", channel, "messages", message, "payload"].map((one) => one.replace("~", "~0").replace("/", "~1"));
  const check = ajv.compile({ $ref: `document${number}#/${pointer.join("/")}` });
  return check(frame) ? [] : check.errors;
});
console.log(JSON.stringify({ diagnostics, verdicts }));
