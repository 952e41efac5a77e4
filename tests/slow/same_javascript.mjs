// Compares two folders of JavaScript, file by file: node same_javascript.mjs ONE OTHER. Prints the names of files whose
// programs differ. Comments, blanks, redundant parentheses and trailing commas do not count.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parse } from "acorn";

const [one, other] = process.argv.slice(2);

/** Whether a statement has no effect: `;`, or `export {}`, by which the compiler marks a module. */
function isNothing(node) {
  if (node?.type === "ExportNamedDeclaration") return node.source === null && node.declaration === null && node.specifiers.length === 0;
  return node?.type === "EmptyStatement";
}

function program(folder, name) {
  const tree = parse(readFileSync(join(folder, name), "utf8"), { ecmaVersion: 2022, sourceType: "module" });
  return JSON.stringify(tree, (key, value) => {
    if (key === "start" || key === "end") return undefined;
    return Array.isArray(value) ? value.filter((item) => !isNothing(item)) : value;
  });
}

for (const name of readdirSync(one)) {
  if (name.endsWith(".js") && program(one, name) !== program(other, name)) console.log(name);
}
