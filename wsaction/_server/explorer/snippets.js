// Snippets: Python and TypeScript programs that send a frame.

/** A value as a Python literal. */
function asPython(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(asPython).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${asPython(one)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

// Names that cannot be keyword arguments of a client call: Python's keywords and the client's own parameters.
const RESERVED = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally for from global if " +
    "import in is lambda nonlocal not or pass raise return try while with yield returns timeout params self").split(" "),
);

/** The parameters of an action as Python arguments. */
function pythonArguments(keys) {
  const names = Object.keys(keys);
  if (!names.every((name) => /^[A-Za-z_]\w*$/.test(name) && !RESERVED.has(name))) return [`params=${asPython(keys)}`];
  return names.map((name) => `${name}=${asPython(keys[name])}`);
}

function pythonSnippet(url, frame, facts) {
  const { action, route, request_id, ...keys } = frame;
  const isLive = action === "subscribe" && facts.typescript?.subscribe !== undefined;
  const { since, snapshot } = isLive ? keys : {};
  const args = isLive
    ? [...(since ? [`since=Position(${asPython(since.epoch)}, ${asPython(since.offset)})`] : []), ...(snapshot ? ["snapshot=True"] : [])]
    : pythonArguments(keys);
  const addressed = [...(isLive ? [] : [action]), ...(isLive || route ? [route ?? ""] : [])].map((one) => JSON.stringify(one));
  const list = [...addressed, ...args].join(", ");
  const call = [`        print(await client.call(${list}))`];
  const stream = [`        async for item in client.stream(${list}):`, "            print(item)"];
  const live = [`        async with client.subscribe(${list}) as events:`, "            async for event in events:", "                print(event)"];
  return [
    "import asyncio",
    "",
    `from wsaction.client import ${since ? "Position, " : ""}connect  # pip install 'wsaction[client]'`,
    "",
    "",
    "async def main() -> None:",
    `    async with connect(${JSON.stringify(url)}) as client:`,
    ...(isLive ? live : facts.streams || keys.stream === true ? stream : call),
    "",
    "",
    "asyncio.run(main())",
    "",
  ].join("\n");
}

/** A value as a TypeScript literal. */
function asTypeScript(value) {
  if (Array.isArray(value)) return `[${value.map(asTypeScript).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([name, one]) => `${/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name)}: ${asTypeScript(one)}`);
  return members.length ? `{ ${members.join(", ")} }` : "{}";
}

/** The arguments of a generated client's method: captures, parameters and options, without empty ones at the end. */
function ownArguments(kind, names, frame, payload, captures) {
  const hidden = ["action", "route", "request_id"];
  if (kind === "subscribe") hidden.push("since", "snapshot");
  if (names.call && names.stream) hidden.push("stream");
  const query = Object.fromEntries(new URLSearchParams((frame.route ?? "").split("?")[1] ?? ""));
  const { since, snapshot } = kind === "subscribe" ? frame : {};
  const options = { ...(since && { since }), ...(snapshot && { snapshot }), ...(Object.keys(query).length && { query }) };
  const params = Object.fromEntries(Object.entries(frame).filter(([name]) => !hidden.includes(name)));
  const takes = Object.keys(payload.properties).some((name) => !hidden.includes(name));
  const args = [...(Object.keys(captures).length ? [captures] : []), ...(takes ? [params] : []), options];
  while (args.length && !Object.keys(args.at(-1)).length) args.pop();
  return args;
}

/**
 * A program that sends a frame by the generated client. It calls the method of the action if `captures` has the values
 * for the route's braces. If `captures` is null, it calls `$call` or `$stream`, which take any action and route.
 */
function typescriptSnippet(url, frame, facts, payload, captures) {
  const { action, route = "", request_id, ...keys } = frame;
  const names = facts.typescript ?? {};
  const isOwn = captures !== null && Object.keys(names).length > 0;
  const wantsStream = isOwn ? names.stream && (frame.stream === true || !names.call) : facts.streams || frame.stream === true;
  const kind = wantsStream ? "stream" : isOwn ? Object.keys(names)[0] : "call";
  const args = isOwn ? ownArguments(kind, names, frame, payload, captures) : [action, route, keys];
  const call = `client.${isOwn ? names[kind] : `$${kind}`}(${args.map(asTypeScript).join(", ")})`;
  const body = { stream: `for await (const item of ${call}) console.log(item);`, subscribe: `for await (const event of await ${call}) console.log(event);` };
  return [
    'import { Client } from "./client.js"; // wsaction codegen typescript MODULE:APP -o client.ts',
    "",
    `const client = new Client(${JSON.stringify(url)});`,
    body[kind] ?? `console.log(await ${call});`,
    "client.close();",
    "",
  ].join("\n");
}
