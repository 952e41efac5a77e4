/** How to subscribe. `snapshot`: with what `list` or `retrieve` answers there, and again wherever something was lost. */
export interface SubscribeOptions {
  readonly snapshot?: boolean | undefined;
  /** All that came after this position is told first. */
  readonly since?: Position | null | undefined;
  readonly query?: Query | undefined;
  /** Seconds until the server has answered. 30 */
  readonly timeout?: number | undefined;
  /** Closes the subscription. */
  readonly signal?: AbortSignal | undefined;
}

/** What the options say of snapshots: `Snapshot`, or undefined where none is asked for. */
export type SnapshotFor<Options, Snapshot> = Options extends { readonly snapshot: infer Asked }
  ? [Asked] extends [true] ? Snapshot : true extends Asked ? Snapshot | undefined : undefined
  : undefined;
/** The same of the first one, which does not come where all that was missed `since` follows. */
export type FirstFor<Options, Snapshot> = Options extends { readonly since: infer Since }
  ? [Since] extends [null | undefined] ? SnapshotFor<Options, Snapshot> : SnapshotFor<Options, Snapshot> | undefined
  : SnapshotFor<Options, Snapshot>;

interface Waiting {
  item: unknown;
  position: Position | null;
}

interface Registry {
  add(subscription: Follower): void;
  remove(subscription: Follower): void;
}

const LEAVE_TIMEOUT = 5; // seconds that leaving waits for the server's word
const STATES = { IDLE: 0, ASKED: 1, LIVE: 2, BEHIND: 3, LEAVING: 4 } as const; // BEHIND: what comes is asked for again

/** What a subscription does; `Subscription` is what users see of it. */
class Follower {
  route: string; // under which its events come
  position: Position | null;
  recovered: boolean | null = null;
  snapshot: unknown = undefined;
  onEnd: () => void = () => undefined;
  readonly items = new Buffer<Waiting>();
  readonly #askedRoute: string;
  readonly #line: Line;
  readonly #registry: Registry;
  readonly #wantsSnapshot: boolean;
  readonly #timeout: number;
  readonly #backoff: Backoff;
  readonly #entered: { resolve(): void; reject(error: Error): void };
  #hasEntered = false;
  #received: Position | null;
  #state: number = STATES.IDLE;
  #isLost = false; // whether something was lost that the next answer makes good
  #asking: Asker | undefined;
  #stop: () => void = () => undefined; // the timer

  constructor(line: Line, registry: Registry, route: string, options: SubscribeOptions, entered: { resolve(): void; reject(error: Error): void }) {
    this.#line = line;
    this.#registry = registry;
    this.#askedRoute = route;
    this.route = route.split("?", 1)[0] ?? "";
    this.#wantsSnapshot = options.snapshot === true;
    this.#timeout = options.timeout ?? 30;
    this.#backoff = line.newBackoff();
    this.position = this.#received = options.since ?? null;
    this.#entered = entered;
  }

  get isLeaving(): boolean {
    return this.#state === STATES.LEAVING;
  }

  async next(): Promise<IteratorResult<unknown, undefined>> {
    const result = await this.items.next();
    if (result.done === true) return result;
    this.position = result.value.position;
    if (this.#state === STATES.BEHIND && this.items.length === 0) this.#askAgain();
    return { value: result.value.item, done: false };
  }

  /** Nothing more comes: because of an error, or because the client is closed. */
  end(error?: Error): void {
    this.#stop();
    this.#asking = undefined;
    this.onEnd();
    this.items.end(error);
    this.#registry.remove(this);
    if (!this.#hasEntered) this.#entered.reject(error ?? new ConnectionFailed("the client is closed"));
  }

  /** Unsubscribes; until the server has said that it is done, what comes is dropped. */
  leave(): Promise<void> {
    if (this.isLeaving) return Promise.resolve();
    this.#stop();
    this.#state = STATES.LEAVING;
    this.onEnd();
    this.items.clear();
    this.items.end();
    const link = this.#line.link;
    if (link === undefined || this.#asking === undefined) {
      this.#registry.remove(this);
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const done = (): void => {
        stop();
        this.#registry.remove(this);
        resolve();
      };
      const stop = after(LEAVE_TIMEOUT, () => {
        this.#line.log(`unsubscribe ${this.#askedRoute}: no reply in ${LEAVE_TIMEOUT} s`, undefined);
        done();
      });
      try {
        link.ask("unsubscribe", this.#askedRoute, {}, { reply: done, lost: done });
      } catch {
        done(); // the connection is gone, and the subscription with it
      }
    });
  }

  /** Subscribes: for the first time, or again with all that is known by now. */
  ask(link: Link): void {
    if (this.isLeaving || this.items.ended) return;
    this.#stop();
    const asking: Asker = { reply: (reply) => this.#answered(reply, asking), lost: () => undefined };
    const since = this.#received !== null && !this.#isLost ? { since: this.#received } : {};
    this.#state = STATES.ASKED;
    this.#asking = asking;
    this.#stop = after(this.#timeout, () => this.#askAgain());
    try {
      link.ask("subscribe", this.#askedRoute, { ...(this.#wantsSnapshot ? { snapshot: true } : {}), ...since }, asking);
    } catch (error) {
      this.#line.log(`subscribe ${this.#askedRoute}`, error); // it is asked again by the timer or the next connection
    }
  }

  #askAgain(): void {
    const link = this.#line.link;
    if (link !== undefined) this.ask(link); // else it is asked once there is one
  }

  /** The connection was lost: what is known stays. */
  cut(): void {
    this.#stop();
    this.#asking = undefined;
  }

  #answered(reply: Reply, asking: Asker): void {
    if (asking !== this.#asking || this.#state !== STATES.ASKED) return; // it has been asked again since
    this.#stop();
    if (reply.status >= 400) return this.#refused(actionError(reply));
    this.#backoff.reset();
    const position = positionIn(reply.data);
    if (position === null) return this.end(new UnexpectedReply(`subscribe ${this.#askedRoute}: no position in the reply`));
    const { route } = reply.data as { readonly route?: unknown };
    if (typeof route === "string" && route !== this.route) { // under which its events come, where it was asked for otherwise
      this.#registry.remove(this);
      this.route = route;
      this.#registry.add(this);
    }
    this.#joined(position, reply);
  }

  /** Ends, unless it was there before and the server may think better of it. */
  #refused(error: ActionError): void {
    const mayPass = error instanceof Unavailable || error instanceof Throttled;
    if (!mayPass || !this.#hasEntered) return this.end(error);
    const wait = this.#backoff.seconds() + (error instanceof Throttled ? (error.retryAfter ?? 0) : 0);
    this.#stop = after(wait, () => this.#askAgain());
  }

  /** From here on what comes follows without a hole. */
  #joined(told: Position, reply: Reply): void {
    const data = reply.data as { readonly [key: string]: unknown };
    const since = this.#received;
    const isLost = this.#isLost || (since !== null && data["recovered"] !== true);
    this.#isLost = false;
    this.#state = STATES.LIVE;
    // the position in the reply is the one before what follows
    const position = since === null || isLost ? told : { epoch: told.epoch, offset: Math.max(told.offset, since.offset) };
    this.#received = position;
    if (isLost) this.#keepResync(position, data["snapshot"], reply.size);
    else this.#moved(position);
    if (this.#hasEntered) return;
    this.#hasEntered = true;
    this.recovered = typeof data["recovered"] === "boolean" ? data["recovered"] : null;
    this.snapshot = data["snapshot"];
    this.#entered.resolve();
  }

  /** An event of its route came. */
  told(event: ServerEvent, size: number): void {
    if (this.#state !== STATES.LIVE) return; // before the server's word, or dropped
    if (event.event === "$position" || event.event === "$resync") return this.#notice(event);
    if (event.event === "$unsubscribed") {
      const lost = { type: "permission_denied", msg: "The right to this was lost after it was subscribed to." };
      return this.end(new PermissionDenied(403, [lost], "subscribe", this.#askedRoute));
    }
    if (this.items.length > 0 && this.items.size + size > this.#line.buffer) {
      this.#state = STATES.BEHIND;
    } else if (event.offset === undefined) {
      this.items.put({ item: event, position: this.#received }, size);
    } else if (this.#received === null || event.offset > this.#received.offset) {
      this.#received = { epoch: this.#received?.epoch ?? "", offset: event.offset };
      this.items.put({ item: event, position: this.#received }, size);
    } // else it is known
  }

  #notice(event: ServerEvent): void {
    const position = positionIn(event.data);
    if (position === null) return this.#line.log(`${event.event} of ${event.route} without a position`, event.data);
    if (event.event === "$position") {
      this.#received = position;
      this.#moved(position);
    } else if (this.#wantsSnapshot) {
      this.#isLost = true; // what comes until there is a new snapshot is in it, or comes after it
      this.#askAgain();
    } else {
      this.#received = position;
      this.#keepResync(position, undefined, 1);
    }
  }

  /** It always fits: one right after another takes its place. */
  #keepResync(position: Position, snapshot: unknown, size: number): void {
    const item = { event: "$resync", route: this.route, position, snapshot };
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

/**
 * The events of a route, each once and in order, through lost connections and slow consumers, and a `$resync` wherever
 * something was lost. Leaving the loop closes it; it ends when the client is closed, and throws the `ActionError` with
 * which the server refuses to go on. Events that wait for their consumer beyond `buffer` characters are asked for again
 * from the server's history.
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
    return this.#follower.route;
  }

  /** Ends it; resolves once the server has said so, or after 5 s. */
  close(): Promise<void> {
    return this.#follower.leave();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Told | Resync<Snapshot>, undefined>> {
    return this.#follower.next() as Promise<IteratorResult<Told | Resync<Snapshot>, undefined>>;
  }

  async return(): Promise<IteratorResult<Told | Resync<Snapshot>, undefined>> {
    await this.close();
    return { value: undefined, done: true };
  }
}

