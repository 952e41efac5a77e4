// Memory: what the user has filled in, kept from action to action, and the keys of objects that replies have shown.

const MAX_KEYS = 50; // of one route

/** What is kept for one connection. */
class Memory {
  constructor() {
    this.captures = new Map(); // the route up to a capture, `boards/{board}`, to its value
    this.parameters = new Map(); // route to the values of its parameters by name
    this.queries = new Map(); // route to its query
    this.rows = new Map(); // a route as it was sent, to the objects of its latest reply
  }

  /** Keeps what a form holds. */
  keep({ route, routeFields, fields, query, free }) {
    if (free) this.captures.set(route, free.value);
    for (const field of routeFields) this.captures.set(upTo(route, field.name), field.draft());
    const values = this.parameters.get(route) ?? {};
    for (const field of fields) values[field.name] = field.draft();
    this.parameters.set(route, values);
    this.queries.set(route, query.value);
  }

  /** Fills in a form what was kept for its route. */
  restore({ route, routeFields, fields, query, free }) {
    if (free) free.value = this.captures.get(route) ?? "";
    const kept = routeFields.map((field) => [field.name, this.captures.get(upTo(route, field.name))]);
    restoreFields(routeFields, withoutUndefined(kept));
    restoreFields(fields, withoutUndefined(Object.entries(this.parameters.get(route) ?? {})));
    query.value = this.queries.get(route) ?? "";
  }

  /** Remembers the objects of a reply, for the routes below the one that was called. */
  learn({ frame, reply }) {
    if (!reply || reply.status >= 300) return;
    const rows = rowsOf(reply.data);
    if (rows.length) this.rows.set(withoutQuery(frame.route), rows.slice(0, MAX_KEYS));
  }

  /** The keys known for a capture, `pk` of `cards/{pk}/`: those of the objects that `cards/` has shown. */
  keysFor(route, name, values) {
    const before = route.slice(0, route.indexOf(`{${name}}`));
    const rows = this.rows.get(fillTemplate(before, values, String)) ?? [];
    return rows.map((row) => row[name] ?? row.pk ?? row.id).filter((key) => ["string", "number"].includes(typeof key));
  }
}

/** The objects of a reply: itself if it has a key, or those of its list. */
function rowsOf(data) {
  const isObject = (one) => one !== null && typeof one === "object" && !Array.isArray(one);
  if (Array.isArray(data)) return data.filter(isObject);
  if (!isObject(data)) return [];
  if ("id" in data || "pk" in data) return [data];
  return Object.values(data).find((one) => Array.isArray(one))?.filter(isObject) ?? [];
}

function upTo(route, name) {
  const brace = `{${name}}`;
  return route.slice(0, route.indexOf(brace) + brace.length);
}

function withoutQuery(route) {
  return (route ?? "").split("?", 1)[0];
}

function withoutUndefined(entries) {
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}
