/**
 * The events that belong to no subscription, from its creation on. A `$resync` marks where events were lost, because the
 * connection was lost or more events waited than the buffer holds. It ends when the client is closed.
 */
export class Events implements AsyncIterable<ServerEvent | Resync>, AsyncIterator<ServerEvent | Resync, undefined> {
  readonly #maxSize: number;
  readonly #items = new Buffer<ServerEvent | Resync>();
  readonly #forget: (events: Events) => void;

  /** @internal */
  constructor(buffer: number, forget: (events: Events) => void) {
    this.#maxSize = buffer;
    this.#forget = forget;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ServerEvent | Resync, undefined>> {
    return this.#items.next();
  }

  /** Stops listening. */
  return(): Promise<IteratorResult<ServerEvent | Resync, undefined>> {
    this.#items.clear();
    this.end();
    this.#forget(this);
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @internal */
  receive(event: ServerEvent, size: number): void {
    if (this.#items.length > 0 && this.#items.size + size > this.#maxSize) this.markLost();
    else this.#items.put(event, size);
  }

  /** @internal */
  markLost(): void {
    const isTold = this.#items.last?.event === "$resync";
    if (!isTold) this.#items.put({ event: "$resync", route: "", position: null, snapshot: undefined }, 0);
  }

  /** @internal */
  end(failure?: Error): void {
    this.#items.end(failure);
  }
}

/** Passes each event to the subscriptions of its route. If the route has none, passes it to all `Events`. */
class Audience implements Hearer, Registry {
  line: Line | undefined; // set by `BaseClient` once both exist
  readonly #routes = new Map<string, SharedRoute>();
  readonly #listeners = new Set<Events>();
  #wasDisconnected = false;
  #held: { readonly early: [ServerEvent, number][]; room: number } | undefined; // events received before callers could listen

  listen(buffer: number): Events {
    const events = new Events(buffer, (one) => this.#listeners.delete(one));
    this.#listeners.add(events);
    return events;
  }

  route(name: string): SharedRoute {
    const route = this.#routes.get(name) ?? new SharedRoute(name, this.line as Line, this);
    this.#routes.set(name, route);
    return route;
  }

  /** Registers a route under the name that its events have. If another route has that name, merges both and returns it. */
  rename(route: SharedRoute, name: string): SharedRoute {
    this.remove(route);
    route.name = name;
    const known = this.#routes.get(name);
    if (known === undefined) this.#routes.set(name, route);
    else known.adopt(route);
    return known ?? route;
  }

  remove(route: SharedRoute): void {
    if (this.#routes.get(route.name) === route) this.#routes.delete(route.name);
  }

  event(event: ServerEvent, size: number): void {
    const route = this.#routes.get(event.route);
    if (route !== undefined) return route.receive(event, size);
    if (this.#held === undefined) for (const listener of this.#listeners) listener.receive(event, size);
    else if ((this.#held.room -= size) >= 0) this.#held.early.push([event, size]);
  }

  /** Holds back pushed events until `release`, up to `size` characters. */
  hold(size: number): void {
    this.#held ??= { early: [], room: size };
  }

  release(): void {
    const { early, room } = this.#held ?? { early: [], room: 0 };
    this.#held = undefined;
    for (const listener of this.#listeners) {
      for (const [event, size] of early) listener.receive(event, size);
      if (room < 0) listener.markLost();
    }
  }

  linked(link: Link): void {
    for (const route of [...this.#routes.values()]) route.look(link);
    if (this.#wasDisconnected) for (const listener of this.#listeners) listener.markLost();
  }

  disconnected(): void {
    this.#wasDisconnected = true;
    for (const route of [...this.#routes.values()]) route.disconnected();
  }

  ended(failure: ConnectionFailed | undefined): void {
    const routes = [...this.#routes.values()];
    this.#routes.clear();
    for (const route of routes) route.end(failure);
    for (const listener of this.#listeners) listener.end(failure);
    this.#listeners.clear();
  }
}

