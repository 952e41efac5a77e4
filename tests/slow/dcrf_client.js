// Drives dcrf-client from npm against a server: node dcrf_client.js URL SCENARIO. Prints its results as lines of JSON.
const dcrf = require("dcrf-client").default;
const WebSocket = require("ws");

const [url, scenario] = process.argv.slice(2);

const say = (...told) => console.log(JSON.stringify(told));

function connect(options = {}) {
  const websocket = { WebSocket, minReconnectionDelay: 20, maxReconnectionDelay: 100, maxEnqueuedMessages: 0 };
  return dcrf.connect(url, { websocket, ...options });
}

// The events of a listener: a promise of the next one, and a list of all.
function listener() {
  const seen = [];
  let wake = () => {};
  const listen = (data, action) => {
    seen.push([action, data]);
    wake();
  };
  listen.until = async (count) => {
    while (seen.length < count) await new Promise((resolve) => (wake = resolve));
    return seen;
  };
  return listen;
}

// All seven actions of one stream, whose objects have the key `key`.
async function seven(client, stream, key) {
  const before = await client.list(stream);
  const made = await client.create(stream, { text: "made" });
  const pk = made[key];
  const listen = listener();
  const acknowledged = await client.subscribe(stream, pk, listen);
  const found = await client.retrieve(stream, pk);
  const updated = await client.update(stream, pk, { text: "updated", done: true });
  const patched = await client.patch(stream, pk, { text: "patched" });
  const gone = await client.delete(stream, pk);
  const missing = await client.retrieve(stream, pk).catch((refused) => refused.response_status);
  say(stream, { before, made, acknowledged, found, updated, patched, gone, missing, told: await listen.until(3) });
}

const scenarios = {
  async actions() {
    await seven(connect(), "notes", "pk");
    await seven(connect({ pkField: "id" }), "cards", "id");
  },

  async streams_side_by_side() {
    const client = connect();
    const answers = await Promise.all([
      client.list("notes"),
      client.list("nowhere").catch((refused) => refused),
      client.list("cards"),
      client.request("cards", { action: "unknown" }).catch((refused) => refused),
      client.request("cards", {}).catch((refused) => refused),
      client.list("notes"),
    ]);
    say(...answers);
  },

  async update_at_once() {
    const client = connect();
    const listen = listener();
    const order = [];
    client.transport.on("message", ({ data }) => {
      const { action, request_id } = JSON.parse(data).payload;
      order.push([action, request_id]);
    });
    const subscribing = client.subscribe("notes", 1, listen, "subscription");
    const updating = client.update("notes", 1, { text: "at once" }, "update");
    await Promise.all([subscribing, updating, listen.until(1)]);
    say(order);
  },

  async types_of_keys() {
    const client = connect();
    const listening = [1, "1"].map((pk) => {
      const listen = listener();
      return client.subscribe("notes", pk, listen, `as ${typeof pk}`).then(() => listen);
    });
    const listeners = await Promise.all(listening);
    await client.patch("notes", 1, { text: "typed" });
    await client.delete("notes", "1");
    for (const listen of listeners) say(await listen.until(2));
  },

  async restart() {
    const client = connect();
    const listen = listener();
    let acknowledgements = 0;
    const again = new Promise((resolve) =>
      client.transport.on("message", ({ data }) => {
        const { action, request_id } = JSON.parse(data).payload;
        if (action === "subscribe_instance" && ++acknowledgements === 2) resolve(request_id);
      }),
    );
    await client.subscribe("notes", 1, listen, "kept");
    say("subscribed");
    say("again", await again);
    await client.patch("notes", 1, { text: "after the restart" });
    say("told", await listen.until(1));
  },
};

scenarios[scenario]().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
