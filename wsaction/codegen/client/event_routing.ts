/**
 * The events of no subscription, from when it was made; a `$resync` among them says that some are lost here: the
 * connection was, or more of them waited than may. It ends when the client is closed.
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

  /** Listens no more. */
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

/** Hands each event to the subscriptions of its route or, where there are none, to all who listen. */
class Audience implements Hearer, Registry {
  line: Line | undefined; // that it hears; set by whoever makes both
  readonly #routes = new Map<string, SharedRoute>();
  readonly #listeners = new Set<Events>();
  #wasDisconnected = false;
  #held: { readonly early: [ServerEvent, number][]; room: number } | undefined; // pushed before anybody could listen

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

  /** Its events come under another name. Returns the one that has that name already, or the same. */
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

  /** What is pushed is kept until `release`, at most so many characters of it. */
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

