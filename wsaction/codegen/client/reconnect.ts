// ------------------------------------------------------------------------------------------------------- the client

/** `waiting`: until the next attempt to connect. `closed`: for good. */
export type State = "connecting" | "open" | "waiting" | "closed";

/** The global object, which tells of the network, or the document, which tells whether the page is visible. */
interface Teller {
  readonly document?: Teller;
  readonly visibilityState?: string;
  addEventListener?(type: string, listener: () => void): void;
  removeEventListener?(type: string, listener: () => void): void;
}
type Log = (message: string, cause: unknown) => void;

/** Options of a client. Times are in seconds; null means no limit, or never. */
export interface ClientOptions {
  /** A bearer token, sent as a subprotocol. A function is called for each connection. undefined: none. */
  readonly token?: string | (() => string | undefined | Promise<string | undefined>) | undefined;
  /** The data of `$auth`, sent first. A function is called for each connection, and again before the credential expires. */
  readonly auth?: unknown;
  /** Timeout of a call, and of a stream until its first item. Default: 60 */
  readonly timeout?: number | null | undefined;
  /** Timeout of connecting, and again of `$auth`. Default: 10 */
  readonly openTimeout?: number | undefined;
  /** Silence after which `$ping` is sent. Without an answer within as long, at most 10, the connection is lost. Default: 25 */
  readonly heartbeat?: number | null | undefined;
  /** Whether to reconnect when the connection is lost. Default: true */
  readonly reconnect?: boolean | undefined;
  /** Upper bound of the first wait before reconnecting. It doubles each time. Default: 0.5 */
  readonly firstWait?: number | undefined;
  /** Upper bound of all waits before reconnecting. Default: 30 */
  readonly longestWait?: number | undefined;
  /** Characters that may wait for the consumer, for each stream, subscription and `$events()`. Default: 1,048,576 */
  readonly buffer?: number | undefined;
  /** Requests in flight; more wait. The client lowers it if the server has room for fewer. Default: 128 */
  readonly maxInFlight?: number | undefined;
  /** Called with each new state and its cause. */
  readonly onState?: OnState | undefined;
  /** Called with errors that no caller receives. Default: console.warn */
  readonly log?: Log | undefined;
  /** The WebSocket class, for platforms without one (Node before 22): that of the npm package `ws`. */
  readonly WebSocket?: SocketClass | undefined;
}

type OnState = (state: State, cause: Error | undefined) => void;

/** Why a connection ended, and how to go on. */
interface LinkEnding {
  readonly failure: ConnectionFailed;
  readonly isExpired: boolean;
  readonly isAtOnce: boolean;
}

/** Receives the events and the state changes of a `Line`. */
interface Hearer {
  event(event: ServerEvent, size: number): void;
  hold(size: number): void;
  release(): void;
  linked(link: Link): void;
  disconnected(): void;
  ended(failure: ConnectionFailed | undefined): void;
}

const POLICY = 1008; // a final close code, as most of 44xx are, which correspond to HTTP 4xx
const NOT_AUTHENTICATED = 4401; // after the client was let in: its credential has expired
const PASSING_STATUSES: readonly number[] = [408, 425, 429]; // and 5xx: a later attempt may succeed
const AT_ONCE = 1; // seconds that a credential must last to be renewed without a wait
const STABLE = 10; // seconds after which a connection counts as stable
const PATIENCE = 10; // seconds to wait for the answer to a ping, at most
const WOKEN_PATIENCE = 3; // the same once the network or the page is back
const MIN_REFRESH = 0.5; // seconds between two $auth if the credential has expired by the local clock
const MAX_REFRESH = 30;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/; // characters of a subprotocol

/** Keeps one connection open: reconnects when it is lost, until the client is closed or the server refuses. */
class Line {
  state: State = "connecting";
  readonly log: Log;
  readonly buffer: number;
  readonly timeout: number | null;
  readonly #url: string;
  readonly #options: ClientOptions;
  readonly #hearer: Hearer;
  readonly #backoff: Backoff;
  readonly #waiters = new Set<{ go(link: Link): void; fail(error: Error): void }>();
  readonly #watchers = new Set<{ readonly tell: OnState }>();
  readonly #pacer: Pacer;
  #link: Link | undefined;
  #dialing: Link | undefined; // not open yet, or before the reply to the first frame
  #isRunning = false;
  #refused = 0; // refusals in a row, without a successful or stable connection in between
  #cause: Error | undefined; // why there is no connection
  #failure: ConnectionFailed | undefined;
  #wake: () => void = () => undefined;
  #isWoken = false; // the connection did not survive the sleep: the next one is opened without a wait
  #stopChecking: () => void = () => undefined;

  constructor(url: string, options: ClientOptions, hearer: Hearer) {
    this.#url = socketUrl(url);
    this.#options = options;
    this.#hearer = hearer;
    this.buffer = options.buffer ?? 1_048_576;
    this.timeout = options.timeout === undefined ? 60 : options.timeout;
    this.log = options.log ?? ((message, cause) => console.warn(`wsaction: ${message}`, cause));
    this.#backoff = this.newBackoff();
    this.#pacer = new Pacer(options.maxInFlight ?? MAX_IN_FLIGHT, this.log);
    if (options.onState !== undefined) this.watch(options.onState);
  }

  /** Calls `tell` with each new state; returns a function that stops it. */
  watch(tell: OnState): () => void {
    const watcher = { tell };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  newBackoff(): Backoff {
    return new Backoff(this.#options.firstWait ?? 0.5, this.#options.longestWait ?? 30);
  }

  get link(): Link | undefined {
    return this.#link?.lost === undefined ? this.#link : undefined;
  }

  get cause(): Error | undefined {
    return this.link === undefined ? this.#cause : undefined;
  }

  /** Calls `go` with the connection, now or once it is open; returns a function that gives up waiting. */
  whenOpen(go: (link: Link) => void, fail: (error: Error) => void): () => void {
    const link = this.link;
    if (this.#failure !== undefined) fail(copyOf(this.#failure));
    else if (link !== undefined) go(link);
    else if (this.#waiters.size >= MAX_WAITING) fail(new Overflow(`${MAX_WAITING} callers wait for a connection`));
    else {
      const waiter = { go, fail };
      this.#waiters.add(waiter);
      this.#start();
      return () => this.#waiters.delete(waiter);
    }
    return () => undefined;
  }

  /** Queues a request; returns a function that withdraws it. */
  submit(request: OutgoingRequest): () => void {
    if (this.#failure !== undefined) throw copyOf(this.#failure);
    this.#pacer.submit(request);
    this.#start();
    return () => this.#pacer.withdraw(request);
  }

  /** Settles `done` once all sends are known to be done; returns a function that gives up waiting. */
  flush(done: Settling): () => void {
    if (this.#failure !== undefined) throw copyOf(this.#failure);
    return this.#pacer.flush(done);
  }

  #start(): void {
    if (!this.#isRunning) void this.#run();
  }

  close(): void {
    this.#end(undefined);
    for (const link of [this.#dialing, this.#link]) link?.close(1000, "closed by this client");
    this.#wake();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    const page = globalThis as Teller;
    page.addEventListener?.("online", this.#wakeUp);
    page.document?.addEventListener?.("visibilitychange", this.#onVisibility);
    try {
      while (this.#failure === undefined) {
        this.#setState("connecting", this.#cause);
        const { failure, isExpired, isAtOnce } = await this.#connectOnce();
        if (this.#failure !== undefined) break;
        if (isExpired) this.#refused = 0;
        if (this.#options.reconnect === false || (!isExpired && this.#isFinal(failure))) return this.#end(failure);
        const isWoken = this.#isWoken;
        this.#isWoken = false;
        if (isAtOnce || isWoken) continue;
        this.#setState("waiting", failure);
        await this.#pause(this.#backoff.seconds());
      }
    } finally {
      page.removeEventListener?.("online", this.#wakeUp);
      page.document?.removeEventListener?.("visibilitychange", this.#onVisibility);
    }
  }

  /**
   * The network is back, or the page is visible again: ends the wait for the next attempt. A connection that looks open may
   * have died meanwhile, so it has to answer a `$ping` soon.
   */
  readonly #wakeUp = (): void => {
    this.#wake();
    const link = this.link;
    if (link === undefined) return;
    this.#stopChecking();
    const asked = now();
    link.ping();
    this.#stopChecking = after(WOKEN_PATIENCE, () => {
      if (link.lost !== undefined || link.heardAt >= asked) return;
      this.#isWoken = true;
      link.close(1006, `no answer to a ping within ${WOKEN_PATIENCE} s`);
    });
  };

  readonly #onVisibility = (): void => {
    if ((globalThis as Teller).document?.visibilityState === "visible") this.#wakeUp();
  };

  #pause(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const stop = after(seconds, resolve);
      this.#wake = () => {
        stop();
        resolve();
      };
    });
  }

  get #canRenew(): boolean {
    return typeof this.#options.token === "function" || typeof this.#options.auth === "function";
  }

  /** Whether to stop after a failure. A credential from a function gets one more attempt, since it may change. */
  #isFinal(failure: ConnectionFailed): boolean {
    return failure.isFinal && (++this.#refused > 1 || !this.#canRenew);
  }

  /** Opens one connection and serves it until it is lost. */
  async #connectOnce(): Promise<LinkEnding> {
    let link: Link | undefined;
    try {
      link = await this.#dial();
      const expiresAt = await this.#introduce(link);
      if (link.lost !== undefined) throw refusal(this.#url, link.lost);
      return await this.#serve(link, expiresAt);
    } catch (error) {
      link?.close(1000, "closed by this client");
      const failure = error instanceof ConnectionFailed ? error : noCredential(error);
      if (this.#failure === undefined) this.#cause = failure;
      return { failure, isExpired: false, isAtOnce: false };
    }
  }

  /** Serves an open connection until it is lost. `isExpired`: the credential expired, so a new one may be accepted. */
  async #serve(link: Link, expiresAt: number | null): Promise<LinkEnding> {
    const began = now();
    this.#dialing = undefined;
    this.#link = link;
    this.#hearer.linked(link);
    this.#pacer.attach(link);
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.go(link);
    this.#setState("open", undefined);
    const stops = [this.#keepAlive(link), this.#refresh(link, expiresAt), after(0, () => this.#hearer.release())];
    const lost = await link.done;
    for (const stop of stops) stop();
    this.#stopChecking();
    this.#link = undefined;
    this.#pacer.detach();
    if (this.#failure === undefined) {
      this.#cause = lost;
      this.#hearer.disconnected();
    }
    const lasted = now() - began;
    if (lasted >= STABLE) this.#backoff.reset();
    if (lasted >= STABLE || (link.isLetIn && !refuses(lost.code))) this.#refused = 0;
    const isExpired = lost.code === NOT_AUTHENTICATED && link.isLetIn && this.#canRenew;
    return { failure: refusal(this.#url, lost), isExpired, isAtOnce: isExpired && lasted >= AT_ONCE };
  }

  async #dial(): Promise<Link> {
    const protocols = ["wsaction.v1"];
    const token = await valueOf(this.#options.token);
    if (token !== undefined) protocols.push(`bearer.${checkedToken(token)}`);
    const kind = this.#options.WebSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
    if (kind === undefined) throw new ConnectionFailed("this platform has no WebSocket; pass one: new Client(url, { WebSocket })", true);
    let socket: Socket;
    try {
      socket = new kind(this.#url, protocols) as unknown as Socket;
    } catch (error) {
      throw new ConnectionFailed(`cannot connect to ${this.#url}: ${String(error)}`, true, undefined, error);
    }
    this.#hearer.hold(this.buffer); // until callers that wait for the connection can listen
    const link = new Link(socket, (event, size) => this.#hearer.event(event, size), this.#pacer, this.log);
    if (this.#failure !== undefined) link.close(1000, "closed by this client");
    this.#dialing = link;
    const seconds = this.#options.openTimeout ?? 10;
    const stop = after(seconds, () => link.close(1006, `no answer within ${seconds} s`));
    await link.opened;
    stop();
    if (link.lost === undefined) return link;
    if (refuses(link.lost.code)) throw refusal(this.#url, link.lost);
    throw new ConnectionFailed(`cannot connect to ${this.#url} (code ${link.lost.code} ${link.lost.reason})`.replace(" )", ")"));
  }

  /**
   * Sends `$auth`, or `$ping` if there is no credential, and waits for the reply before anything else is sent. A server may
   * accept a handshake only to refuse it by a close code; this way no request is lost to it.
   */
  async #introduce(link: Link): Promise<number | null> {
    try {
      if (this.#options.auth !== undefined) return await this.#authenticate(link);
      await this.#askFirst(link, "$ping", {}).catch((error: unknown) => {
        if (!(error instanceof ActionError)) throw error; // 401: the server waits for `$auth`, which the caller may send
      });
      return null;
    } catch (error) {
      if (error instanceof ActionError) {
        const isFinal = statusRefuses(error.status);
        throw new ConnectionFailed(`${this.#url} refused $auth: ${error.message}`, isFinal, undefined, error);
      }
      throw error instanceof ConnectionLost ? refusal(this.#url, error) : error;
    }
  }

  async #authenticate(link: Link): Promise<number | null> {
    const data = await valueOf(this.#options.auth);
    const credential = await this.#askFirst(link, "$auth", { data });
    const at = isObject(credential) ? credential["expires_at"] : null;
    return typeof at === "number" ? at : null;
  }

  /** Sends the first frame of a connection and waits for its reply. */
  #askFirst(link: Link, action: string, keys: object): Promise<unknown> {
    const seconds = this.#options.openTimeout ?? 10;
    return new Promise((resolve, reject) => {
      let stop = (): void => undefined;
      const reply = (answer: Reply): void => {
        stop();
        if (answer.status >= 400) reject(actionError(answer));
        else resolve(answer.data);
      };
      const lost = (error: Error): void => {
        stop();
        reject(error);
      };
      link.ask(action, "", keys, { reply, lost });
      stop = after(seconds, () => reject(new ConnectionFailed(`${this.#url} did not answer ${action} within ${seconds} s`)));
    });
  }

  /**
   * Sends `$auth` again at half of the time left, as long as the credential expires. If it has expired by the local clock
   * and the connection is still open, the clocks differ or `$auth` failed: the waits between attempts double.
   */
  #refresh(link: Link, expiresAt: number | null): () => void {
    let stop = (): void => undefined;
    let minimum = MIN_REFRESH;
    const wait = (until: number | null): void => {
      if (until === null || typeof this.#options.auth !== "function" || link.lost !== undefined) return;
      const seconds = Math.max((until - Date.now() / 1000) / 2, minimum);
      minimum = seconds > minimum ? MIN_REFRESH : Math.min(minimum * 2, MAX_REFRESH);
      stop = after(seconds, () => {
        this.#authenticate(link).then(wait, (error: unknown) => {
          if (link.lost !== undefined) return;
          this.log("the credential could not be refreshed", error);
          wait(until);
        });
      });
    };
    wait(expiresAt);
    return () => stop();
  }

  /** Sends `$ping` to a silent server, and closes the connection if it does not answer. */
  #keepAlive(link: Link): () => void {
    const heartbeat = this.#options.heartbeat === undefined ? 25 : this.#options.heartbeat;
    if (heartbeat === null) return () => undefined;
    const patience = Math.min(heartbeat, PATIENCE);
    let stop = (): void => undefined;
    let pinged: number | null = null;
    const look = (): void => {
      if (link.lost !== undefined) return;
      if (pinged !== null && link.heardAt >= pinged) pinged = null;
      if (pinged !== null && now() - pinged >= patience) return link.close(1006, `no answer to a ping within ${patience} s`);
      if (pinged === null && now() - link.heardAt >= heartbeat) {
        pinged = now();
        link.ping();
      }
      stop = after(pinged === null ? heartbeat - (now() - link.heardAt) : patience, look);
    };
    stop = after(heartbeat, look);
    return () => stop();
  }

  /** Closes the line for good, and rejects everything that waits. */
  #end(failure: ConnectionFailed | undefined): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure ?? new ConnectionFailed("the client is closed");
    this.#cause = failure;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.fail(copyOf(this.#failure));
    this.#pacer.end(this.#failure);
    this.#hearer.ended(failure);
    this.#setState("closed", failure);
  }

  #setState(state: State, cause: Error | undefined): void {
    this.state = state;
    for (const watcher of [...this.#watchers]) {
      try {
        watcher.tell(state, cause);
      } catch (error) {
        this.log(`onState(${JSON.stringify(state)}, ...) failed`, error);
      }
    }
  }
}

/** An absolute WebSocket URL: wss://example.com/ws/ for "/ws/" in a page of https://example.com. */
function socketUrl(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href;
  const absolute = /^[a-z]+:/i.test(url) || here === undefined ? url : new URL(url, here).href;
  return absolute.replace(/^http/i, "ws");
}

/** Whether a status of HTTP or `$auth` is final: the same request cannot succeed later. */
function statusRefuses(status: number): boolean {
  return status < 500 && !PASSING_STATUSES.includes(status);
}

/** Whether a close code is final: the client must not reconnect. */
function refuses(code: number): boolean {
  return code === POLICY || (code >= 4400 && code < 4500 && statusRefuses(code - 4000));
}

function refusal(url: string, lost: ConnectionLost): ConnectionFailed {
  const detail = lost.reason ? `, ${JSON.stringify(lost.reason)}` : "";
  const message = `${url} closed the connection: code ${lost.code}${detail}`;
  return new ConnectionFailed(message, refuses(lost.code), lost.code, lost);
}

function noCredential(error: unknown): ConnectionFailed {
  return new ConnectionFailed(`no credential to connect with: ${String(error)}`, false, undefined, error);
}

function copyOf(failure: ConnectionFailed): ConnectionFailed {
  return new ConnectionFailed(failure.message, failure.isFinal, failure.code, failure);
}

function checkedToken(token: unknown): string {
  if (typeof token === "string" && TOKEN.test(token)) return token;
  throw new ConnectionFailed("the token has characters that a subprotocol cannot carry, such as = and /; use auth", true);
}

async function valueOf(value: unknown): Promise<unknown> {
  return typeof value === "function" ? await (value as () => unknown)() : value;
}

