/** Options of a subscription. */
export interface SubscribeOptions<
  QueryName extends string = string,
  Asked extends boolean = boolean,
  Since extends Position | null = Position | null,
> {
  /** Whether to load the result of `list` or `retrieve` of the route at the start, and with every `$resync`. */
  readonly snapshot?: Asked | undefined;
  /** A position to continue from: events after it come first. */
  readonly since?: Since | undefined;
  readonly query?: Query<QueryName> | undefined;
  /** Seconds to wait for the server's reply. Default: 30 */
  readonly timeout?: number | undefined;
  /** If it aborts, the subscription closes. */
  readonly signal?: AbortSignal | undefined;
}

/** `joining`: before the server's first reply. `recovering`: missed events are being loaded. */
export type SubscriptionState = "joining" | "live" | "recovering" | "closed";

/** The type of a snapshot with the option `snapshot: Asked`; undefined if it is false. */
export type SnapshotFor<Asked extends boolean, Snapshot> = [Asked] extends [true]
  ? Snapshot
  : true extends Asked ? Snapshot | undefined : undefined;
/** The type of the first snapshot. With `since`, it may be missing, since recovered events come instead. */
export type FirstFor<Asked extends boolean, Since, Snapshot> = [Since] extends [null]
  ? SnapshotFor<Asked, Snapshot>
  : SnapshotFor<Asked, Snapshot> | undefined;

interface Waiting {
  item: unknown;
  position: Position | null;
}

interface Registry {
  route(name: string): SharedRoute;
  rename(route: SharedRoute, name: string): SharedRoute;
  remove(route: SharedRoute): void;
}

/** The state of one `Subscription`: its position and its buffer. */
class Follower {
  readonly askedRoute: string;
  readonly wantsSnapshot: boolean;
  readonly timeout: number;
  readonly items = new Buffer<Waiting>();
  state: SubscriptionState = "joining";
  position: Position | null;
  received: Position | null;
  recovered: boolean | null = null;
  snapshot: unknown = undefined;
  shared: SharedRoute;
  hasEntered = false;
  isBehind = false; // the buffer is full: events are dropped now, and loaded again once it is empty
  isLost = false; // events were lost; the next reply brings a new snapshot
  onEnd: () => void = () => undefined;
  readonly #line: Line;
  readonly #entered: Settling;
  readonly #watchers = new Set<{ readonly tell: (state: SubscriptionState) => void }>();

  constructor(line: Line, registry: Registry, route: string, options: SubscribeOptions, entered: Settling) {
    this.#line = line;
    this.#entered = entered;
    this.askedRoute = route;
    this.wantsSnapshot = options.snapshot === true;
    this.timeout = options.timeout ?? 30;
    this.position = this.received = options.since ?? null;
    this.shared = registry.route(route.split("?", 1)[0] ?? "");
    this.shared.add(this);
  }

  async next(): Promise<IteratorResult<unknown, undefined>> {
    const result = await this.items.next();
    if (result.done === true) return result;
    this.position = result.value.position;
    if (this.isBehind && this.items.length === 0) this.shared.look();
    return { value: result.value.item, done: false };
  }

  /** Closes it at once and drops waiting events. The last subscription of a route unsubscribes. */
  leave(): void {
    this.items.clear();
    this.#finish(undefined);
    this.shared.leave(this);
  }

  /** Ends it because of an error, or because the client is closed. */
  end(error?: Error): void {
    this.#finish(error);
    if (!this.hasEntered) this.#entered.reject(error ?? new ConnectionFailed("the client is closed"));
  }

  #finish(error: Error | undefined): void {
    this.onEnd();
    this.items.end(error);
    this.tell("closed");
  }

  watch(tell: (state: SubscriptionState) => void): () => void {
    const watcher = { tell };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  tell(state: SubscriptionState): void {
    if (state === this.state || this.state === "closed") return;
    this.state = state;
    for (const watcher of [...this.#watchers]) {
      try {
        watcher.tell(state);
      } catch (error) {
        this.#line.log(`onState(${JSON.stringify(state)}) of ${this.askedRoute} failed`, error);
      }
    }
  }

  /** The position to subscribe from; null: from now on. */
  get since(): Position | null {
    return this.isLost ? null : this.received;
  }

  /** The server has replied: the events that follow are complete. */
  joined(answered: Position, recovered: boolean | null, snapshot: unknown, size: number): void {
    const since = this.received;
    const isLost = this.isLost || (since !== null && recovered !== true);
    this.isLost = this.isBehind = false;
    // the reply has the position before the events that follow
    const position = since === null || isLost ? answered : { epoch: answered.epoch, offset: Math.max(answered.offset, since.offset) };
    this.received = position;
    if (isLost) this.#keepResync(position, snapshot, size);
    else this.#moved(position);
    if (!this.hasEntered) {
      this.hasEntered = true;
      this.recovered = recovered;
      this.snapshot = snapshot;
      this.#entered.resolve();
    }
    this.tell("live");
  }

  /** Takes an event of its route. */
  receive(event: ServerEvent, size: number): void {
    if (this.isBehind) return;
    if (this.items.length > 0 && this.items.size + size > this.#line.buffer) {
      this.isBehind = true;
      this.tell("recovering");
    } else if (event.offset === undefined) {
      this.items.put({ item: event, position: this.received }, size);
    } else if (this.received === null || event.offset > this.received.offset) {
      this.received = { epoch: this.received?.epoch ?? "", offset: event.offset };
      this.items.put({ item: event, position: this.received }, size);
    } // else it came before
  }

  /** The position has changed without an event. */
  moved(position: Position): void {
    if (this.isBehind) return;
    this.received = position;
    this.#moved(position);
  }

  /** Events were lost. */
  missed(position: Position): void {
    if (this.wantsSnapshot) {
      this.isLost = true; // every event until the new snapshot is in it, or comes after it
      this.tell("recovering");
    } else if (!this.isBehind) {
      this.received = position;
      this.#keepResync(position, undefined, 1);
    }
  }

  /** Adds a `$resync`, regardless of the bound. It replaces one that waits at the end of the buffer. */
  #keepResync(position: Position, snapshot: unknown, size: number): void {
    const item = { event: "$resync", route: this.shared.name, position, snapshot };
    const last = this.items.last;
    if (last !== undefined && (last.item as ServerEvent).event === "$resync") {
      last.item = item;
      last.position = position;
    } else this.items.put({ item, position }, size);
  }

  /** Sets the position after the last waiting item. */
  #moved(position: Position): void {
    const last = this.items.last;
    if (last !== undefined) last.position = position;
    else this.position = position;
  }
}

/** A `subscribe` frame in flight, and the followers it is for. */
interface Subscribing {
  readonly followers: Follower[];
  readonly isFromNow: boolean; // without `since`
  readonly asked: string;
  readonly wantsSnapshot: boolean;
}

/**
 * The server's subscription to one route, shared by all subscriptions of this client to it.
 *
 * The server keeps one subscription per route and connection, and a new `subscribe` replaces it. So one `subscribe` is in
 * flight at a time, for all followers that it can serve: those that join, and those that have to catch up. The others
 * continue meanwhile, and drop events that come twice by their offset. If the reply's position is later than that of a
 * follower, this follower catches up next.
 */
class SharedRoute {
  name: string; // the route in its events
  readonly #line: Line;
  readonly #registry: Registry;
  readonly #backoff: Backoff;
  readonly #live = new Set<Follower>();
  readonly #waiting = new Set<Follower>(); // followers that need a `subscribe`
  #asking: Subscribing | undefined;
  #isPausing = false; // waits before the next attempt after a refusal
  #askedRoute: string | undefined; // the route of the `subscribe` on this connection
  #leaving: Asker | undefined;
  #stop: () => void = () => undefined; // the timer

  constructor(name: string, line: Line, registry: Registry) {
    this.name = name;
    this.#line = line;
    this.#registry = registry;
    this.#backoff = line.newBackoff();
  }

  get #isEmpty(): boolean {
    return this.#live.size === 0 && this.#waiting.size === 0;
  }

  add(follower: Follower): void {
    this.#waiting.add(follower);
  }

  /** Removes a follower. The last one unsubscribes; events are dropped until the server has replied. */
  leave(follower: Follower): void {
    const wasLive = this.#live.delete(follower);
    if (!(this.#waiting.delete(follower) || wasLive) || !this.#isEmpty) return;
    this.#settle();
    this.#asking = undefined;
    const link = this.#line.link;
    const asked = this.#askedRoute;
    this.#askedRoute = undefined;
    if (link === undefined || asked === undefined) return this.#registry.remove(this); // nothing to unsubscribe
    const left = (): void => {
      if (this.#leaving !== leaving) return;
      this.#leaving = undefined;
      if (this.#isEmpty) this.#registry.remove(this);
    };
    const reply = (answer: Reply): void => {
      if (answer.status >= 500) this.#line.log(`unsubscribe ${asked}`, actionError(answer)); // else it is gone
      left();
    };
    const leaving = (this.#leaving = { reply, lost: left });
    link.ask("unsubscribe", asked, {}, leaving);
  }

  /** Takes over the followers of another object that turned out to be the same route. */
  adopt(other: SharedRoute): void {
    for (const follower of [...other.#live, ...other.#waiting]) {
      follower.shared = this;
      this.#waiting.add(follower);
    }
    this.#askedRoute ??= other.#askedRoute;
    other.#live.clear();
    other.#waiting.clear();
    other.#settle();
    if (other.#leaving === undefined) return;
    this.disconnected(); // its `unsubscribe` by another name ends this subscription at the server too
    this.look();
  }

  // subscribing
  /** Subscribes for waiting followers, unless a `subscribe` is in flight. */
  look(link: Link | undefined = this.#line.link): void {
    for (const one of [...this.#live]) {
      if (one.isLost || (one.isBehind && one.items.length === 0)) this.#requeue(one);
    }
    if (this.#asking !== undefined) return this.#joinAsking(this.#asking);
    if (link === undefined || this.#isPausing) return;
    for (const first of [...this.#waiting]) {
      if (!this.#joinLive(first)) return this.#ask(link, first);
    }
  }

  #requeue(follower: Follower): void {
    this.#live.delete(follower);
    this.#waiting.add(follower);
  }

  /** Lets followers that came meanwhile share the reply to the `subscribe` in flight. */
  #joinAsking(asking: Subscribing): void {
    if (!asking.isFromNow) return;
    for (const one of this.#waiting) {
      const isServed = !one.wantsSnapshot || (asking.wantsSnapshot && one.askedRoute === asking.asked);
      if (one.since === null && isServed && !asking.followers.includes(one)) asking.followers.push(one);
    }
  }

  /** Lets a follower join without a `subscribe`, if it needs only new events and another follower is live. */
  #joinLive(follower: Follower): boolean {
    let received: Position | null = null;
    for (const one of this.#live) {
      if (!one.isBehind && one.received !== null && (received === null || one.received.offset > received.offset)) received = one.received;
    }
    if (received === null || follower.wantsSnapshot || follower.hasEntered) return false;
    const since = follower.received;
    if (since !== null && (since.epoch !== received.epoch || since.offset !== received.offset)) return false;
    this.#waiting.delete(follower);
    this.#live.add(follower);
    follower.joined(received, since === null ? null : true, undefined, 1);
    return true;
  }

  /** Sends a `subscribe` for a follower, and for all others that it can serve. */
  #ask(link: Link, first: Follower): void {
    const from = first.since;
    const followers = [...this.#waiting].filter((one) => {
      if (one === first) return true;
      if (from !== null) return one.since?.epoch === from.epoch; // from the earliest position, once for all
      return one.since === null && (!one.wantsSnapshot || (first.wantsSnapshot && one.askedRoute === first.askedRoute));
    });
    const withSnapshot = followers.find((one) => one.wantsSnapshot);
    const asked = (withSnapshot ?? first).askedRoute;
    const offset = Math.min(...followers.map((one) => one.since?.offset ?? 0));
    const keys = { ...(withSnapshot === undefined ? {} : { snapshot: true }), ...(from === null ? {} : { since: { epoch: from.epoch, offset } }) };
    const asking: Subscribing = { followers, isFromNow: from === null, asked, wantsSnapshot: withSnapshot !== undefined };
    this.#asking = asking;
    this.#askedRoute = asked;
    this.#stop = after(Math.min(...followers.map((one) => one.timeout)), () => {
      this.#asking = undefined; // no reply in time: try again
      this.look();
    });
    link.ask("subscribe", asked, keys, { reply: (reply) => this.#answered(reply, asking), lost: () => undefined });
  }

  /** The connection was lost: all followers wait for the next one. */
  disconnected(): void {
    this.#settle();
    this.#asking = this.#askedRoute = this.#leaving = undefined;
    for (const one of [...this.#live]) this.#requeue(one);
    for (const one of this.#waiting) if (one.hasEntered) one.tell("recovering");
    if (this.#isEmpty) this.#registry.remove(this);
  }

  /** Ends all followers. */
  end(failure: ConnectionFailed | undefined): void {
    this.#settle();
    const all = [...this.#live, ...this.#waiting];
    this.#live.clear();
    this.#waiting.clear();
    for (const one of all) one.end(failure);
  }

  #settle(): void {
    this.#stop();
    this.#isPausing = false;
  }

  // replies
  #answered(reply: Reply, asking: Subscribing): void {
    if (asking !== this.#asking) {
      if (this.#leaving !== undefined) this.#renamed(reply); // all followers have left
      return; // or another `subscribe` was sent since
    }
    this.#settle();
    this.#asking = undefined;
    if (reply.status >= 400) return this.#refused(reply, asking);
    this.#backoff.reset();
    const position = positionIn(reply.data);
    if (position === null) {
      for (const one of asking.followers) {
        one.end(new UnexpectedReply(`subscribe ${asking.asked}: no position in the reply`));
        this.leave(one);
      }
      return;
    }
    this.#renamed(reply).#joined(position, reply, asking);
  }

  /** The shared route for the name that the server gave in its reply. */
  #renamed(reply: Reply): SharedRoute {
    const route = (reply.data as { readonly route?: unknown } | null)?.route;
    return typeof route === "string" && route !== this.name ? this.#registry.rename(this, route) : this;
  }

  #joined(position: Position, reply: Reply, asking: Subscribing): void {
    const { recovered, snapshot } = reply.data as { readonly recovered?: unknown; readonly snapshot?: unknown };
    for (const one of [...this.#live]) {
      if (asking.followers.includes(one) || one.isBehind) continue;
      const isAhead = one.received === null || one.received.epoch !== position.epoch || one.received.offset < position.offset;
      if (isAhead) this.#requeue(one); // the events between its position and this one may not come
    }
    for (const one of asking.followers) {
      if (!this.#waiting.has(one)) continue; // it has left meanwhile
      const since = one.since;
      const needsSnapshot = one.wantsSnapshot && (since === null || recovered !== true);
      if (needsSnapshot && (!asking.wantsSnapshot || one.askedRoute !== asking.asked)) {
        one.isLost ||= since !== null; // this snapshot has another query; its own comes next
        continue;
      }
      this.#waiting.delete(one);
      this.#live.add(one);
      one.joined(position, since === null ? null : recovered === true, one.wantsSnapshot ? snapshot : undefined, reply.size);
    }
    this.look();
  }

  /** Ends the followers of a refused `subscribe`. Those that were live before stay if the error may pass. */
  #refused(reply: Reply, asking: Subscribing): void {
    const error = actionError(reply);
    const mayPass = error instanceof Unavailable || error instanceof Throttled;
    for (const one of asking.followers) {
      if (!wasNotRun(reply) && !(mayPass && one.hasEntered)) this.#drop(one, actionError(reply));
    }
    if (!mayPass || this.#waiting.size === 0) return this.look();
    const wait = this.#backoff.seconds() + (error instanceof Throttled ? (error.retryAfter ?? 0) : 0);
    this.#isPausing = true;
    this.#stop = after(wait, () => {
      this.#isPausing = false;
      this.look();
    });
  }

  #drop(follower: Follower, error: Error): void {
    const wasLive = this.#live.delete(follower);
    if (this.#waiting.delete(follower) || wasLive) follower.end(error);
    if (this.#live.size === 0) this.#askedRoute = undefined;
    if (this.#isEmpty) this.#registry.remove(this);
  }

  // events
  receive(event: ServerEvent, size: number): void {
    if (event.event === "$unsubscribed") {
      if (this.#live.size === 0 && this.#asking !== undefined) return; // it belongs to the earlier subscription
      this.#asking = undefined;
      this.#settle();
      const lost = { type: "permission_denied", msg: "The permission for this subscription was withdrawn." };
      for (const one of [...this.#live, ...this.#waiting]) this.#drop(one, new PermissionDenied(403, [lost], "subscribe", one.askedRoute));
    } else if (event.event === "$position" || event.event === "$resync") this.#notice(event);
    else for (const one of [...this.#live]) one.receive(event, size);
  }

  #notice(event: ServerEvent): void {
    const position = positionIn(event.data);
    if (position === null) return this.#line.log(`${event.event} of ${event.route} without a position`, event.data);
    for (const one of [...this.#live]) {
      if (event.event === "$position") one.moved(position);
      else one.missed(position);
    }
    this.look();
  }
}

/**
 * The events of a route, each once and in order, even if the connection is lost or the consumer is slow. A `$resync` marks
 * where events were lost.
 *
 * If you leave the loop, the subscription closes. It ends when the client is closed, and throws the `ActionError` with
 * which the server ends it. If more than `buffer` characters wait for the consumer, later events are loaded from the
 * server's history. Subscriptions of one route share one subscription at the server; each has its own position and buffer.
 */
export class Subscription<Told extends ServerEvent, Snapshot = undefined, First = Snapshot>
  implements AsyncIterable<Told | Resync<Snapshot>>, AsyncIterator<Told | Resync<Snapshot>, undefined>
{
  readonly #follower: Follower;

  /** @internal */
  constructor(follower: unknown) {
    this.#follower = follower as Follower;
  }

  /** The snapshot at the start, if the option `snapshot` is set. */
  get snapshot(): First {
    return this.#follower.snapshot as First;
  }

  /** Whether all events after `since` followed; null without `since`. */
  get recovered(): boolean | null {
    return this.#follower.recovered;
  }

  /** The position of the last item that was returned. Pass it as `since` to continue later. */
  get position(): Position | null {
    return this.#follower.position;
  }

  /** The route, as in its events. */
  get route(): string {
    return this.#follower.shared.name;
  }

  /** The state of the subscription. */
  get state(): SubscriptionState {
    return this.#follower.state;
  }

  /** Calls `tell` with each new state; returns a function that stops it. */
  onState(tell: (state: SubscriptionState) => void): () => void {
    return this.#follower.watch(tell);
  }

  /** Closes the subscription at once. The last one of a route unsubscribes. */
  close(): void {
    this.#follower.leave();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Told | Resync<Snapshot>, undefined>> {
    return this.#follower.next() as Promise<IteratorResult<Told | Resync<Snapshot>, undefined>>;
  }

  return(): Promise<IteratorResult<Told | Resync<Snapshot>, undefined>> {
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }
}

