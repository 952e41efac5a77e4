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
const MAX_IN_FLIGHT = 128; // requests under way at once unless said otherwise; half of what a server keeps by default
const MAX_SIZE = 524_288; // characters under way at once
const MAX_WAITING = 10_000; // requests that wait for their turn, or for a connection
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
  maxCount: number;
  maxSize = MAX_SIZE;
  readonly #log: Log;
  readonly #backoff = new Backoff(...BUSY_WAITS);
  readonly #flushes = new Set<Settling>();
  #link: Link | undefined;
  #queue: OutgoingRequest[] = []; // by number; withdrawn ones too
  #waiting = 0;
  #count = 0;
  #sends = 0; // that are not known to be done
  #resume: (() => void) | undefined; // while a refused request waits

  constructor(maxCount: number, log: Log) {
    if (!(maxCount >= 1)) throw new RangeError(`maxInFlight: expected at least 1, got ${maxCount}`);
    this.maxCount = maxCount;
    this.#log = log;
  }

  /** Whether somebody waits until sends are done. */
  get wantsToKnow(): boolean {
    return this.#waiting > 0 || this.#flushes.size > 0;
  }

  /** Sends a request in its turn. */
  submit(request: OutgoingRequest): void {
    if (this.#waiting >= MAX_WAITING) {
      throw new Overflow(`${MAX_WAITING} requests wait to be sent; await some of them before asking more`);
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
      if (request.asker !== undefined) request.asker.lost(copyOf(failure));
      else if (request.sent !== undefined) request.sent.reject(copyOf(failure));
      else this.#log(`${request.action} ${request.route}`.trim() + " was refused as busy and could not be sent again", failure);
    }
    for (const flush of [...this.#flushes]) flush.reject(copyOf(failure));
  }

  /** The server had no room for a request: it is sent again, in its turn, after a wait. */
  refused(request: OutgoingRequest, reply: Reply): void {
    const { limit, value } = reply.errors[0]?.ctx ?? {};
    if (typeof value === "number" && value >= 1) {
      if (limit === "max_queued_actions") this.maxCount = Math.min(this.maxCount, value);
      else this.maxSize = Math.min(this.maxSize, value);
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

