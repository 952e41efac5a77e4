// Scenarios with the generated client of tests/support/boards.py: `node codegen_scenarios.js ADDRESS SCENARIO`. Each
// printed line is JSON for tests/slow/test_codegen_node.py.
import { Client, ClientError, ActionError, NotFound, Throttled, Unavailable } from "./boards.js";
import type { ClientOptions, SocketClass } from "./boards.js";

const [url = "", scenario = ""] = process.argv.slice(2);

function say(...values: unknown[]): void {
  console.log(JSON.stringify(values));
}

function failed(error: unknown): [string, string] {
  return error instanceof Error ? [error.name, error.message] : ["not an error", String(error)];
}

function dataOf(item: object | undefined): unknown {
  return item !== undefined && "data" in item ? item.data : item;
}

async function failure(promise: Promise<unknown>): Promise<[string, string]> {
  return promise.then((value) => ["no error", String(value)], failed);
}

function client(options: ClientOptions = {}): Client {
  const onState = (state: string): void => say("state", state);
  return new Client(url, { firstWait: 0.01, longestWait: 0.02, onState, ...options });
}

const scenarios: { readonly [name: string]: () => Promise<void> } = {
  async calls() {
    const boards = client({ onState: undefined });
    say(boards.state, await boards.hello(), await boards.hello({ name: "Ada" }), boards.state);
    const page = await boards.cards.list({ query: { page: 1, page_size: [1] } });
    say(page.count, page.results.map((card) => card.title));
    const made = await boards.cards.create({ data: { title: "three", note: "hidden" } });
    say(made, await boards.cards.partialUpdate({ pk: made.id }, { data: { done: true } }));
    say(await boards.cards.destroy({ pk: made.id }));
    const error: unknown = await boards.cards.retrieve({ pk: 99 }).catch((one: unknown) => one);
    say(error instanceof NotFound, error instanceof ActionError, error instanceof ClientError, ...failed(error));
    const limit: unknown = await boards.boards.limited({ pk: 1 }).catch((one: unknown) => one);
    say(limit instanceof Throttled && limit.retryAfter, limit instanceof Unavailable);
    const invalid: unknown = await boards.cards.create({ data: { title: 7 as unknown as string } }).catch((one: unknown) => one);
    say(invalid instanceof ActionError && [invalid.status, invalid.errors[0]?.loc, invalid.type]);
    say(await failure(boards.$call("nothing", "cards/")), await failure(boards.$call("echo", "nowhere/")));
    say(await failure(boards.$call("hello", "", { action: "other" })), await failure(boards.boards.count({ pk: 1 }, { to: 3 }).next()));
    boards.close();
    say(boards.state, await failure(boards.hello()), await failure(boards.connect()));
  },

  async routes() {
    const boards = client({ onState: undefined });
    const key = "6f1b2c3d-0000-4000-8000-00000000000a";
    const query = { a: "x y&z=é", b: true, c: null, d: undefined, e: 1.5 };
    say(await boards.echo.echo({ slug: "a-b", key, rest: "x/ü z" }, { query }));
    say(await boards.years.echo({ year: 2026 }), await boards.years.echo({ year: "2026", month: 7 }));
    say(await boards.any.echo({ route: "b" }, { query: { q: 1 } }));
    say(await boards.$call("echo", "c?q=1", {}, { query: { r: 2 } }));
    for (const bad of [
      { slug: "a/b", key, rest: "x" },
      { slug: "a", key: key.toUpperCase(), rest: "x" },
      { slug: "a", key, rest: "x?y" },
      { slug: "a", key, rest: "" },
      { slug: "a", key },
    ]) {
      say(await failure(boards.echo.echo(bad as { slug: string; key: string; rest: string })));
    }
    for (const pk of [-1, 1.5, NaN, "x", null]) say(await failure(boards.cards.retrieve({ pk: pk as number })));
    say(Client.address("wss://example.com/"), Client.address("wss://example.com/root"));
    boards.close();
  },

  async woken() {
    const tellers = { network: new EventTarget(), page: new EventTarget() };
    let listeners = 0;
    for (const teller of Object.values(tellers)) {
      const { addEventListener: add, removeEventListener: remove } = teller;
      teller.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add.apply(teller, args));
      teller.removeEventListener = (...args: Parameters<typeof remove>) => (listeners--, remove.apply(teller, args));
    }
    const { addEventListener, removeEventListener } = tellers.network;
    const page = Object.assign(tellers.page, { visibilityState: "hidden" });
    Object.assign(globalThis, { addEventListener, removeEventListener, document: page });
    Math.random = () => 0.9; // the waits are long
    const waiting = [
      () => tellers.network.dispatchEvent(new Event("online")),
      () => {
        page.dispatchEvent(new Event("visibilitychange")); // it is hidden: nothing happens
        page.visibilityState = "visible";
        say("still", boards.state);
        page.dispatchEvent(new Event("visibilitychange"));
      },
    ];
    const onState = (state: string): void => {
      say("state", state);
      if (state === "waiting") queueMicrotask(() => setTimeout(() => waiting.shift()?.()));
    };
    const boards = client({ firstWait: 1000, longestWait: 1000, heartbeat: null, onState });
    say(await boards.hello());
    say(await failure(boards.hello({ name: "dropped" })), await failure(boards.hello({ name: "dropped again" })));
    say(await boards.hello({ name: "here" }), listeners);
    page.dispatchEvent(new Event("visibilitychange")); // the server answers
    say(await boards.hello({ name: "still here" }));
    tellers.network.dispatchEvent(new Event("online")); // the server does not answer
    say(await failure(boards.hello({ name: "lost" })), await boards.hello({ name: "back" }));
    boards.close();
    await new Promise((resolve) => setTimeout(resolve));
    say(listeners);
  },

  async streams() {
    const boards = client({ onState: undefined });
    const items: string[] = [];
    for await (const item of boards.boards.count({ pk: 1 }, { to: 3 })) items.push(item);
    const some: string[] = [];
    for await (const item of boards.boards.count({ pk: 1 }, { to: 1_000_000 })) {
      some.push(item);
      if (some.length === 2) break;
    }
    say(items, some);
    const pages: number[] = [];
    for await (const cards of boards.cards.listStream()) pages.push(cards.length);
    say(pages);
    const aborting = new AbortController();
    setTimeout(() => aborting.abort(), 50);
    say(await failure(boards.boards.slow({ pk: 1 }, { signal: aborting.signal })));
    say(await failure(boards.boards.slow({ pk: 1 }, { signal: aborting.signal })));
    say(await failure(boards.boards.count({ pk: 1 }, { to: 3 }, { signal: aborting.signal }).next()));
    say(await failure(boards.boards.slow({ pk: 1 }, { timeout: 0.05 })));
    const late = new AbortController();
    const endless = boards.boards.count({ pk: 1 }, { to: 1_000_000 }, { signal: late.signal });
    say((await endless.next()).done, await boards.hello());
    late.abort(new Error("enough"));
    try {
      for await (const item of endless) void item;
    } catch (error) {
      say(failed(error));
    }
    boards.close();
    const small = client({ onState: undefined, buffer: 1_000 });
    const wide = small.boards.count({ pk: 1 }, { to: 100_000, size: 100 });
    await wide.next();
    while ((await small.hello()) && !(await overflows(wide)));
    say("overflow");
    small.close();
  },

  async events_of_a_route_that_is_written_otherwise() {
    const boards = client({ onState: undefined });
    const board = await boards.$subscribe("boards/07/");
    await boards.boards.move({ pk: 7 }, { data: { card: 3 } });
    const moved = (await board.next()).value;
    say(board.route, moved?.event, moved?.route);
    const stop = new AbortController();
    const left = boards.$subscribe("boards/007/", { signal: stop.signal });
    stop.abort(); // before the reply
    say((await failure(left))[0]);
    await boards.boards.move({ pk: 7 }, { data: { card: 4 } });
    say((await board.next()).value?.event);
    await boards.close();
  },

  async events() {
    const boards = client({ onState: undefined });
    const pushed = boards.$events();
    const cards = await boards.cards.subscribe({ snapshot: true });
    const one = await boards.cards.subscribe({ pk: 1 });
    const board = await boards.boards.subscribe({ pk: 7 }, { since: { epoch: "nope", offset: 3 } });
    say(cards.snapshot.results.length, cards.recovered, one.snapshot, one.route, board.recovered);
    const twice = await boards.cards.subscribe();
    say((await failure(Promise.resolve(twice.close())))[0]);
    await boards.cards.update({ pk: 1 }, { data: { title: "uno" } });
    for await (const item of cards) {
      if (item.event === "updated") say(item.event, item.data.title, item.offset, cards.position?.offset);
      break;
    }
    const told = (await one.next()).value;
    say(told?.event === "updated" && told.data.title);
    await boards.boards.move({ pk: 7 }, { data: { card: 3 } });
    const resync = (await board.next()).value;
    const moved = (await board.next()).value;
    say(resync?.event, moved?.event === "moved" && moved.data);
    await boards.whisper({ text: "psst" });
    await boards.$flush();
    const push = (await pushed.next()).value;
    say(push?.event, push?.event === "whispered" && push.data);
    await pushed.return();
    say((await boards.cards.subscribe()).snapshot, await failure(boards.cards.subscribe({ pk: -1 })));
    const ending = new AbortController();
    const late = await boards.boards.subscribe({ pk: 8 }, { signal: ending.signal });
    ending.abort();
    say((await late.next()).done, await failure(boards.boards.subscribe({ pk: 9 }, { signal: ending.signal })));
    await one.close();
    say((await one.next()).done);
    setTimeout(() => boards.close(), 50);
    for await (const item of board) say(item);
    say("end");
  },

  /** Follows a board until the event "stop". */
  async follow() {
    const boards = client();
    const board = await boards.boards.subscribe({ pk: 7 });
    say("subscribed");
    for await (const item of board) {
      say(item.event, item.event === "moved" ? item.data : null);
      if (item.event === "moved" && item.data.to === "stop") break;
    }
    boards.close();
  },

  // ------------------------------------------------------------------------------- against a scripted server
  async lost() {
    const boards = client({ timeout: 5 });
    say(await failure(boards.hello({ name: "lost" })));
    say(await boards.hello({ name: "again" }));
    boards.close();
  },

  async refused() {
    const boards = client();
    say(await failure(boards.connect()));
  },

  async renewed() {
    let count = 0;
    const boards = client({ token: async () => `token-${++count}` });
    say(...(await Promise.all([failure(boards.connect())])));
    for (let number = 0; number < 3; number++) say(await failure(boards.hello()));
    boards.close();
  },

  async expiring() {
    let count = 0;
    const boards = client({ token: () => `token-${++count}` });
    for (;;) {
      const told = await boards.hello().catch(() => undefined); // lost if a token expired meanwhile
      if (told !== undefined) {
        say(told, count);
        return boards.close();
      }
    }
  },

  async burst() {
    const boards = client({ onState: undefined });
    const sends = Array.from({ length: 1_000 }, (_, number) => boards.whisper({ text: String(number) }));
    const calls = Array.from({ length: 1_000 }, (_, number) => boards.hello({ name: String(number) }));
    await Promise.all(sends);
    await boards.$flush();
    say((await Promise.all(calls)).filter((told, number) => told === `Hello ${number}`).length);
    boards.close();
  },

  /** Calls that the server refuses because its queue is full are sent again in order; sends are probed. */
  async busy() {
    const boards = client({ onState: undefined, maxInFlight: 3, log: (message, cause) => say(message, String(cause)) });
    const calls = ["a", "b", "c", "d"].map((name) => boards.hello({ name }));
    say(await Promise.all(calls));
    await boards.whisper({ text: "1" });
    await boards.$flush();
    say("flushed");
    await boards.whisper({ text: "2" });
    say(await failure(boards.$flush()));
    say(await failure(Promise.all([1, 2, 3, 4].map((number) => boards.hello({ name: String(number) }, { timeout: 0.5 })))));
    boards.close();
  },

  async shared() {
    const boards = client({ onState: undefined });
    const states: string[] = [];
    const stop = boards.onState((state) => states.push(state));
    const mounting = new AbortController();
    const first = failure(boards.boards.subscribe({ pk: 7 }, { signal: mounting.signal }));
    mounting.abort(); // as in React's StrictMode: mounted, unmounted and mounted again at once
    const one = await boards.boards.subscribe({ pk: 7 });
    const two = await boards.boards.subscribe({ pk: 7 });
    const three = await boards.$subscribe("boards/07/", { since: one.position });
    say((await first)[0], one.state, two.state, three.route, three.recovered);
    const closed: string[] = [];
    one.onState((state) => closed.push(state));
    await boards.boards.move({ pk: 7 }, { data: { card: 1 } });
    for (const each of [one, two, three]) say((await each.next()).value?.event);
    one.close();
    one.close();
    say(closed, (await one.next()).done);
    await boards.boards.move({ pk: 7 }, { data: { card: 2 } });
    for (const each of [two, three]) say(dataOf((await each.next()).value));
    two.close();
    three.close();
    const pushed = boards.$events();
    await boards.boards.move({ pk: 7 }, { data: { card: 3 } }); // without subscribers
    const again = await boards.boards.subscribe({ pk: 7 });
    await boards.boards.move({ pk: 7 }, { data: { card: 4 } });
    say(dataOf((await again.next()).value));
    await boards.whisper({ text: "last" });
    say((await pushed.next()).value?.event, states);
    await boards.$flush();
    stop();
    boards.close();
    say(states);
  },

  /** Two subscriptions to one board: one is fast, one reads nothing before "stop". The connection is lost meanwhile. */
  async sharing() {
    const boards = client({ buffer: 200 });
    const fast = await boards.boards.subscribe({ pk: 7 });
    const slow = await boards.boards.subscribe({ pk: 7 });
    say("subscribed");
    for await (const item of fast) {
      say("fast", item.event === "moved" ? item.data.card : item.event);
      if (item.event === "moved" && item.data.to === "stop") break;
    }
    for await (const item of slow) {
      say("slow", item.event === "moved" ? item.data.card : item.event);
      if (item.event === "moved" && item.data.to === "stop") break;
    }
    boards.close();
  },

  async welcomed() {
    const boards = client({ onState: undefined });
    await boards.connect();
    const pushed = boards.$events();
    say((await pushed.next()).value?.event, (await pushed.next()).value?.event);
    boards.close();
  },

  async badToken() {
    const boards = client({ token: "a/b=" });
    say(await failure(boards.connect()));
  },

  async introduced() {
    let count = 0;
    const boards = client({ auth: () => ({ code: ++count }), openTimeout: 5 });
    say(await boards.hello());
    boards.close();
  },

  async unreachable() {
    const boards = client({ timeout: 0.3, onState: undefined });
    say(await failure(boards.hello()));
    const many = await Promise.all(Array.from({ length: 10_001 }, () => failure(boards.hello())));
    say(many.map(([name]) => name).filter((name) => name === "CallTimeout").length, many[10_000]);
    const once = client({ reconnect: false, onState: undefined });
    say(await failure(once.connect()));
    boards.close();
  },

  async silent() {
    const boards = client({ heartbeat: 0.2 });
    await boards.connect();
    say(await failure(boards.hello()));
    say(await boards.hello());
    boards.close();
  },

  async recover() {
    const boards = client({ buffer: 200 });
    const board = await boards.boards.subscribe({ pk: 7 }, { snapshot: true });
    say("snapshot", board.snapshot, board.position);
    for await (const item of board) {
      say(item.event, item.event === "$resync" ? item.snapshot : item.data, board.position);
      if (item.event === "moved" && item.data.to === "stop") break;
    }
    boards.close();
  },

  async behind() {
    const boards = client({ buffer: 200 });
    const board = await boards.boards.subscribe({ pk: 7 });
    say("subscribed");
    await boards.hello(); // its reply comes after more than the buffer holds
    for await (const item of board) {
      say(item.event === "moved" ? item.data : item.event);
      if (item.event === "moved" && item.data.to === "stop") break;
    }
    boards.close();
  },

  async denied() {
    const boards = client();
    say(await failure(boards.boards.subscribe({ pk: 7 })));
    const board = await boards.boards.subscribe({ pk: 7 });
    say("subscribed");
    try {
      for await (const item of board) say(item.event);
    } catch (error) {
      say(failed(error));
    }
    say((await boards.boards.subscribe({ pk: 7 })).position);
    boards.close();
  },

  async withdrawn() {
    const boards = client();
    const board = await boards.boards.subscribe({ pk: 7 });
    try {
      for await (const item of board) say(item.event);
    } catch (error) {
      say(failed(error));
    }
    say((await boards.boards.subscribe({ pk: 7 })).position);
    boards.close();
  },

  async package() {
    const name = "ws";
    const { WebSocket } = (await import(name)) as { WebSocket: SocketClass };
    const boards = client({ WebSocket, onState: undefined });
    say(await boards.hello({ name: "ws" }));
    boards.close();
  },
};

async function overflows(stream: AsyncIterator<string, undefined>): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  try {
    while ((await stream.next()).done !== true) await new Promise((resolve) => setTimeout(resolve, 1));
  } catch (error) {
    return failed(error)[0] === "Overflow";
  }
  return false;
}

await scenarios[scenario]?.();
