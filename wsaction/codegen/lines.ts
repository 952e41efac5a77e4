// ------------------------------------------------------------------------------------------------------- the client

/** `waiting`: until the next try to connect. `closed`: for good. */
export type State = "connecting" | "open" | "waiting" | "closed";

type Listen = (type: string, listener: () => void) => void;
type Log = (message: string, cause: unknown) => void;

/** Every time is in seconds; null: without end, or never. */
export interface ClientOptions {
  /** A bearer token, offered as a sub-protocol; a function is asked for each connection. undefined: none. */
  readonly token?: string | (() => string | undefined | Promise<string | undefined>) | undefined;
  /** The data of `$auth`, sent before anything else; a function is asked for each connection, and again before it expires. */
  readonly auth?: unknown;
  /** What a call may take, and a stream until its first item. 60 unless said otherwise. */
  readonly timeout?: number | null | undefined;
  /** What connecting may take, `$auth` another time as long. 10 */
  readonly openTimeout?: number | undefined;
  /** Silence after which `$ping` is sent, to keep the connection; a dead one is found by as long without an answer. 25 */
  readonly heartbeat?: number | null | undefined;
  /** Whether a lost connection is made again. true */
  readonly reconnect?: boolean | undefined;
  /** The bound of the first wait before connecting again, which doubles each time. 0.5 */
  readonly firstWait?: number | undefined;
  /** The bound of the longest. 30 */
  readonly longestWait?: number | undefined;
  /** Characters of what came that wait for the consumer, for each stream, subscription and `events()`. 1,048,576 */
  readonly buffer?: number | undefined;
  /** Is called with each new state and what led to it. */
  readonly onState?: ((state: State, cause: Error | undefined) => void) | undefined;
  /** Is called with what there is nobody else to tell of. console.warn */
  readonly log?: Log | undefined;
  /** The class of sockets, where the platform has none (Node before 22): that of the npm package `ws`. */
  readonly WebSocket?: SocketClass | undefined;
}

/** Who is told of what happens to the line. */
interface Hearer {
  event(event: ServerEvent, size: number): void;
  linked(link: Link): void;
  cut(): void;
  ended(failure: ConnectionFailed | undefined): void;
}

const SAYS_NO: readonly number[] = [1008, 4401, 4403, 4404]; // close codes: connecting again as one is does not help
const STABLE = 10; // seconds after which a connection counts as one that went well
const PATIENCE = 10; // seconds that the answer to a ping is waited for at most
const MIN_REFRESH = 0.5; // seconds between two $auth
const MOST_WAITING = 1_000; // calls that wait for a connection
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/; // what a sub-protocol may hold

/** One connection at a time, made again when it is lost, until it is closed or the server says no. */
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
  #link: Link | undefined;
  #dialing: Link | undefined; // not open yet, or not introduced
  #isRunning = false;
  #refused = 0; // connections in a row that were closed by a no before they were stable
  #cause: Error | undefined; // why there is no connection
  #failure: ConnectionFailed | undefined;
  #wake: () => void = () => undefined;

  constructor(url: string, options: ClientOptions, hearer: Hearer) {
    this.#url = socketUrl(url);
    this.#options = options;
    this.#hearer = hearer;
    this.buffer = options.buffer ?? 1_048_576;
    this.timeout = options.timeout === undefined ? 60 : options.timeout;
    this.log = options.log ?? ((message, cause) => console.warn(`wsaction: ${message}`, cause));
    this.#backoff = this.newBackoff();
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

  /** Calls `go` with the connection, now or once there is one; returns what gives that up. */
  whenOpen(go: (link: Link) => void, fail: (error: Error) => void): () => void {
    const link = this.link;
    if (this.#failure !== undefined) fail(again(this.#failure));
    else if (link !== undefined) go(link);
    else if (this.#waiters.size >= MOST_WAITING) fail(new Overflow(`${MOST_WAITING} calls wait for a connection`));
    else {
      const waiter = { go, fail };
      this.#waiters.add(waiter);
      if (!this.#isRunning) void this.#run();
      return () => this.#waiters.delete(waiter);
    }
    return () => undefined;
  }

  close(): void {
    this.#end(undefined);
    for (const link of [this.#dialing, this.#link]) link?.close(1000, "closed by this client");
    this.#wake();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    const page = globalThis as { addEventListener?: Listen; removeEventListener?: Listen };
    page.addEventListener?.("online", this.#online);
    try {
      while (this.#failure === undefined) {
        this.#tell("connecting", this.#cause);
        const failure = await this.#live();
        if (this.#failure !== undefined) break;
        if (failure.isFinal || this.#options.reconnect === false) return this.#end(failure);
        this.#tell("waiting", failure);
        await this.#pause(this.#backoff.seconds());
      }
    } finally {
      page.removeEventListener?.("online", this.#online);
    }
  }

  readonly #online = (): void => this.#wake();

  #pause(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const stop = after(seconds, resolve);
      this.#wake = () => {
        stop();
        resolve();
      };
    });
  }

  /** A connection's whole life; says why it ended. */
  async #live(): Promise<ConnectionFailed> {
    let link: Link | undefined;
    try {
      link = await this.#dial();
      const expiresAt = this.#options.auth === undefined ? null : await this.#introduce(link);
      if (link.lost !== undefined) throw refusal(this.#url, link.lost);
      return await this.#serve(link, expiresAt);
    } catch (error) {
      link?.close(1000, "closed by this client");
      const failure = error instanceof ConnectionFailed ? error : noCredential(error);
      this.#cause = failure;
      return failure;
    }
  }

  async #serve(link: Link, expiresAt: number | null): Promise<ConnectionFailed> {
    const began = now();
    this.#dialing = undefined;
    this.#link = link;
    this.#hearer.linked(link);
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.go(link);
    this.#tell("open", undefined);
    const stops = [this.#beat(link), this.#refresh(link, expiresAt)];
    const lost = await link.done;
    for (const stop of stops) stop();
    this.#link = undefined;
    this.#cause = lost;
    if (this.#failure === undefined) this.#hearer.cut();
    if (now() - began >= STABLE) {
      this.#refused = 0;
      this.#backoff.reset();
    }
    const failure = refusal(this.#url, lost);
    if (!failure.isFinal) return failure;
    const canRenew = typeof this.#options.token === "function" || typeof this.#options.auth === "function";
    return ++this.#refused > 1 || !canRenew ? failure : new ConnectionFailed(failure.message, false, failure.code, lost);
  }

  async #dial(): Promise<Link> {
    const protocols = ["wsaction.v1"];
    const token = await current(this.#options.token);
    if (token !== undefined) protocols.push(`bearer.${checked(token)}`);
    const kind = this.#options.WebSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
    if (kind === undefined) throw new ConnectionFailed("there is no WebSocket here; pass one: new Client(url, { WebSocket })", true);
    let socket: Socket;
    try {
      socket = new kind(this.#url, protocols) as unknown as Socket;
    } catch (error) {
      throw new ConnectionFailed(`cannot connect to ${this.#url}: ${String(error)}`, true, undefined, error);
    }
    const link = new Link(socket, (event, size) => this.#hearer.event(event, size), this.buffer, this.log);
    if (this.#failure !== undefined) link.close(1000, "closed by this client");
    this.#dialing = link;
    const seconds = this.#options.openTimeout ?? 10;
    const stop = after(seconds, () => link.close(1006, `no answer in ${seconds} s`));
    await link.opened;
    stop();
    if (link.lost === undefined) return link;
    if (SAYS_NO.includes(link.lost.code)) throw refusal(this.#url, link.lost);
    throw new ConnectionFailed(`cannot connect to ${this.#url} (code ${link.lost.code} ${link.lost.reason})`.replace(" )", ")"));
  }

  /** Says who it is, before anything else is sent. */
  async #introduce(link: Link): Promise<number | null> {
    try {
      return await this.#authenticate(link);
    } catch (error) {
      if (error instanceof ActionError) {
        const isFinal = error.status < 500 && error.status !== 408 && error.status !== 429;
        throw new ConnectionFailed(`${this.#url} refused $auth: ${error.message}`, isFinal, undefined, error);
      }
      throw error instanceof ConnectionLost ? refusal(this.#url, error) : error;
    }
  }

  async #authenticate(link: Link): Promise<number | null> {
    const data = await current(this.#options.auth);
    const seconds = this.#options.openTimeout ?? 10;
    return new Promise((resolve, reject) => {
      let stop = (): void => undefined;
      const settle = (reply: Reply): void => {
        stop();
        const at = isObject(reply.data) ? reply.data["expires_at"] : null;
        if (reply.status >= 400) reject(actionError(reply));
        else resolve(typeof at === "number" ? at : null);
      };
      const lost = (error: ClientError): void => {
        stop();
        reject(error);
      };
      link.ask("$auth", "", { data }, { reply: settle, lost });
      stop = after(seconds, () => reject(new ConnectionFailed(`${this.#url} did not answer $auth in ${seconds} s`)));
    });
  }

  /** Authenticates again at half time, for as long as the server says that there is an end. */
  #refresh(link: Link, expiresAt: number | null): () => void {
    let stop = (): void => undefined;
    const wait = (until: number | null): void => {
      if (until === null || typeof this.#options.auth !== "function" || link.lost !== undefined) return;
      stop = after(Math.max((until - Date.now() / 1000) / 2, MIN_REFRESH), () => {
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

  /** Pings a server that is silent, and gives up one that stays so. */
  #beat(link: Link): () => void {
    const heartbeat = this.#options.heartbeat === undefined ? 25 : this.#options.heartbeat;
    if (heartbeat === null) return () => undefined;
    const patience = Math.min(heartbeat, PATIENCE);
    let stop = (): void => undefined;
    let pinged: number | null = null;
    const look = (): void => {
      if (link.lost !== undefined) return;
      if (pinged !== null && link.heardAt >= pinged) pinged = null;
      if (pinged !== null && now() - pinged >= patience) return link.close(1006, `no sign of the server for ${patience} s`);
      if (pinged === null && now() - link.heardAt >= heartbeat) {
        pinged = now();
        link.ping();
      }
      stop = after(pinged === null ? heartbeat - (now() - link.heardAt) : patience, look);
    };
    stop = after(heartbeat, look);
    return () => stop();
  }

  /** No connection any more: everybody who waits for something is told. */
  #end(failure: ConnectionFailed | undefined): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure ?? new ConnectionFailed("the client is closed");
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.fail(again(this.#failure));
    this.#hearer.ended(failure);
    this.#tell("closed", failure);
  }

  #tell(state: State, cause: Error | undefined): void {
    this.state = state;
    try {
      this.#options.onState?.(state, cause);
    } catch (error) {
      this.log(`onState(${JSON.stringify(state)}, ...) failed`, error);
    }
  }
}

/** An address as WebSockets take it: of "/ws/" in a page of https://example.com, wss://example.com/ws/. */
function socketUrl(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href;
  const whole = /^[a-z]+:/i.test(url) || here === undefined ? url : new URL(url, here).href;
  return whole.replace(/^http/i, "ws");
}

function refusal(url: string, lost: ConnectionLost): ConnectionFailed {
  const told = lost.reason ? `, ${JSON.stringify(lost.reason)}` : "";
  const message = `${url} closed the connection: code ${lost.code}${told}`;
  return new ConnectionFailed(message, SAYS_NO.includes(lost.code), lost.code, lost);
}

function noCredential(error: unknown): ConnectionFailed {
  return new ConnectionFailed(`no credential to connect with: ${String(error)}`, false, undefined, error);
}

function again(failure: ConnectionFailed): ConnectionFailed {
  return new ConnectionFailed(failure.message, failure.isFinal, failure.code, failure);
}

function checked(token: unknown): string {
  if (typeof token === "string" && TOKEN.test(token)) return token;
  throw new ConnectionFailed("the token has characters that a sub-protocol cannot carry, such as = and /; use auth", true);
}

async function current(value: unknown): Promise<unknown> {
  return typeof value === "function" ? await (value as () => unknown)() : value;
}

