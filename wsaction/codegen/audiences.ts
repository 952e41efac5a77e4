/**
 * The events of no subscription, from when it was made; a `$resync` among them says that some are lost here: the
 * connection was, or more of them waited than may. It ends when the client is closed.
 */
export class Events implements AsyncIterable<ServerEvent | Resync>, AsyncIterator<ServerEvent | Resync, undefined> {
  readonly #most: number;
  readonly #items = new Buffer<ServerEvent | Resync>();
  readonly #forget: (events: Events) => void;

  /** @internal */
  constructor(buffer: number, forget: (events: Events) => void) {
    this.#most = buffer;
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
  told(event: ServerEvent, size: number): void {
    if (this.#items.length > 0 && this.#items.size + size > this.#most) this.miss();
    else this.#items.put(event, size);
  }

  /** @internal */
  miss(): void {
    const isTold = this.#items.last?.event === "$resync";
    if (!isTold) this.#items.put({ event: "$resync", route: "", position: null, snapshot: undefined }, 0);
  }

  /** @internal */
  end(failure?: Error): void {
    this.#items.end(failure);
  }
}

/** Hands each event to the subscription of its route or, where there is none, to all who listen. */
class Audience implements Hearer, Registry {
  readonly #followers = new Map<string, Follower>();
  readonly #listeners = new Set<Events>();
  #wasCut = false;

  listen(buffer: number): Events {
    const events = new Events(buffer, (one) => this.#listeners.delete(one));
    this.#listeners.add(events);
    return events;
  }

  add(follower: Follower): void {
    const known = this.#followers.get(follower.route);
    if (known !== undefined && !known.isLeaving) {
      throw new Error(`this client is subscribed to ${JSON.stringify(follower.route)} already; share that subscription`);
    }
    this.#followers.set(follower.route, follower);
  }

  remove(follower: Follower): void {
    if (this.#followers.get(follower.route) === follower) this.#followers.delete(follower.route);
  }

  event(event: ServerEvent, size: number): void {
    const follower = this.#followers.get(event.route);
    if (follower !== undefined) follower.told(event, size);
    else for (const listener of this.#listeners) listener.told(event, size);
  }

  linked(link: Link): void {
    for (const follower of [...this.#followers.values()]) follower.ask(link);
    if (this.#wasCut) for (const listener of this.#listeners) listener.miss();
  }

  cut(): void {
    this.#wasCut = true;
    for (const follower of [...this.#followers.values()]) follower.cut();
  }

  ended(failure: ConnectionFailed | undefined): void {
    for (const follower of [...this.#followers.values()]) follower.end(failure);
    for (const listener of this.#listeners) listener.end(failure);
    this.#followers.clear();
    this.#listeners.clear();
  }
}

