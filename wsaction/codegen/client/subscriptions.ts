/** How to subscribe. `snapshot`: with what `list` or `retrieve` answers there, and again wherever something was lost. */
export interface SubscribeOptions<
  QueryName extends string = string,
  Asked extends boolean = boolean,
  Since extends Position | null = Position | null,
> {
  readonly snapshot?: Asked | undefined;
  /** All that came after this position is told first. */
  readonly since?: Since | undefined;
  readonly query?: Query<QueryName> | undefined;
  /** Seconds until the server has answered. 30 */
  readonly timeout?: number | undefined;
  /** Closes the subscription. */
  readonly signal?: AbortSignal | undefined;
}

/** `joining`: the server has not answered yet. `recovering`: what was missed is being asked for. */
export type SubscriptionState = "joining" | "live" | "recovering" | "closed";

/** The snapshot of who says `snapshot: Asked`: undefined where none is asked for. */
export type SnapshotFor<Asked extends boolean, Snapshot> = [Asked] extends [true]
  ? Snapshot
  : true extends Asked ? Snapshot | undefined : undefined;
/** The same of the first one, which does not come where all that was missed `since` follows. */
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

/** One subscription; `Subscription` is what users see of it. */
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
  isBehind = false; // more waits than may; what comes is dropped, and asked for again once there is room
  isLost = false; // whether something was lost that the next answer makes good
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

  /** Ends it, at once: what waits and what comes is dropped. The last one of a route unsubscribes. */
  leave(): void {
    this.items.clear();
    this.#finish(undefined);
    this.shared.leave(this);
  }

  /** Nothing more comes: because of an error, or because the client is closed. */
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

  /** Where it has to be told from; null: from now on. */
  get since(): Position | null {
    return this.isLost ? null : this.received;
  }

  /** From here on what comes follows without a hole. */
  joined(answered: Position, recovered: boolean | null, snapshot: unknown, size: number): void {
    const since = this.received;
    const isLost = this.isLost || (since !== null && recovered !== true);
    this.isLost = this.isBehind = false;
    // the position in the reply is the one before what follows
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

  /** An event of its route came. */
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
    } // else it is known
  }

  /** Its position is another, without an event. */
  moved(position: Position): void {
    if (this.isBehind) return;
    this.received = position;
    this.#moved(position);
  }

  /** Something was lost. */
  missed(position: Position): void {
    if (this.wantsSnapshot) {
      this.isLost = true; // what comes until there is a new snapshot is in it, or comes after it
      this.tell("recovering");
    } else if (!this.isBehind) {
      this.received = position;
      this.#keepResync(position, undefined, 1);
    }
  }

  /** It always fits: one right after another takes its place. */
  #keepResync(position: Position, snapshot: unknown, size: number): void {
    const item = { event: "$resync", route: this.shared.name, position, snapshot };
    const last = this.items.last;
    if (last !== undefined && (last.item as ServerEvent).event === "$resync") {
      last.item = item;
      last.position = position;
    } else this.items.put({ item, position }, size);
  }

  /** The position behind the last item that waits is another. */
  #moved(position: Position): void {
    const last = this.items.last;
    if (last !== undefined) last.position = position;
    else this.position = position;
  }
}

/** A request to subscribe: for whom, and with what. */
interface Subscribing {
  readonly followers: readonly Follower[];
  readonly asked: string;
  readonly wantsSnapshot: boolean;
}

/**
 * One route that this client is subscribed to, for all of its subscriptions there.
 *
 * The server has one subscription of a route for each connection, and a new `subscribe` replaces it. So one is asked for
 * at a time, for as many as it serves: those that are joining, or have to catch up. The others go on meanwhile, and drop
 * by its offset what comes to them twice. If the answer's position is later than what one of them had, that one catches
 * up next.
 */
class SharedRoute {
  name: string; // under which its events come
  readonly #line: Line;
  readonly #registry: Registry;
  readonly #backoff: Backoff;
  readonly #live = new Set<Follower>();
  readonly #waiting = new Set<Follower>(); // to be asked for
  #asking: Subscribing | undefined;
  #isPausing = false; // until it is asked again after a refusal
  #askedRoute: string | undefined; // with which it is subscribed on this connection
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

  /** One fewer; the last one unsubscribes. Until the server has said that it is done, what comes is dropped. */
  leave(follower: Follower): void {
    const wasLive = this.#live.delete(follower);
    if (!(this.#waiting.delete(follower) || wasLive) || !this.#isEmpty) return;
    this.#settle();
    this.#asking = undefined;
    const link = this.#line.link;
    const asked = this.#askedRoute;
    this.#askedRoute = undefined;
    if (link === undefined || asked === undefined) return this.#registry.remove(this); // the server does not know of it
    const left = (): void => {
      if (this.#leaving !== leaving) return;
      this.#leaving = undefined;
      if (this.#isEmpty) this.#registry.remove(this);
    };
    const reply = (answer: Reply): void => {
      if (answer.status >= 500) this.#line.log(`unsubscribe ${asked}`, actionError(answer)); // refused: there is none any more
      left();
    };
    const leaving = (this.#leaving = { reply, lost: left });
    link.ask("unsubscribe", asked, {}, leaving);
  }

  /** Takes over those of another one, which turned out to be the same route. */
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
    this.disconnected(); // by its own name for it, which ends this one at the server too
    this.look();
  }

  // asking
  /** Asks for those that wait, one after the other, if nothing is being asked. */
  look(link: Link | undefined = this.#line.link): void {
    for (const one of [...this.#live]) {
      if (one.isLost || (one.isBehind && one.items.length === 0)) this.#requeue(one);
    }
    if (link === undefined || this.#asking !== undefined || this.#isPausing) return;
    for (const first of [...this.#waiting]) {
      if (!this.#joinLive(first)) return this.#ask(link, first);
    }
  }

  #requeue(follower: Follower): void {
    this.#live.delete(follower);
    this.#waiting.add(follower);
  }

  /** One that wants no more than what comes from now on needs no word of the server's, once there is one live. */
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

  /** Subscribes with what the first one needs, and all who need the same. */
  #ask(link: Link, first: Follower): void {
    const from = first.since;
    const followers = [...this.#waiting].filter((one) => {
      if (one === first) return true;
      if (from !== null) return one.since?.epoch === from.epoch; // from the earliest of them, once for all
      return one.since === null && (!one.wantsSnapshot || (first.wantsSnapshot && one.askedRoute === first.askedRoute));
    });
    const withSnapshot = followers.find((one) => one.wantsSnapshot);
    const asked = (withSnapshot ?? first).askedRoute;
    const offset = Math.min(...followers.map((one) => one.since?.offset ?? 0));
    const keys = { ...(withSnapshot === undefined ? {} : { snapshot: true }), ...(from === null ? {} : { since: { epoch: from.epoch, offset } }) };
    const asking: Subscribing = { followers, asked, wantsSnapshot: withSnapshot !== undefined };
    this.#asking = asking;
    this.#askedRoute = asked;
    this.#stop = after(Math.min(...followers.map((one) => one.timeout)), () => {
      this.#asking = undefined; // no answer in time: it is asked again
      this.look();
    });
    link.ask("subscribe", asked, keys, { reply: (reply) => this.#answered(reply, asking), lost: () => undefined });
  }

  /** The connection was lost. */
  disconnected(): void {
    this.#settle();
    this.#asking = this.#askedRoute = this.#leaving = undefined;
    for (const one of [...this.#live]) this.#requeue(one);
    for (const one of this.#waiting) if (one.hasEntered) one.tell("recovering");
    if (this.#isEmpty) this.#registry.remove(this);
  }

  /** Nothing more comes. */
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

  // being answered
  #answered(reply: Reply, asking: Subscribing): void {
    if (asking !== this.#asking) {
      if (this.#leaving !== undefined) this.#renamed(reply); // it was left
      return; // or has been asked again since
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

  /** The route under whose name its events come, as the server has said. */
  #renamed(reply: Reply): SharedRoute {
    const route = (reply.data as { readonly route?: unknown } | null)?.route;
    return typeof route === "string" && route !== this.name ? this.#registry.rename(this, route) : this;
  }

  #joined(position: Position, reply: Reply, asking: Subscribing): void {
    const { recovered, snapshot } = reply.data as { readonly recovered?: unknown; readonly snapshot?: unknown };
    for (const one of [...this.#live]) {
      if (asking.followers.includes(one) || one.isBehind) continue;
      const isAhead = one.received === null || one.received.epoch !== position.epoch || one.received.offset < position.offset;
      if (isAhead) this.#requeue(one); // what is between its position and this one may not come any more
    }
    for (const one of asking.followers) {
      if (!this.#waiting.has(one)) continue; // it has left
      const since = one.since;
      const needsSnapshot = one.wantsSnapshot && (since === null || recovered !== true);
      if (needsSnapshot && (!asking.wantsSnapshot || one.askedRoute !== asking.asked)) {
        one.isLost ||= since !== null; // that snapshot is another list's: its own is asked for next
        continue;
      }
      this.#waiting.delete(one);
      this.#live.add(one);
      one.joined(position, since === null ? null : recovered === true, one.wantsSnapshot ? snapshot : undefined, reply.size);
    }
    this.look();
  }

  /** Ends those for whom it was asked, unless they were there before and the server may think better of it. */
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

  // being told
  receive(event: ServerEvent, size: number): void {
    if (event.event === "$unsubscribed") {
      if (this.#live.size === 0 && this.#asking !== undefined) return; // of what was before
      this.#asking = undefined;
      this.#settle();
      const lost = { type: "permission_denied", msg: "The right to this was lost after it was subscribed to." };
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
 * The events of a route, each once and in order, through lost connections and slow consumers, and a `$resync` wherever
 * something was lost. Leaving the loop closes it; it ends when the client is closed, and throws the `ActionError` with
 * which the server refuses to go on. Events that wait for their consumer beyond `buffer` characters are asked for again
 * from the server's history. Subscriptions of one route share one of the server's; each has its own position and buffer.
 */
export class Subscription<Told extends ServerEvent, Snapshot = undefined, First = Snapshot>
  implements AsyncIterable<Told | Resync<Snapshot>>, AsyncIterator<Told | Resync<Snapshot>, undefined>
{
  readonly #follower: Follower;

  /** @internal */
  constructor(follower: unknown) {
    this.#follower = follower as Follower;
  }

  /** What was there when it began, where that was asked for. */
  get snapshot(): First {
    return this.#follower.snapshot as First;
  }

  /** Whether all that was missed since a position followed; null where none was named. */
  get recovered(): boolean | null {
    return this.#follower.recovered;
  }

  /** That of the last item that was handed out: keep it, and pass it as `since` another day. */
  get position(): Position | null {
    return this.#follower.position;
  }

  /** The route, as events name it. */
  get route(): string {
    return this.#follower.shared.name;
  }

  /** How it stands with it. */
  get state(): SubscriptionState {
    return this.#follower.state;
  }

  /** Calls a function with each new state; returns what ends that. */
  onState(tell: (state: SubscriptionState) => void): () => void {
    return this.#follower.watch(tell);
  }

  /** Ends it, at once. The last one of a route unsubscribes. */
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

