// Written by `wsaction codegen typescript`: the client of Boards, connection /ws/. Do not edit.
/* eslint-disable */

// ---------------------------------------------------------------------------------------------------------- errors

/** Whatever this client raises of its own. */
export class ClientError extends Error {
  override name = "ClientError";

  constructor(message?: string, cause?: unknown) {
    super(message); // which takes a cause from ES2022 on
    if (cause !== undefined) Object.defineProperty(this, "cause", { value: cause, configurable: true, writable: true });
  }
}

/** There is no connection, and the client does not try any more. `code` is that of a close which says no. */
export class ConnectionFailed extends ClientError {
  override name = "ConnectionFailed";
  readonly isFinal: boolean;
  readonly code: number | undefined;

  constructor(message: string, isFinal = false, code?: number, cause?: unknown) {
    super(message, cause);
    this.isFinal = isFinal;
    this.code = code;
  }
}

/** The connection was lost before the final reply. The action may have been carried out or not: it is never sent again. */
export class ConnectionLost extends ClientError {
  override name = "ConnectionLost";
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason = "") {
    const told = reason ? `, ${JSON.stringify(reason)}` : "";
    super(`the connection was lost (code ${code}${told}); what was under way may have been carried out`);
    this.code = code;
    this.reason = reason;
  }
}

/** No reply in time; the server is told to cancel what was asked. `cause` says why there was no connection, if so. */
export class CallTimeout extends ClientError {
  override name = "CallTimeout";
  readonly seconds: number;

  constructor(what: string, seconds: number, cause?: unknown) {
    const why = cause instanceof Error ? `: ${cause.message}` : "";
    super(`${what}: no reply in ${seconds} s${why}`, cause);
    this.seconds = seconds;
  }
}

/** More waits than may: items of a stream for their consumer, or frames to be sent. */
export class Overflow extends ClientError {
  override name = "Overflow";
}

/** The server answered something else than what was asked for. */
export class UnexpectedReply extends ClientError {
  override name = "UnexpectedReply";
}

/** A route that cannot be: a capture that its pattern does not take. Nothing was sent. */
export class InvalidRoute extends ClientError {
  override name = "InvalidRoute";
}

/** One item of an error reply. */
export interface ErrorItem {
  readonly type: string;
  readonly msg: string;
  readonly loc?: ReadonlyArray<string | number>;
  readonly ctx?: { readonly [key: string]: unknown };
}

/** The server answered with an error. `type`, `msg` and `ctx` are those of the first of `errors`. */
export class ActionError extends ClientError {
  override name = "ActionError";
  readonly status: number;
  readonly errors: readonly ErrorItem[];
  readonly action: string;
  readonly route: string;
  readonly type: string;
  readonly msg: string;
  readonly ctx: { readonly [key: string]: unknown };

  constructor(status: number, errors: readonly ErrorItem[], action: string, route: string) {
    const told = errors.slice(0, 5).map((one) => `${one.type}: ${one.msg}${one.loc ? ` [${one.loc.join(".")}]` : ""}`);
    super(`${status} ${told.join("; ")} (${`${action} ${route}`.trim()})`);
    this.status = status;
    this.errors = errors;
    this.action = action;
    this.route = route;
    this.type = errors[0]?.type ?? "unknown";
    this.msg = errors[0]?.msg ?? "";
    this.ctx = errors[0]?.ctx ?? {};
  }
}

/** 400: the frame, its data or its parameters; `errors` has an item, with `loc`, for each fault. */
export class InvalidRequest extends ActionError {
  override name = "InvalidRequest";
}

/** 401: `$auth` was refused, or has to come first. */
export class NotAuthenticated extends ActionError {
  override name = "NotAuthenticated";
}

/** 403: a permission said no. */
export class PermissionDenied extends ActionError {
  override name = "PermissionDenied";
}

/** 404: no such object or page. */
export class NotFound extends ActionError {
  override name = "NotFound";
}

/** 404: no pattern of the server's matches the route. */
export class RouteNotFound extends NotFound {
  override name = "RouteNotFound";
}

/** 405: the route has no such action. */
export class ActionNotAllowed extends ActionError {
  override name = "ActionNotAllowed";
}

/** 408: it took the server too long, which cancelled it. */
export class ActionTimeout extends ActionError {
  override name = "ActionTimeout";
}

/** 409: with what is already there. */
export class Conflict extends ActionError {
  override name = "Conflict";
}

/** 429: too often. */
export class Throttled extends ActionError {
  override name = "Throttled";

  /** Seconds until the same may be asked again; undefined where the server does not say. */
  get retryAfter(): number | undefined {
    const seconds = this.ctx["retry_after"];
    return typeof seconds === "number" ? seconds : undefined;
  }
}

/** 499: cancelled, by another `$cancel` than the client's own. */
export class Cancelled extends ActionError {
  override name = "Cancelled";
}

/** 500: a bug of the server's. */
export class ServerError extends ActionError {
  override name = "ServerError";

  /** What finds it in the server's log. */
  get errorId(): string | undefined {
    const id = this.ctx["error_id"];
    return typeof id === "string" ? id : undefined;
  }
}

/** 503: busy, shutting down, or a part is away. Nothing was done: the same may be asked again later. */
export class Unavailable extends ActionError {
  override name = "Unavailable";
}

const BY_STATUS: { readonly [status: number]: typeof ActionError } = {
  400: InvalidRequest,
  401: NotAuthenticated,
  403: PermissionDenied,
  404: NotFound,
  405: ActionNotAllowed,
  408: ActionTimeout,
  409: Conflict,
  429: Throttled,
  499: Cancelled,
  500: ServerError,
  503: Unavailable,
};

function actionError(reply: Reply): ActionError {
  const { status, errors, action, route } = reply;
  const isRoute = status === 404 && errors[0]?.type === "route_not_found";
  const kind = isRoute ? RouteNotFound : (BY_STATUS[status] ?? ActionError);
  return new kind(status, errors, action, route);
}

// -------------------------------------------------------------------------------------------------------- messages

/** A place in a route's history: keep it, and pass it as `since` to be told what came after it. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** Something that the server said unasked. `offset`: its place in what the route keeps as history. */
export interface ServerEvent<Name extends string = string, Data = unknown> {
  readonly event: Name;
  readonly route: string;
  readonly data: Data;
  readonly offset?: number;
}

/**
 * Something was lost here: load again what the events are about; what follows is without a hole. `snapshot` is what to
 * load, where the subscription asked for snapshots. `position` is null where there is none.
 */
export interface Resync<Snapshot = undefined> {
  readonly event: "$resync";
  readonly route: string;
  readonly position: Position | null;
  readonly snapshot: Snapshot;
}

/** What stands behind the "?" of a route: of a list, its page, filters, search and order. Null and undefined are left out. */
export type Query<Name extends string = string> = {
  readonly [One in Name]?: QueryValue | readonly QueryValue[];
};
export type QueryValue = string | number | boolean | null | undefined;

interface Reply {
  readonly status: number;
  readonly data: unknown;
  readonly errors: readonly ErrorItem[];
  readonly action: string;
  readonly route: string;
  readonly requestId: unknown;
  readonly size: number;
}

type Frame = { readonly [key: string]: unknown };

/** Reads a message; null for what is neither a reply nor an event. */
function read(text: string): Reply | ServerEvent | null {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(body)) return null;
  const route = typeof body["route"] === "string" ? body["route"] : "";
  const { event, status, errors, offset } = body;
  if (typeof event === "string") {
    const told = { event, route, data: body["data"] };
    return typeof offset === "number" ? { ...told, offset } : told;
  }
  if (typeof status !== "number" || !Array.isArray(errors)) return null;
  const action = typeof body["action"] === "string" ? body["action"] : "";
  const data = body["data"] ?? null;
  return { status, data, errors: errors as ErrorItem[], action, route, requestId: body["request_id"], size: text.length };
}

function isObject(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasOwn(value: object, name: string): boolean {
  return Object.prototype.hasOwnProperty.call(value, name);
}

/** The position in a reply or notice; null where it has none. */
function positionIn(data: unknown): Position | null {
  if (!isObject(data)) return null;
  const { epoch, offset } = data;
  return typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : null;
}

// ---------------------------------------------------------------------------------------------------------- queues

/** Items that wait for their one consumer, with the end that follows them. Whoever puts looks at `size`. */
class Buffer<T> {
  size = 0;
  ended = false;
  #items: { readonly item: T; readonly size: number }[] = [];
  #error: Error | undefined;
  #waiter: { resolve(result: IteratorResult<T, undefined>): void; reject(error: Error): void } | undefined;

  get length(): number {
    return this.#items.length;
  }

  get last(): T | undefined {
    return this.#items[this.#items.length - 1]?.item;
  }

  put(item: T, size: number): void {
    if (this.ended) return;
    const waiter = this.#waiter;
    if (waiter !== undefined) {
      this.#waiter = undefined;
      waiter.resolve({ value: item, done: false });
      return;
    }
    this.#items.push({ item, size });
    this.size += size;
  }

  /** Nothing more comes; what waits is still handed out, and then the error, each time it is asked. */
  end(error?: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.#error = error;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (error === undefined) waiter?.resolve({ value: undefined, done: true });
    else waiter?.reject(error);
  }

  clear(): void {
    this.#items = [];
    this.size = 0;
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const waiting = this.#items.shift();
    if (waiting !== undefined) {
      this.size -= waiting.size;
      return Promise.resolve({ value: waiting.item, done: false });
    }
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.ended) return Promise.resolve({ value: undefined, done: true });
    if (this.#waiter !== undefined) {
      return Promise.reject(new Error("somebody iterates over this already; it has one consumer"));
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }
}

/** Waits of a random length, from none to a bound that doubles each time ("full jitter"). */
class Backoff {
  readonly #first: number;
  readonly #most: number;
  #next: number;

  constructor(first: number, most: number) {
    this.#first = this.#next = first;
    this.#most = most;
  }

  seconds(): number {
    const bound = this.#next;
    this.#next = Math.min(bound * 2, this.#most);
    return Math.random() * bound;
  }

  reset(): void {
    this.#next = this.#first;
  }
}

/** A timer, in seconds; returns what stops it. Longer than a timer can be is until then. */
function after(seconds: number, then: () => void): () => void {
  const timer = setTimeout(then, Math.min(seconds * 1000, 2_147_483_647));
  return () => clearTimeout(timer);
}

function now(): number {
  return performance.now() / 1000;
}

// ---------------------------------------------------------------------------------------------------------- pacing

/** Who is told of the replies to one request. */
interface Asker {
  reply(reply: Reply): void;
  lost(error: Error): void;
}

interface Settling {
  resolve(): void;
  reject(error: Error): void;
}

const RESERVED = ["action", "route", "request_id"];
const IN_FLIGHT = 128; // requests under way at once unless said otherwise; half of what a server keeps by default
const MOST_SIZE = 524_288; // characters under way at once
const MOST_WAITING = 10_000; // requests that wait for their turn, or for a connection
const BUSY_WAITS = [0.01, 1] as const; // seconds before a request that was refused as busy is sent again
const QUEUE_BOUNDS: readonly unknown[] = ["max_queued_actions", "max_queued_bytes"]; // past them the server runs nothing

/** One request, until it is answered. Without an asker its success is silent; `sent` hears once it is on its way. */
class OutgoingRequest {
  readonly action: string;
  readonly route: string;
  readonly text: string;
  asker: Asker | undefined;
  sent: Settling | undefined;
  number: number | undefined; // its turn; undefined: it does not wait for one
  link: Link | undefined; // the connection that it is under way on
  id = ""; // on that connection
  isCounted = false;
  isWithdrawn = false;

  constructor(action: string, route: string, keys: object, asker: Asker | undefined, sent?: Settling) {
    const taken = RESERVED.find((name) => hasOwn(keys, name));
    if (taken !== undefined) throw new TypeError(`${taken} is the protocol's own key, not a parameter of ${action}`);
    this.action = action;
    this.route = route;
    this.text = JSON.stringify({ action, ...(route === "" ? {} : { route }), ...keys });
    this.asker = asker;
    this.sent = sent;
  }

  withId(): string {
    return `${this.text.slice(0, -1)},"request_id":${JSON.stringify(this.id)}}`;
  }
}

/** Whether the server refused a request before anything ran: for lack of room, or since it is being stopped. */
function wasNotRun(reply: Reply): boolean {
  const first = reply.errors[0];
  if (reply.status !== 503 || first === undefined) return false;
  return first.type === "shutting_down" || (first.type === "busy" && QUEUE_BOUNDS.includes(first.ctx?.["limit"]));
}

/**
 * Requests in the order in which they were made, each sent once there is a connection with room for it, so that a burst
 * waits here and is not refused by the server. What was refused for lack of room has not run: it is sent again, in turn.
 */
class Pacer {
  most: number;
  mostSize = MOST_SIZE;
  readonly #log: Log;
  readonly #backoff = new Backoff(...BUSY_WAITS);
  readonly #flushes = new Set<Settling>();
  #link: Link | undefined;
  #queue: OutgoingRequest[] = []; // by number; withdrawn ones too
  #waiting = 0;
  #count = 0;
  #sends = 0; // that are not known to be done
  #resume: (() => void) | undefined; // while a refused request waits

  constructor(most: number, log: Log) {
    if (!(most >= 1)) throw new RangeError(`maxInFlight: expected at least 1, got ${most}`);
    this.most = most;
    this.#log = log;
  }

  /** Whether somebody waits until sends are done. */
  get wantsToKnow(): boolean {
    return this.#waiting > 0 || this.#flushes.size > 0;
  }

  /** Sends a request in its turn. */
  submit(request: OutgoingRequest): void {
    if (this.#waiting >= MOST_WAITING) {
      throw new Overflow(`${MOST_WAITING} requests wait to be sent; await some of them before asking more`);
    }
    request.number = this.#count++;
    if (request.asker === undefined) this.#sends++;
    this.#wait(request);
    this.pump();
  }

  /** Nobody waits for its reply any more. */
  withdraw(request: OutgoingRequest): void {
    if (request.link !== undefined) request.link.cancel(request);
    else if (request.number !== undefined && !request.isWithdrawn) {
      request.isWithdrawn = true;
      this.#waiting--;
      if (request.asker === undefined) this.settled();
      if (this.#queue.length > 2 * this.#waiting + 64) this.#queue = this.#queue.filter((one) => !one.isWithdrawn);
    }
  }

  /** Calls `resolve` once every send is known to be done; returns what gives that up. */
  flush(done: Settling): () => void {
    if (this.#sends === 0) done.resolve();
    else {
      this.#flushes.add(done);
      this.#link?.probe();
    }
    return () => this.#flushes.delete(done);
  }

  #wait(request: OutgoingRequest): void {
    request.link = undefined;
    this.#waiting++;
    let at = this.#queue.length;
    while (at > 0 && (this.#queue[at - 1]?.number ?? 0) > (request.number ?? 0)) at--;
    this.#queue.splice(at, 0, request);
  }

  /** Sends what may be sent now. */
  pump(): void {
    for (let request = this.#queue[0]; request !== undefined && this.#resume === undefined; request = this.#queue[0]) {
      const link = this.#link;
      if (link === undefined) return;
      if (!request.isWithdrawn && !link.hasRoom(request.text.length)) return link.probe();
      this.#queue.shift();
      if (request.isWithdrawn) continue;
      this.#waiting--;
      link.put(request);
    }
  }

  attach(link: Link): void {
    this.#link = link;
    this.#backoff.reset();
    this.pump();
  }

  detach(): void {
    this.#link = undefined;
  }

  /** There will be no connection any more. */
  end(failure: ConnectionFailed): void {
    this.#link = undefined;
    this.#resume?.();
    const queue = this.#queue.filter((one) => !one.isWithdrawn);
    this.#queue = [];
    this.#waiting = this.#sends = 0;
    for (const request of queue) {
      request.isWithdrawn = true;
      if (request.asker !== undefined) request.asker.lost(again(failure));
      else if (request.sent !== undefined) request.sent.reject(again(failure));
      else this.#log(`${request.action} ${request.route}`.trim() + " was refused as busy and could not be sent again", failure);
    }
    for (const flush of [...this.#flushes]) flush.reject(again(failure));
  }

  /** The server had no room for a request: it is sent again, in its turn, after a wait. */
  refused(request: OutgoingRequest, reply: Reply): void {
    const { limit, value } = reply.errors[0]?.ctx ?? {};
    if (typeof value === "number" && value >= 1) {
      if (limit === "max_queued_actions") this.most = Math.min(this.most, value);
      else this.mostSize = Math.min(this.mostSize, value);
    }
    this.#wait(request);
    if (reply.errors[0]?.type === "shutting_down") this.#link = undefined; // it is about to be closed, and would lose what is under way
    if (this.#link === undefined || this.#resume !== undefined) return;
    const stop = after(this.#backoff.seconds(), () => this.#resume?.());
    this.#resume = () => {
      stop();
      this.#resume = undefined;
      this.pump();
    };
  }

  /** The server had room for one. */
  answered(): void {
    this.#backoff.reset();
  }

  /** A send is done, or was refused by an error. */
  settled(): void {
    if (--this.#sends === 0) for (const flush of [...this.#flushes]) flush.resolve();
  }

  /** The connection was lost with sends under way, of which nobody knows whether they were carried out. */
  lost(count: number, error: ConnectionLost): void {
    if (count === 0) return;
    this.#log(`${count} sent without waiting for a reply`, error);
    this.#sends -= count;
    for (const flush of [...this.#flushes]) flush.reject(new ConnectionLost(error.code, error.reason));
  }
}

// ------------------------------------------------------------------------------------------------------ connections

/** What a client needs of a WebSocket class: the platform's own, or that of the npm package `ws`. */
export type SocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

/** The same, with what every one of them has. */
interface Socket {
  readonly readyState: number;
  addEventListener(type: string, listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

const OPEN = 1;
const HARD = 16; // times `buffer` that may wait where nothing can be made to wait
const FIRST_PROBE = 0.001; // seconds between two questions whether a send is done, if somebody waits
const LONGEST_PROBE = 0.25;
const IDLE_PROBE = 1; // seconds until the question if nobody does

/**
 * One connection, from its handshake until it is lost.
 *
 * A send that succeeds is silent. Its `request_id` tells when it is done: as long as it is under way, the server refuses
 * another frame with that id (409), so a `$ping` with it asks without changing anything.
 */
class Link {
  readonly opened: Promise<void>;
  readonly done: Promise<ConnectionLost>;
  lost: ConnectionLost | undefined;
  heardAt = now();
  isLetIn = false; // whether the server has answered anything but 401
  readonly #socket: Socket;
  readonly #onEvent: (event: ServerEvent, size: number) => void;
  readonly #log: Log;
  readonly #pacer: Pacer;
  readonly #requests = new Map<string, OutgoingRequest>(); // by their ids, until the final reply
  readonly #sends = new Map<string, OutgoingRequest[]>(); // not known to be done, by their routes
  readonly #probes = new Set<string>(); // ids that the server was asked about
  readonly #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
  #number = 0;
  #count = 0; // of requests that may wait in the server's queue
  #size = 0;
  #silent = 0; // sends that are not known to be done
  #probeWait = FIRST_PROBE;
  #stopProbing: (() => void) | undefined;
  #stopIdle: (() => void) | undefined;
  #finish: (lost: ConnectionLost) => void = () => undefined;

  constructor(socket: Socket, onEvent: (event: ServerEvent, size: number) => void, pacer: Pacer, log: Log) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    this.#pacer = pacer;
    this.#log = log;
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    let isOpen = false;
    this.opened = new Promise((resolve) => {
      socket.addEventListener("open", () => {
        isOpen = true;
        resolve();
      });
      void this.done.then(() => resolve());
    });
    socket.addEventListener("message", (event) => this.#take(event.data));
    socket.addEventListener("error", () => {
      if (!isOpen) this.fail(new ConnectionLost(1006)); // a close follows, though in Node 20 not always
    });
    socket.addEventListener("close", (event) => this.fail(new ConnectionLost(event.code ?? 1006, event.reason ?? "")));
  }

  /** Tells all who wait for replies that none will come. The first time counts. */
  fail(lost: ConnectionLost): void {
    if (this.lost !== undefined) return;
    this.lost = lost;
    this.#stopProbing?.();
    this.#stopIdle?.();
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    this.#pacer.lost([...this.#sends.values()].flat().filter((one) => one.number !== undefined).length, lost);
    this.#sends.clear();
    for (const request of requests) request.asker?.lost(new ConnectionLost(lost.code, lost.reason));
    this.#finish(lost);
  }

  /** Closes it, and does not wait for the server's word. */
  close(code: number, reason: string): void {
    this.#socket.close(1000);
    this.fail(new ConnectionLost(code, reason));
  }

  /** Sends a request out of turn. Throws where it cannot be sent. */
  ask(action: string, route: string, keys: object, asker: Asker): OutgoingRequest {
    if (this.lost !== undefined) throw new ConnectionLost(this.lost.code, this.lost.reason);
    const request = new OutgoingRequest(action, route, keys, asker);
    this.put(request);
    return request;
  }

  /** Whether one more request may be under way. One that is too large for any window goes alone. */
  hasRoom(size: number): boolean {
    if (this.lost !== undefined) return false;
    return this.#count === 0 || (this.#count < this.#pacer.most && this.#size + size <= this.#pacer.mostSize);
  }

  put(request: OutgoingRequest): void {
    request.link = this;
    request.id = `${this.#prefix}${++this.#number}`;
    this.#requests.set(request.id, request);
    this.#count++;
    this.#size += request.text.length;
    request.isCounted = true;
    this.#send(request.withId());
    if (request.asker !== undefined) return;
    this.#awaitSilence(request);
    request.sent?.resolve();
    request.sent = undefined;
  }

  /** Has a request cancelled whose replies nobody waits for any more, if it is still under way. */
  cancel(request: OutgoingRequest): void {
    if (this.#requests.get(request.id) !== request || request.asker === undefined) return;
    this.#send(JSON.stringify({ action: "$cancel", data: request.id }));
    request.asker = request.number = undefined;
    if (request.isCounted) this.#awaitSilence(request); // its final reply may never come: it may succeed in silence
  }

  ping(): void {
    this.#send('{"action":"$ping"}');
  }

  #send(text: string): void {
    if (this.#socket.readyState === OPEN) this.#socket.send(text);
  }

  #take(text: unknown): void {
    this.heardAt = now();
    if (this.lost !== undefined) return;
    const message = typeof text === "string" ? read(text) : null;
    if (message === null) this.#log("the server sent what is neither a reply nor an event", text);
    else if ("event" in message) this.#tell(message, String(text).length);
    else {
      this.isLetIn ||= message.status !== 401;
      this.#answer(message);
    }
  }

  #tell(event: ServerEvent, size: number): void {
    this.isLetIn = true;
    this.#onEvent(event, size);
  }

  #answer(reply: Reply): void {
    const { requestId, status, action, route, data, size } = reply;
    if (typeof requestId === "string" && requestId.startsWith(this.#prefix)) {
      const request = this.#requests.get(requestId);
      if (action === "$ping" && this.#probes.has(requestId)) this.#probed(requestId, status);
      else if (request !== undefined) this.#reply(request, reply);
    } else if (status < 400 && !action.startsWith("$")) {
      this.#tell({ event: action, route, data }, size); // broadcast to others than who asked
    }
  }

  #reply(request: OutgoingRequest, reply: Reply): void {
    if (reply.status !== 206) {
      this.#requests.delete(request.id);
      if (request.asker === undefined) this.#forgetSend(request);
    }
    this.#uncount(request);
    if (request.number !== undefined && wasNotRun(reply)) return this.#pacer.refused(request, reply);
    this.#pacer.answered();
    if (request.asker !== undefined) request.asker.reply(reply);
    else if (request.number !== undefined) {
      if (reply.status >= 400) this.#log("nobody waits for this reply", actionError(reply));
      this.#pacer.settled();
    }
    this.#pacer.pump();
  }

  #uncount(request: OutgoingRequest): void {
    if (!request.isCounted) return;
    request.isCounted = false;
    this.#count--;
    this.#size -= request.text.length;
  }

  // silent success
  #awaitSilence(request: OutgoingRequest): void {
    const sends = this.#sends.get(request.route);
    if (sends === undefined) this.#sends.set(request.route, [request]);
    else sends.push(request);
    this.#silent++;
    if (this.#pacer.wantsToKnow || this.#silent * 2 >= this.#pacer.most) this.probe();
    else this.#probeLater();
  }

  #probeLater(): void {
    this.#stopIdle ??= after(IDLE_PROBE, () => {
      this.#stopIdle = undefined;
      this.probe();
    });
  }

  #forgetSend(request: OutgoingRequest): void {
    const sends = this.#sends.get(request.route) ?? [];
    const at = sends.indexOf(request);
    if (at < 0) return;
    sends.splice(at, 1);
    this.#silent--;
    if (sends.length === 0) this.#sends.delete(request.route);
  }

  /** Asks the server which sends are done, of each route that in the middle: its frames run in order. */
  probe(): void {
    if (this.#probes.size > 0 || this.#stopProbing !== undefined || this.lost !== undefined) return;
    for (const sends of this.#sends.values()) {
      const request = sends[(sends.length - 1) >> 1];
      if (request === undefined) continue;
      this.#probes.add(request.id);
      this.#send(JSON.stringify({ action: "$ping", request_id: request.id }));
    }
  }

  #probed(id: string, status: number): void {
    this.#probes.delete(id);
    const request = this.#requests.get(id);
    if (request !== undefined && status < 400) {
      this.#probeWait = FIRST_PROBE;
      this.#settleUntil(request);
    }
    if (this.#probes.size > 0) return;
    this.#pacer.pump();
    if (this.#stopProbing !== undefined) return;
    if (!this.#pacer.wantsToKnow) {
      if (this.#silent > 0) this.#probeLater();
      return;
    }
    this.#stopProbing = after(this.#probeWait, () => {
      this.#stopProbing = undefined;
      this.probe();
    });
    this.#probeWait = Math.min(this.#probeWait * 2, LONGEST_PROBE);
  }

  /** Sends of a route are done up to this one. */
  #settleUntil(last: OutgoingRequest): void {
    const sends = this.#sends.get(last.route) ?? [];
    for (const request of sends.splice(0, sends.indexOf(last) + 1)) {
      this.#silent--;
      this.#requests.delete(request.id);
      this.#uncount(request);
      if (request.number !== undefined) this.#pacer.settled();
    }
    if (sends.length === 0) this.#sends.delete(last.route);
  }
}

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
  /** Requests under way at once; more wait for their turn. A server that has room for fewer says so. 128 */
  readonly maxInFlight?: number | undefined;
  /** Is called with each new state and what led to it. */
  readonly onState?: OnState | undefined;
  /** Is called with what there is nobody else to tell of. console.warn */
  readonly log?: Log | undefined;
  /** The class of sockets, where the platform has none (Node before 22): that of the npm package `ws`. */
  readonly WebSocket?: SocketClass | undefined;
}

type OnState = (state: State, cause: Error | undefined) => void;

/** Why a connection ended, and what that means for the next one. */
interface LinkEnding {
  readonly failure: ConnectionFailed;
  readonly isExpired: boolean;
  readonly isAtOnce: boolean;
}

/** Who is told of what happens to the line. */
interface Hearer {
  event(event: ServerEvent, size: number): void;
  hold(most: number): void;
  release(): void;
  linked(link: Link): void;
  cut(): void;
  ended(failure: ConnectionFailed | undefined): void;
}

const POLICY = 1008; // a close code that refuses, as 44xx do: they say what HTTP 4xx would
const NOT_AUTHENTICATED = 4401; // once the server has let the client in, its credential has expired
const PASSING_STATUSES: readonly number[] = [408, 425, 429]; // and all from 500 on: they may be answered otherwise later
const AT_ONCE = 1; // seconds that a credential has to last to be renewed without a wait when it expires
const STABLE = 10; // seconds after which a connection counts as one that went well
const PATIENCE = 10; // seconds that the answer to a ping is waited for at most
const MIN_REFRESH = 0.5; // seconds between two $auth where the time is up already, as far as we know
const MAX_REFRESH = 30;
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
  readonly #watchers = new Set<{ readonly tell: OnState }>();
  readonly #pacer: Pacer;
  #link: Link | undefined;
  #dialing: Link | undefined; // not open yet, or not introduced
  #isRunning = false;
  #refused = 0; // refusals in a row: between them no connection was let in that ended otherwise, or was stable
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
    this.#pacer = new Pacer(options.maxInFlight ?? IN_FLIGHT, this.log);
    if (options.onState !== undefined) this.watch(options.onState);
  }

  /** Tells it of each new state; returns what ends that. */
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

  /** Calls `go` with the connection, now or once there is one; returns what gives that up. */
  whenOpen(go: (link: Link) => void, fail: (error: Error) => void): () => void {
    const link = this.link;
    if (this.#failure !== undefined) fail(again(this.#failure));
    else if (link !== undefined) go(link);
    else if (this.#waiters.size >= MOST_WAITING) fail(new Overflow(`${MOST_WAITING} wait for a connection`));
    else {
      const waiter = { go, fail };
      this.#waiters.add(waiter);
      this.#start();
      return () => this.#waiters.delete(waiter);
    }
    return () => undefined;
  }

  /** Sends a request in its turn; returns what gives it up. */
  submit(request: OutgoingRequest): () => void {
    if (this.#failure !== undefined) throw again(this.#failure);
    this.#pacer.submit(request);
    this.#start();
    return () => this.#pacer.withdraw(request);
  }

  /** Calls `resolve` once every send is known to be done; returns what gives that up. */
  flush(done: Settling): () => void {
    if (this.#failure !== undefined) throw again(this.#failure);
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
    const page = globalThis as { addEventListener?: Listen; removeEventListener?: Listen };
    page.addEventListener?.("online", this.#online);
    try {
      while (this.#failure === undefined) {
        this.#tell("connecting", this.#cause);
        const { failure, isExpired, isAtOnce } = await this.#live();
        if (this.#failure !== undefined) break;
        if (isExpired) this.#refused = 0;
        if (this.#options.reconnect === false || (!isExpired && this.#isFinal(failure))) return this.#end(failure);
        if (isAtOnce) continue;
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

  get #canRenew(): boolean {
    return typeof this.#options.token === "function" || typeof this.#options.auth === "function";
  }

  /** Whether it is not to be tried again. A function for the credential has one more try: it may give another. */
  #isFinal(failure: ConnectionFailed): boolean {
    return failure.isFinal && (++this.#refused > 1 || !this.#canRenew);
  }

  /** A connection's whole life; says why it ended. */
  async #live(): Promise<LinkEnding> {
    let link: Link | undefined;
    try {
      link = await this.#dial();
      const expiresAt = await this.#introduce(link);
      if (link.lost !== undefined) throw refusal(this.#url, link.lost);
      return await this.#serve(link, expiresAt);
    } catch (error) {
      link?.close(1000, "closed by this client");
      const failure = error instanceof ConnectionFailed ? error : noCredential(error);
      this.#cause = failure;
      return { failure, isExpired: false, isAtOnce: false };
    }
  }

  /** `isExpired`: the server closed because the credential has expired, which is no refusal of the next one. */
  async #serve(link: Link, expiresAt: number | null): Promise<LinkEnding> {
    const began = now();
    this.#dialing = undefined;
    this.#link = link;
    this.#hearer.linked(link);
    this.#pacer.attach(link);
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.go(link);
    this.#tell("open", undefined);
    const stops = [this.#beat(link), this.#refresh(link, expiresAt), after(0, () => this.#hearer.release())];
    const lost = await link.done;
    for (const stop of stops) stop();
    this.#link = undefined;
    this.#pacer.detach();
    this.#cause = lost;
    if (this.#failure === undefined) this.#hearer.cut();
    const lasted = now() - began;
    if (lasted >= STABLE) this.#backoff.reset();
    if (lasted >= STABLE || (link.isLetIn && !refuses(lost.code))) this.#refused = 0;
    const isExpired = lost.code === NOT_AUTHENTICATED && link.isLetIn && this.#canRenew;
    return { failure: refusal(this.#url, lost), isExpired, isAtOnce: isExpired && lasted >= AT_ONCE };
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
    this.#hearer.hold(this.buffer); // until whoever waits for the connection can listen
    const link = new Link(socket, (event, size) => this.#hearer.event(event, size), this.#pacer, this.log);
    if (this.#failure !== undefined) link.close(1000, "closed by this client");
    this.#dialing = link;
    const seconds = this.#options.openTimeout ?? 10;
    const stop = after(seconds, () => link.close(1006, `no answer in ${seconds} s`));
    await link.opened;
    stop();
    if (link.lost === undefined) return link;
    if (refuses(link.lost.code)) throw refusal(this.#url, link.lost);
    throw new ConnectionFailed(`cannot connect to ${this.#url} (code ${link.lost.code} ${link.lost.reason})`.replace(" )", ")"));
  }

  /**
   * Says who it is, before anything else is sent, or else `$ping`. So a server that accepts a handshake only to refuse it
   * by a close code is found out before anything is asked.
   */
  async #introduce(link: Link): Promise<number | null> {
    try {
      if (this.#options.auth !== undefined) return await this.#authenticate(link);
      await this.#first(link, "$ping", {}).catch((error: unknown) => {
        if (!(error instanceof ActionError)) throw error; // 401: it waits for an $auth, which the caller may send
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
    const data = await current(this.#options.auth);
    const told = await this.#first(link, "$auth", { data });
    const at = isObject(told) ? told["expires_at"] : null;
    return typeof at === "number" ? at : null;
  }

  /** Asks what comes before anything else. */
  #first(link: Link, action: string, keys: object): Promise<unknown> {
    const seconds = this.#options.openTimeout ?? 10;
    return new Promise((resolve, reject) => {
      let stop = (): void => undefined;
      const reply = (told: Reply): void => {
        stop();
        if (told.status >= 400) reject(actionError(told));
        else resolve(told.data);
      };
      const lost = (error: Error): void => {
        stop();
        reject(error);
      };
      link.ask(action, "", keys, { reply, lost });
      stop = after(seconds, () => reject(new ConnectionFailed(`${this.#url} did not answer ${action} in ${seconds} s`)));
    });
  }

  /**
   * Authenticates again at half time, for as long as the server says that there is an end. Where that is up and the
   * server has not closed, its clock is behind ours, or it cannot be asked: it is asked less and less often.
   */
  #refresh(link: Link, expiresAt: number | null): () => void {
    let stop = (): void => undefined;
    let least = MIN_REFRESH;
    const wait = (until: number | null): void => {
      if (until === null || typeof this.#options.auth !== "function" || link.lost !== undefined) return;
      const seconds = Math.max((until - Date.now() / 1000) / 2, least);
      least = seconds > least ? MIN_REFRESH : Math.min(least * 2, MAX_REFRESH);
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
    this.#pacer.end(this.#failure);
    this.#hearer.ended(failure);
    this.#tell("closed", failure);
  }

  #tell(state: State, cause: Error | undefined): void {
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

/** An address as WebSockets take it: of "/ws/" in a page of https://example.com, wss://example.com/ws/. */
function socketUrl(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href;
  const whole = /^[a-z]+:/i.test(url) || here === undefined ? url : new URL(url, here).href;
  return whole.replace(/^http/i, "ws");
}

/** Whether an HTTP status, or that of a reply to `$auth`, says that asking again as it is will not help. */
function statusRefuses(status: number): boolean {
  return status < 500 && !PASSING_STATUSES.includes(status);
}

/** The same of a close code. */
function refuses(code: number): boolean {
  return code === POLICY || (code >= 4400 && code < 4500 && statusRefuses(code - 4000));
}

function refusal(url: string, lost: ConnectionLost): ConnectionFailed {
  const told = lost.reason ? `, ${JSON.stringify(lost.reason)}` : "";
  const message = `${url} closed the connection: code ${lost.code}${told}`;
  return new ConnectionFailed(message, refuses(lost.code), lost.code, lost);
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

// ---------------------------------------------------------------------------------------- streams and subscriptions

/**
 * The items of a stream, as they come. Nothing is asked before the first `next()`; leaving the loop has the server cancel
 * it. It throws what a call throws, and `Overflow` where over 16 times `buffer` characters wait for their consumer.
 */
export class Stream<Item> implements AsyncIterable<Item>, AsyncIterator<Item, undefined> {
  readonly #begin: (stream: StreamAsker) => () => void;
  readonly #most: number;
  readonly #items = new Buffer<unknown>();
  #stop: (() => void) | undefined;
  #hasItems = false;

  /** @internal */
  constructor(begin: (stream: StreamAsker) => () => void, buffer: number) {
    this.#begin = begin;
    this.#most = buffer * HARD;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Item, undefined>> {
    if (this.#stop === undefined && !this.#items.ended) {
      this.#stop = (): void => undefined;
      this.#stop = this.#begin({
        reply: (reply) => this.#reply(reply),
        lost: (error) => this.#end(error),
        fail: (error) => this.#end(error),
      });
      if (this.#items.ended) this.#stop(); // it failed before it had begun
    }
    return this.#items.next() as Promise<IteratorResult<Item, undefined>>;
  }

  /** Ends it, and has the server cancel what is still under way. */
  return(): Promise<IteratorResult<Item, undefined>> {
    this.#items.clear();
    this.#end();
    return Promise.resolve({ value: undefined, done: true });
  }

  #reply(reply: Reply): void {
    if (reply.status === 206) {
      this.#hasItems = true;
      this.#items.put(reply.data, reply.size);
      if (this.#items.size > this.#most) {
        this.#end(new Overflow(`over ${this.#most} characters of this stream wait for their consumer`));
      }
    } else if (reply.status >= 400) this.#end(actionError(reply));
    else {
      if (!this.#hasItems && reply.data !== null) this.#items.put(reply.data, reply.size); // no stream: its data is the item
      this.#end();
    }
  }

  #end(error?: Error): void {
    this.#items.end(error);
    this.#stop?.();
  }
}

interface StreamAsker extends Asker {
  fail(error: Error): void;
}

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
  joined(told: Position, recovered: boolean | null, snapshot: unknown, size: number): void {
    const since = this.received;
    const isLost = this.isLost || (since !== null && recovered !== true);
    this.isLost = this.isBehind = false;
    // the position in the reply is the one before what follows
    const position = since === null || isLost ? told : { epoch: told.epoch, offset: Math.max(told.offset, since.offset) };
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
  told(event: ServerEvent, size: number): void {
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
  readonly concerned: readonly Follower[];
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
    const reply = (told: Reply): void => {
      if (told.status >= 500) this.#line.log(`unsubscribe ${asked}`, actionError(told)); // refused: there is none any more
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
    this.cut(); // by its own name for it, which ends this one at the server too
    this.look();
  }

  // asking
  /** Asks for those that wait, one after the other, if nothing is being asked. */
  look(link: Link | undefined = this.#line.link): void {
    for (const one of [...this.#live]) {
      if (one.isLost || (one.isBehind && one.items.length === 0)) this.#wait(one);
    }
    if (link === undefined || this.#asking !== undefined || this.#isPausing) return;
    for (const first of [...this.#waiting]) {
      if (!this.#joinsAtOnce(first)) return this.#ask(link, first);
    }
  }

  #wait(follower: Follower): void {
    this.#live.delete(follower);
    this.#waiting.add(follower);
  }

  /** One that wants no more than what comes from now on needs no word of the server's, once there is one live. */
  #joinsAtOnce(follower: Follower): boolean {
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
    const concerned = [...this.#waiting].filter((one) => {
      if (one === first) return true;
      if (from !== null) return one.since?.epoch === from.epoch; // from the earliest of them, once for all
      return one.since === null && (!one.wantsSnapshot || (first.wantsSnapshot && one.askedRoute === first.askedRoute));
    });
    const withSnapshot = concerned.find((one) => one.wantsSnapshot);
    const asked = (withSnapshot ?? first).askedRoute;
    const offset = Math.min(...concerned.map((one) => one.since?.offset ?? 0));
    const keys = { ...(withSnapshot === undefined ? {} : { snapshot: true }), ...(from === null ? {} : { since: { epoch: from.epoch, offset } }) };
    const asking: Subscribing = { concerned, asked, wantsSnapshot: withSnapshot !== undefined };
    this.#asking = asking;
    this.#askedRoute = asked;
    this.#stop = after(Math.min(...concerned.map((one) => one.timeout)), () => {
      this.#asking = undefined; // no answer in time: it is asked again
      this.look();
    });
    link.ask("subscribe", asked, keys, { reply: (reply) => this.#answered(reply, asking), lost: () => undefined });
  }

  /** The connection was lost. */
  cut(): void {
    this.#settle();
    this.#asking = this.#askedRoute = this.#leaving = undefined;
    for (const one of [...this.#live]) this.#wait(one);
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
      if (this.#leaving !== undefined) this.#named(reply); // it was left
      return; // or has been asked again since
    }
    this.#settle();
    this.#asking = undefined;
    if (reply.status >= 400) return this.#refused(reply, asking);
    this.#backoff.reset();
    const position = positionIn(reply.data);
    if (position === null) {
      for (const one of asking.concerned) {
        one.end(new UnexpectedReply(`subscribe ${asking.asked}: no position in the reply`));
        this.leave(one);
      }
      return;
    }
    this.#named(reply).#joined(position, reply, asking);
  }

  /** The route under whose name its events come, as the server has said. */
  #named(reply: Reply): SharedRoute {
    const route = (reply.data as { readonly route?: unknown } | null)?.route;
    return typeof route === "string" && route !== this.name ? this.#registry.rename(this, route) : this;
  }

  #joined(position: Position, reply: Reply, asking: Subscribing): void {
    const { recovered, snapshot } = reply.data as { readonly recovered?: unknown; readonly snapshot?: unknown };
    for (const one of [...this.#live]) {
      if (asking.concerned.includes(one) || one.isBehind) continue;
      const isAhead = one.received === null || one.received.epoch !== position.epoch || one.received.offset < position.offset;
      if (isAhead) this.#wait(one); // what is between its position and this one may not come any more
    }
    for (const one of asking.concerned) {
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
    for (const one of asking.concerned) {
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
  told(event: ServerEvent, size: number): void {
    if (event.event === "$unsubscribed") {
      if (this.#live.size === 0 && this.#asking !== undefined) return; // of what was before
      this.#asking = undefined;
      this.#settle();
      const lost = { type: "permission_denied", msg: "The right to this was lost after it was subscribed to." };
      for (const one of [...this.#live, ...this.#waiting]) this.#drop(one, new PermissionDenied(403, [lost], "subscribe", one.askedRoute));
    } else if (event.event === "$position" || event.event === "$resync") this.#notice(event);
    else for (const one of [...this.#live]) one.told(event, size);
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

/** Hands each event to the subscriptions of its route or, where there are none, to all who listen. */
class Audience implements Hearer, Registry {
  line: Line | undefined; // that it hears; set by whoever makes both
  readonly #routes = new Map<string, SharedRoute>();
  readonly #listeners = new Set<Events>();
  #wasCut = false;
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
    if (route !== undefined) return route.told(event, size);
    if (this.#held === undefined) for (const listener of this.#listeners) listener.told(event, size);
    else if ((this.#held.room -= size) >= 0) this.#held.early.push([event, size]);
  }

  /** What is pushed is kept until `release`, at most so many characters of it. */
  hold(most: number): void {
    this.#held ??= { early: [], room: most };
  }

  release(): void {
    const { early, room } = this.#held ?? { early: [], room: 0 };
    this.#held = undefined;
    for (const listener of this.#listeners) {
      for (const [event, size] of early) listener.told(event, size);
      if (room < 0) listener.miss();
    }
  }

  linked(link: Link): void {
    for (const route of [...this.#routes.values()]) route.look(link);
    if (this.#wasCut) for (const listener of this.#listeners) listener.miss();
  }

  cut(): void {
    this.#wasCut = true;
    for (const route of [...this.#routes.values()]) route.cut();
  }

  ended(failure: ConnectionFailed | undefined): void {
    const routes = [...this.#routes.values()];
    this.#routes.clear();
    for (const route of routes) route.end(failure);
    for (const listener of this.#listeners) listener.end(failure);
    this.#listeners.clear();
  }
}

// ----------------------------------------------------------------------------------------------------------- calls

/** How to call an action. */
export interface CallOptions<QueryName extends string = string> {
  readonly query?: Query<QueryName> | undefined;
  /** Seconds; null: as long as it takes. */
  readonly timeout?: number | null | undefined;
  /** Aborting it has the server cancel the action; the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What a route's pattern takes in its braces. */
interface Capture {
  readonly kind?: "int" | "uuid";
  readonly pattern?: string;
}

interface Route {
  readonly forms: readonly string[]; // the route and, without what may be missing, its other forms; none: any route
  readonly captures: { readonly [name: string]: Capture };
  readonly required: readonly string[]; // of the captures
}

interface Plan {
  readonly kind: "call" | "send" | "stream" | "subscribe";
  readonly action: string;
  readonly at: Route;
  readonly takes?: true; // parameters
  readonly fixed?: Frame; // that is sent with them
}

type Members = { readonly [name: string]: Members | readonly Plan[] };

/** What every generated client is built on: one address, one connection at a time, made again when it is lost. */
export class BaseClient {
  readonly #audience = new Audience();
  readonly #line: Line;

  constructor(url: string, options: ClientOptions = {}) {
    this.#line = this.#audience.line = new Line(url, options, this.#audience);
  }

  /** How it stands with the connection. */
  get state(): State {
    return this.#line.state;
  }

  /**
   * Connects now, not at the first call. Resolves once there is a connection; rejects with `ConnectionFailed` where there
   * will be none, because the server says no or the client is closed.
   */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#line.whenOpen(() => resolve(), reject);
    });
  }

  /** Calls a function with each new state and what led to it; returns what ends that. */
  onState(tell: (state: State, cause: Error | undefined) => void): () => void {
    return this.#line.watch(tell);
  }

  /** Closes it for good: what is under way fails with `ConnectionLost`, iterations end. `$flush()` first waits for sends. */
  close(): void {
    this.#line.close();
  }

  /** What the server pushes of no subscription, from now on. */
  $events(): Events {
    const events = this.#audience.listen(this.#line.buffer);
    this.#line.whenOpen(() => undefined, (error) => events.end(error));
    return events;
  }

  /** Runs an action by its name, of which the generated methods do not know; `params` are keys of its frame. */
  $call(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<unknown> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const asked = withQuery(route, options.query);
    return this.#within(`${action} ${asked}`, seconds, options.signal, (resolve, reject) => {
      const reply = (told: Reply): void => {
        if (told.status === 206) reject(new UnexpectedReply(`${action} ${asked} is a stream; iterate over client.$stream(...)`));
        else if (told.status >= 400) reject(actionError(told));
        else resolve(told.data);
      };
      return this.#ask(action, asked, params, { reply, lost: reject, fail: reject });
    });
  }

  /**
   * Runs an action that answers nothing. Resolves once it is on its way; errors are logged. While `maxInFlight` requests
   * are under way it waits for its turn. What the server refuses for lack of room is sent again.
   */
  $send(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const asked = withQuery(route, options.query);
    return this.#within(`${action} ${asked}`, seconds, options.signal, (resolve, reject) => {
      return this.#line.submit(new OutgoingRequest(action, asked, params, undefined, { resolve, reject }));
    });
  }

  /**
   * Resolves once every `$send` so far has run, or was refused by an error, which is logged. Rejects with
   * `ConnectionLost` if the connection was lost meanwhile: what was under way may have been carried out or not.
   */
  $flush(options: Pick<CallOptions, "timeout" | "signal"> = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    return this.#within("flush", seconds, options.signal, (resolve, reject) => this.#line.flush({ resolve, reject }));
  }

  /** The items of an action that is a stream. */
  $stream<Item = unknown>(action: string, route = "", params: object = {}, options: CallOptions = {}): Stream<Item> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const asked = withQuery(route, options.query);
    return new Stream<Item>((asker) => {
      let settle = (): void => undefined;
      const stops: (() => void)[] = [];
      const fail = (error: Error): void => asker.fail(error);
      if (options.signal?.aborted === true) {
        fail(options.signal.reason as Error);
        return () => undefined;
      }
      const first = this.#within(`${action} ${asked}`, seconds, undefined, (resolve) => {
        settle = () => resolve(undefined);
        return () => undefined;
      });
      first.catch(fail);
      const reply = (told: Reply): void => {
        settle(); // a timeout bounds the first item
        asker.reply(told);
      };
      stops.push(onAbort(options.signal, fail), () => settle());
      stops.push(this.#ask(action, asked, params, { reply, lost: fail, fail }));
      return () => stops.forEach((stop) => stop());
    }, this.#line.buffer);
  }

  /** The events of a route, which is told in the form in which the server writes it. */
  async $subscribe<Asked extends boolean = false, Since extends Position | null = null>(
    route: string,
    options?: SubscribeOptions<string, Asked, Since>,
  ): Promise<Subscription<ServerEvent, SnapshotFor<Asked, unknown>, FirstFor<Asked, Since, unknown>>> {
    const told: SubscribeOptions = options ?? {};
    const asked = withQuery(route, told.query);
    let follower: Follower | undefined;
    try {
      await this.#within<void>(`subscribe ${asked}`, told.timeout ?? 30, told.signal, (resolve, reject) => {
        const one = (follower = new Follower(this.#line, this.#audience, asked, told, { resolve, reject }));
        const stop = this.#line.whenOpen((link) => one.shared.look(link), reject);
        const stopLeaving = onAbort(told.signal, () => one.leave()); // at once, for whoever subscribes right after
        return () => {
          stop();
          stopLeaving();
        };
      });
    } catch (error) {
      follower?.leave();
      throw error;
    }
    const following = follower as Follower | undefined;
    if (following !== undefined) following.onEnd = onAbort(told.signal, () => following.leave());
    return new Subscription(following);
  }

  /** Asks in its turn; returns what gives it up, and has it cancelled. */
  #ask(action: string, route: string, params: object, asker: StreamAsker): () => void {
    try {
      return this.#line.submit(new OutgoingRequest(action, route, params, asker));
    } catch (error) {
      asker.fail(error as Error);
      return () => undefined;
    }
  }

  /** What `begin` settles, unless time or the signal does; whatever settles it, what `begin` returned is called. */
  #within<T>(
    what: string,
    seconds: number | null,
    signal: AbortSignal | undefined,
    begin: (resolve: (value: T) => void, reject: (error: Error) => void) => () => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const stops: (() => void)[] = [];
      let isSettled = false;
      const settle = (how: () => void): void => {
        if (isSettled) return;
        isSettled = true;
        for (const stop of stops.splice(0)) stop();
        how();
      };
      const fail = (error: Error): void => settle(() => reject(error));
      if (seconds !== null) {
        stops.push(after(seconds, () => fail(new CallTimeout(what.trim(), seconds, this.#line.cause))));
      }
      stops.push(onAbort(signal, fail));
      if (isSettled) return;
      try {
        stops.push(begin((value) => settle(() => resolve(value)), fail));
      } catch (error) {
        fail(error as Error);
      }
      if (isSettled) for (const stop of stops.splice(0)) stop(); // it was settled before it had begun
    });
  }
}

function onAbort(signal: AbortSignal | undefined, then: (reason: Error) => void): () => void {
  if (signal === undefined) return () => undefined;
  const abort = (): void => then(signal.reason as Error);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return () => signal.removeEventListener("abort", abort);
}

// ---------------------------------------------------------------------------------------------------------- routes

const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/** The text of a capture. Throws `InvalidRoute` for what the route's pattern would not match, or not whole. */
function written(name: string, value: unknown, capture: Capture): string {
  const text = String(value);
  const isRight =
    capture.kind === "int"
      ? /^[0-9]+$/.test(text)
      : (typeof value === "string" || typeof value === "number") &&
        !/[?\n]/.test(text) &&
        text !== "" &&
        new RegExp(capture.kind === "uuid" ? `^${UUID}$` : (capture.pattern ?? "")).test(text);
  if (isRight) return capture.kind === "int" ? text.replace(/^0+(?=.)/, "") : text; // as the server writes it
  const wanted = capture.kind ?? (capture.pattern === undefined ? 'text without "?"' : `what ${capture.pattern} matches`);
  throw new InvalidRoute(`${name}: expected ${wanted}, got ${JSON.stringify(value) ?? text}`);
}

/** The route with its captures written in, in the form that takes just these. Routes are never percent-encoded. */
function routeOf(route: Route, captures: { readonly [name: string]: unknown }): string {
  if (route.forms.length === 0) return written("route", captures["route"], {});
  const given = Object.keys(route.captures).filter((name) => captures[name] !== undefined);
  const form = route.forms.find((one) => Object.keys(route.captures).every((name) => one.includes(`{${name}}`) === given.includes(name)));
  if (form === undefined) throw new InvalidRoute(`${route.forms[0] ?? ""}: no form of it takes just ${given.join(", ") || "nothing"}`);
  return form.replace(/\{([^{}]+)\}/g, (whole, name: string) => {
    const capture = hasOwn(route.captures, name) ? route.captures[name] : undefined;
    return capture === undefined ? whole : written(name, captures[name], capture);
  });
}

/** A connection's address, whose captures are percent-encoded. */
function addressOf(server: string, route: Route, given: object): string {
  const told = routeOf(route, given as { readonly [name: string]: unknown });
  return `${server.replace(/\/+$/, "")}/${encodeURI(told).replace(/#/g, "%23")}`;
}

/** A route with its query, which is percent-encoded as in URLs. */
function withQuery(route: string, query: Query | undefined): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? (value as readonly QueryValue[]) : [value as QueryValue]).map((one) => [name, one] as const),
  );
  const told = pairs.filter(([, value]) => value !== undefined && value !== null);
  const text = told.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`).join("&");
  return text === "" ? route : `${route}${route.includes("?") ? "&" : "?"}${text}`;
}

/** Puts methods, and objects with methods, onto an object. */
function bind(client: BaseClient, members: Members, onto: object): object {
  for (const [name, member] of Object.entries(members)) {
    const value = isPlans(member) ? (...given: unknown[]) => run(client, chosen(member, given[0]), given) : bind(client, member, {});
    Object.defineProperty(onto, name, { value, enumerable: true });
  }
  return onto;
}

function isPlans(member: Members | readonly Plan[]): member is readonly Plan[] {
  return Array.isArray(member);
}

/** Of the routes that a method is of, the first whose captures were given. */
function chosen(plans: readonly Plan[], first: unknown): Plan {
  const given = isObject(first) ? first : {};
  const last = plans[plans.length - 1] as Plan;
  return plans.find((plan) => plan.at.required.every((name) => given[name] !== undefined)) ?? last;
}

function run(client: BaseClient, plan: Plan, given: unknown[]): unknown {
  const hasCaptures = Object.keys(plan.at.captures).length > 0;
  const captures = hasCaptures ? (given.shift() ?? {}) : {};
  const params = { ...(plan.takes === true ? ((given.shift() ?? {}) as object) : {}), ...plan.fixed };
  const options = (given.shift() ?? {}) as CallOptions;
  const ask = (): unknown => {
    const route = routeOf(plan.at, captures as { readonly [name: string]: unknown });
    if (plan.kind === "subscribe") return client.$subscribe(route, options as SubscribeOptions);
    return client[`$${plan.kind}`](plan.action, route, params, options);
  };
  if (plan.kind === "stream") return ask();
  try {
    return ask();
  } catch (error) {
    return Promise.reject(error as Error);
  }
}

// -------------------------------------------------------------------------------------------------------- this app

export interface Board {
  id: number;
  title: string;
  owner_id: number;
  members: Person[];
}

export interface Card {
  id: number;
  column_id: number;
  position: number;
  title: string;
  notes: string;
  comment_count: number;
}

export interface Column {
  id: number;
  title: string;
}

export interface Comment {
  id: number;
  author: Person;
  text: string;
  written_at: number;
}

/** Where a card goes: before another card of a column; at its end where that is null, or there no more. */
export interface Move {
  column_id: number;
  before?: number | null;
}

/** Who moved which card where, for those who look on; the card itself is told as ``updated``. */
export interface Moved {
  card_id: number;
  column_id: number;
  by: Person;
}

/** A card as it is made: at the end of a column. */
export interface NewCard {
  column_id: number;
  title: string;
  notes?: string;
}

export interface Person {
  id: number;
  name: string;
}

/** Who signed in, and the token to say so with from now on. */
export interface SignedIn {
  token: string;
  user: Person;
}

export interface UsersBoardsCreateData {
  title: string;
}

export type UsersBoardsEvent =
  | ServerEvent<"created", Board>
  | ServerEvent<"updated", Board>
  | ServerEvent<"deleted", { pk: number }>;

export interface BoardsUpdateData {
  title: string;
}

export interface BoardsPartialUpdateData {
  title?: string;
}

export type BoardsEvent =
  | ServerEvent<"created", Board>
  | ServerEvent<"updated", Board>
  | ServerEvent<"deleted", { pk: number }>
  | ServerEvent<"join", { user: string }>
  | ServerEvent<"leave", { user: string }>;

export interface BoardsColumnsCreateData {
  title: string;
}

export type BoardsColumnsEvent =
  | ServerEvent<"created", Column>
  | ServerEvent<"updated", Column>
  | ServerEvent<"deleted", { pk: number }>;

export interface BoardsColumnsUpdateData {
  title: string;
}

export interface BoardsColumnsPartialUpdateData {
  title?: string;
}

export type BoardsCardsEvent =
  | ServerEvent<"created", Card>
  | ServerEvent<"updated", Card>
  | ServerEvent<"deleted", { pk: number }>
  | ServerEvent<"moved", Moved>;

export interface BoardsCardsUpdateData {
  title: string;
  notes?: string;
}

export interface BoardsCardsPartialUpdateData {
  title?: string;
  notes?: string;
}

export interface BoardsCardsCommentsCreateData {
  text: string;
}

export type BoardsCardsCommentsEvent =
  | ServerEvent<"created", Comment>
  | ServerEvent<"updated", Comment>
  | ServerEvent<"deleted", { pk: number }>;

export interface BoardsCardsCommentsUpdateData {
  text: string;
}

export interface BoardsCardsCommentsPartialUpdateData {
  text?: string;
}

export interface Api {
  readonly users: UsersApi;
  readonly boards: BoardsApi;
  /**
   * A token, to be offered with the handshake or sent by `$auth`. The sample users' password is their name.
   *
   * `sign_in` at the empty route
   */
  signIn(params: { name: string; password: string }, options?: CallOptions): Promise<SignedIn>;
  /**
   * Who this connection belongs to.
   *
   * `whoami` at the empty route
   */
  whoami(options?: CallOptions): Promise<Person>;
}

export interface UsersApi {
  readonly boards: UsersBoardsApi;
}

export interface UsersBoardsApi {
  /**
   * Makes an object.
   *
   * `create` at `users/{user}/boards/`
   */
  create(captures: { user: number }, params: { data: UsersBoardsCreateData }, options?: CallOptions): Promise<Board>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `users/{user}/boards/`
   */
  list(captures: { user: number }, options?: CallOptions<never>): Promise<Board[]>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `users/{user}/boards/`
   */
  listStream(captures: { user: number }, options?: CallOptions<never>): Stream<Board[]>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `users/{user}/boards/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { user: number }, options?: SubscribeOptions<never, Asked, Since>): Promise<Subscription<UsersBoardsEvent, SnapshotFor<Asked, Board[]>, FirstFor<Asked, Since, Board[]>>>;
}

export interface BoardsApi {
  readonly columns: BoardsColumnsApi;
  readonly cards: BoardsCardsApi;
  /**
   * Deletes an object.
   *
   * `destroy` at `boards/{board}/`
   */
  destroy(captures: { board: number }, options?: CallOptions): Promise<null>;
  /**
   * Changes an object; what is left out gets its default.
   *
   * `update` at `boards/{board}/`
   */
  update(captures: { board: number }, params: { data: BoardsUpdateData }, options?: CallOptions): Promise<Board>;
  /**
   * Changes of an object what is sent.
   *
   * `partial_update` at `boards/{board}/`
   */
  partialUpdate(captures: { board: number }, params: { data: BoardsPartialUpdateData }, options?: CallOptions): Promise<Board>;
  /**
   * One object.
   *
   * `retrieve` at `boards/{board}/`
   */
  retrieve(captures: { board: number }, options?: CallOptions): Promise<Board>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number }, options?: SubscribeOptions<string, Asked, Since>): Promise<Subscription<BoardsEvent, SnapshotFor<Asked, Board>, FirstFor<Asked, Since, Board>>>;
  /**
   * Who is subscribed to this route, and by how many connections: ``{"ada": 2}``.
   *
   * Where the client is subscribed itself, each ``join`` and ``leave`` before the reply is part of it, so that those
   * after it can be applied to it.
   *
   * `presence` at `boards/{board}/`
   */
  presence(captures: { board: number }, options?: CallOptions): Promise<{ [key: string]: number }>;
  /**
   * Makes somebody a member.
   *
   * `invite` at `boards/{board}/`
   */
  invite(captures: { board: number }, params: { name: string }, options?: CallOptions): Promise<Board>;
  /**
   * Ends a membership: from now on the board is none of his business.
   *
   * `dismiss` at `boards/{board}/`
   */
  dismiss(captures: { board: number }, params: { user_id: number }, options?: CallOptions): Promise<Board>;
}

export interface BoardsColumnsApi {
  /**
   * Makes an object.
   *
   * `create` at `boards/{board}/columns/`
   */
  create(captures: { board: number }, params: { data: BoardsColumnsCreateData }, options?: CallOptions): Promise<Column>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/columns/`
   */
  list(captures: { board: number }, options?: CallOptions<never>): Promise<Column[]>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/columns/`
   */
  listStream(captures: { board: number }, options?: CallOptions<never>): Stream<Column[]>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/columns/{pk}/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number; pk: number }, options?: SubscribeOptions<string, Asked, Since>): Promise<Subscription<BoardsColumnsEvent, SnapshotFor<Asked, Column>, FirstFor<Asked, Since, Column>>>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/columns/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number }, options?: SubscribeOptions<never, Asked, Since>): Promise<Subscription<BoardsColumnsEvent, SnapshotFor<Asked, Column[]>, FirstFor<Asked, Since, Column[]>>>;
  /**
   * Deletes an object.
   *
   * `destroy` at `boards/{board}/columns/{pk}/`
   */
  destroy(captures: { board: number; pk: number }, options?: CallOptions): Promise<null>;
  /**
   * Changes an object; what is left out gets its default.
   *
   * `update` at `boards/{board}/columns/{pk}/`
   */
  update(captures: { board: number; pk: number }, params: { data: BoardsColumnsUpdateData }, options?: CallOptions): Promise<Column>;
  /**
   * Changes of an object what is sent.
   *
   * `partial_update` at `boards/{board}/columns/{pk}/`
   */
  partialUpdate(captures: { board: number; pk: number }, params: { data: BoardsColumnsPartialUpdateData }, options?: CallOptions): Promise<Column>;
  /**
   * One object.
   *
   * `retrieve` at `boards/{board}/columns/{pk}/`
   */
  retrieve(captures: { board: number; pk: number }, options?: CallOptions): Promise<Column>;
}

export interface BoardsCardsApi {
  readonly comments: BoardsCardsCommentsApi;
  /**
   * Adds a card at the end of a column.
   *
   * `create` at `boards/{board}/cards/`
   */
  create(captures: { board: number }, params: { data: NewCard }, options?: CallOptions): Promise<Card>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/cards/`
   */
  list(captures: { board: number }, options?: CallOptions<never>): Promise<Card[]>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/cards/`
   */
  listStream(captures: { board: number }, options?: CallOptions<never>): Stream<Card[]>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/cards/{pk}/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number; pk: number }, options?: SubscribeOptions<string, Asked, Since>): Promise<Subscription<BoardsCardsEvent, SnapshotFor<Asked, Card>, FirstFor<Asked, Since, Card>>>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/cards/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number }, options?: SubscribeOptions<never, Asked, Since>): Promise<Subscription<BoardsCardsEvent, SnapshotFor<Asked, Card[]>, FirstFor<Asked, Since, Card[]>>>;
  /**
   * Deletes an object.
   *
   * `destroy` at `boards/{board}/cards/{pk}/`
   */
  destroy(captures: { board: number; pk: number }, options?: CallOptions): Promise<null>;
  /**
   * Changes an object; what is left out gets its default.
   *
   * `update` at `boards/{board}/cards/{pk}/`
   */
  update(captures: { board: number; pk: number }, params: { data: BoardsCardsUpdateData }, options?: CallOptions): Promise<Card>;
  /**
   * Changes of an object what is sent.
   *
   * `partial_update` at `boards/{board}/cards/{pk}/`
   */
  partialUpdate(captures: { board: number; pk: number }, params: { data: BoardsCardsPartialUpdateData }, options?: CallOptions): Promise<Card>;
  /**
   * One object.
   *
   * `retrieve` at `boards/{board}/cards/{pk}/`
   */
  retrieve(captures: { board: number; pk: number }, options?: CallOptions): Promise<Card>;
  /**
   * Puts a card before another one of a column, or at its end.
   *
   * `move` at `boards/{board}/cards/{pk}/`
   */
  move(captures: { board: number; pk: number }, params: { data: Move }, options?: CallOptions): Promise<Card>;
}

export interface BoardsCardsCommentsApi {
  /**
   * Makes an object.
   *
   * `create` at `boards/{board}/cards/{card}/comments/`
   */
  create(captures: { board: number; card: number }, params: { data: BoardsCardsCommentsCreateData }, options?: CallOptions): Promise<Comment>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/cards/{card}/comments/`
   */
  list(captures: { board: number; card: number }, options?: CallOptions<never>): Promise<Comment[]>;
  /**
   * The objects, a page at a time.
   *
   * `list` at `boards/{board}/cards/{card}/comments/`
   */
  listStream(captures: { board: number; card: number }, options?: CallOptions<never>): Stream<Comment[]>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/cards/{card}/comments/{pk}/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number; card: number; pk: number }, options?: SubscribeOptions<string, Asked, Since>): Promise<Subscription<BoardsCardsCommentsEvent, SnapshotFor<Asked, Comment>, FirstFor<Asked, Since, Comment>>>;
  /**
   * Tells the events of this route from now on, and what was missed ``since`` a position.
   *
   * `subscribe` at `boards/{board}/cards/{card}/comments/`
   */
  subscribe<Asked extends boolean = false, Since extends Position | null = null>(captures: { board: number; card: number }, options?: SubscribeOptions<never, Asked, Since>): Promise<Subscription<BoardsCardsCommentsEvent, SnapshotFor<Asked, Comment[]>, FirstFor<Asked, Since, Comment[]>>>;
  /**
   * Deletes an object.
   *
   * `destroy` at `boards/{board}/cards/{card}/comments/{pk}/`
   */
  destroy(captures: { board: number; card: number; pk: number }, options?: CallOptions): Promise<null>;
  /**
   * Changes an object; what is left out gets its default.
   *
   * `update` at `boards/{board}/cards/{card}/comments/{pk}/`
   */
  update(captures: { board: number; card: number; pk: number }, params: { data: BoardsCardsCommentsUpdateData }, options?: CallOptions): Promise<Comment>;
  /**
   * Changes of an object what is sent.
   *
   * `partial_update` at `boards/{board}/cards/{card}/comments/{pk}/`
   */
  partialUpdate(captures: { board: number; card: number; pk: number }, params: { data: BoardsCardsCommentsPartialUpdateData }, options?: CallOptions): Promise<Comment>;
  /**
   * One object.
   *
   * `retrieve` at `boards/{board}/cards/{card}/comments/{pk}/`
   */
  retrieve(captures: { board: number; card: number; pk: number }, options?: CallOptions): Promise<Comment>;
}

export interface Client extends Api {}

/**
 * The root of a connection: signing in, and the way to the boards.
 * The client of /ws/.
 */
export class Client extends BaseClient {
  constructor(url: string, options: ClientOptions = {}) {
    super(url, options);
    bind(this, PLANS, this);
  }

  /** The address to connect to at a server: of "wss://example.com", `wss://example.com/ws/`. */
  static address(server: string): string {
    return addressOf(server, { forms: ["ws/"], captures: {}, required: [] }, {});
  }
}

const ROUTE_1: Route = { forms: ["users/{user}/boards/"], captures: { user: { kind: "int" } }, required: ["user"] };
const ROUTE_2: Route = { forms: ["boards/{board}/columns/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_3: Route = { forms: ["boards/{board}/columns/{pk}/"], captures: { board: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "pk"] };
const ROUTE_4: Route = { forms: ["boards/{board}/cards/{card}/comments/"], captures: { board: { kind: "int" }, card: { kind: "int" } }, required: ["board", "card"] };
const ROUTE_5: Route = { forms: ["boards/{board}/cards/{card}/comments/{pk}/"], captures: { board: { kind: "int" }, card: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "card", "pk"] };
const ROUTE_6: Route = { forms: ["boards/{board}/cards/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_7: Route = { forms: ["boards/{board}/cards/{pk}/"], captures: { board: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "pk"] };
const ROUTE_8: Route = { forms: ["boards/{board}/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_9: Route = { forms: [""], captures: {}, required: [] };

const PLANS: Members = {
  users: {
    boards: {
      create: [{ kind: "call", action: "create", at: ROUTE_1, takes: true }],
      list: [{ kind: "call", action: "list", at: ROUTE_1 }],
      listStream: [{ kind: "stream", action: "list", at: ROUTE_1, fixed: { stream: true } }],
      subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_1 }],
    },
  },
  boards: {
    columns: {
      create: [{ kind: "call", action: "create", at: ROUTE_2, takes: true }],
      list: [{ kind: "call", action: "list", at: ROUTE_2 }],
      listStream: [{ kind: "stream", action: "list", at: ROUTE_2, fixed: { stream: true } }],
      subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_3 }, { kind: "subscribe", action: "subscribe", at: ROUTE_2 }],
      destroy: [{ kind: "call", action: "destroy", at: ROUTE_3 }],
      update: [{ kind: "call", action: "update", at: ROUTE_3, takes: true }],
      partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_3, takes: true }],
      retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_3 }],
    },
    cards: {
      comments: {
        create: [{ kind: "call", action: "create", at: ROUTE_4, takes: true }],
        list: [{ kind: "call", action: "list", at: ROUTE_4 }],
        listStream: [{ kind: "stream", action: "list", at: ROUTE_4, fixed: { stream: true } }],
        subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_5 }, { kind: "subscribe", action: "subscribe", at: ROUTE_4 }],
        destroy: [{ kind: "call", action: "destroy", at: ROUTE_5 }],
        update: [{ kind: "call", action: "update", at: ROUTE_5, takes: true }],
        partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_5, takes: true }],
        retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_5 }],
      },
      create: [{ kind: "call", action: "create", at: ROUTE_6, takes: true }],
      list: [{ kind: "call", action: "list", at: ROUTE_6 }],
      listStream: [{ kind: "stream", action: "list", at: ROUTE_6, fixed: { stream: true } }],
      subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_7 }, { kind: "subscribe", action: "subscribe", at: ROUTE_6 }],
      destroy: [{ kind: "call", action: "destroy", at: ROUTE_7 }],
      update: [{ kind: "call", action: "update", at: ROUTE_7, takes: true }],
      partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_7, takes: true }],
      retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_7 }],
      move: [{ kind: "call", action: "move", at: ROUTE_7, takes: true }],
    },
    destroy: [{ kind: "call", action: "destroy", at: ROUTE_8 }],
    update: [{ kind: "call", action: "update", at: ROUTE_8, takes: true }],
    partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_8, takes: true }],
    retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_8 }],
    subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_8 }],
    presence: [{ kind: "call", action: "presence", at: ROUTE_8 }],
    invite: [{ kind: "call", action: "invite", at: ROUTE_8, takes: true }],
    dismiss: [{ kind: "call", action: "dismiss", at: ROUTE_8, takes: true }],
  },
  signIn: [{ kind: "call", action: "sign_in", at: ROUTE_9, takes: true }],
  whoami: [{ kind: "call", action: "whoami", at: ROUTE_9 }],
};
