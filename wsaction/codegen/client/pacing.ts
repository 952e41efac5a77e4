// ---------------------------------------------------------------------------------------------------------- pacing

/** Receives the replies to one request. */
interface Asker {
  reply(reply: Reply): void;
  lost(error: Error): void;
}

interface Settling {
  resolve(): void;
  reject(error: Error): void;
}

const RESERVED = ["action", "route", "request_id"];
const MAX_IN_FLIGHT = 128; // requests in flight by default; half of what a server queues by default
const MAX_SIZE = 524_288; // characters in flight
const MAX_WAITING = 10_000; // requests that wait to be sent, and callers that wait for a connection
const BUSY_WAITS = [0.01, 1] as const; // bounds of the wait before a refused request is sent again, in seconds
const QUEUE_BOUNDS: readonly unknown[] = ["max_queued_actions", "max_queued_bytes"]; // past these, nothing is run

/** One request until its final reply. Without `asker` (a send), success has no reply, and `sent` settles once it is sent. */
class OutgoingRequest {
  readonly action: string;
  readonly route: string;
  readonly text: string;
  asker: Asker | undefined;
  sent: Settling | undefined;
  number: number | undefined; // its place in the order of requests; undefined if it is sent out of order
  link: Link | undefined; // the connection it was sent on
  id = ""; // its request_id on that connection
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

/** Whether the server refused a request before it ran: its queue is full, or it is shutting down. */
function wasNotRun(reply: Reply): boolean {
  const first = reply.errors[0];
  if (reply.status !== 503 || first === undefined) return false;
  return first.type === "shutting_down" || (first.type === "busy" && QUEUE_BOUNDS.includes(first.ctx?.["limit"]));
}

/**
 * Sends requests in order, each as soon as the connection has room for it. A burst of requests waits here, so the server
 * does not refuse it. A request that the server refused because its queue was full has not run: it is sent again.
 */
class Pacer {
  maxCount: number;
  maxSize = MAX_SIZE;
  readonly #log: Log;
  readonly #backoff = new Backoff(...BUSY_WAITS);
  readonly #flushes = new Set<Settling>();
  #link: Link | undefined;
  #queue: OutgoingRequest[] = []; // ordered by number; includes withdrawn requests
  #waiting = 0;
  #count = 0;
  #sends = 0; // sends not known to be done
  #resume: (() => void) | undefined; // ends the wait after a refusal; undefined if none

  constructor(maxCount: number, log: Log) {
    if (!(maxCount >= 1)) throw new RangeError(`maxInFlight: expected at least 1, got ${maxCount}`);
    this.maxCount = maxCount;
    this.#log = log;
  }

  /** Whether requests or a flush wait for sends to be done. */
  get wantsToKnow(): boolean {
    return this.#waiting > 0 || this.#flushes.size > 0;
  }

  /** Queues a request. Throws `Overflow` if too many wait. */
  submit(request: OutgoingRequest): void {
    if (this.#waiting >= MAX_WAITING) {
      throw new Overflow(`${MAX_WAITING} requests wait to be sent; await some of them before asking more`);
    }
    request.number = this.#count++;
    if (request.asker === undefined) this.#sends++;
    this.#wait(request);
    this.pump();
  }

  /** Drops a request whose reply nobody needs; cancels it if it was sent. */
  withdraw(request: OutgoingRequest): void {
    if (request.link !== undefined) request.link.cancel(request);
    else if (request.number !== undefined && !request.isWithdrawn) {
      request.isWithdrawn = true;
      this.#waiting--;
      if (request.asker === undefined) this.settled();
      if (this.#queue.length > 2 * this.#waiting + 64) this.#queue = this.#queue.filter((one) => !one.isWithdrawn);
    }
  }

  /** Settles `done` once all sends are known to be done; returns a function that gives up waiting. */
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

  /** Sends the requests that the connection has room for. */
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

  /** Rejects all waiting requests: there will be no connection. */
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

  /** Queues a request that the server refused before it ran. It is sent again after a wait, in its order. */
  refused(request: OutgoingRequest, reply: Reply): void {
    const { limit, value } = reply.errors[0]?.ctx ?? {};
    if (typeof value === "number" && value >= 1) {
      if (limit === "max_queued_actions") this.maxCount = Math.min(this.maxCount, value);
      else this.maxSize = Math.min(this.maxSize, value);
    }
    this.#wait(request);
    if (reply.errors[0]?.type === "shutting_down") this.#link = undefined; // it is about to close
    if (this.#link === undefined || this.#resume !== undefined) return;
    const stop = after(this.#backoff.seconds(), () => this.#resume?.());
    this.#resume = () => {
      stop();
      this.#resume = undefined;
      this.pump();
    };
  }

  /** The server accepted a request. */
  answered(): void {
    this.#backoff.reset();
  }

  /** A send has ended, by success or by an error. */
  settled(): void {
    if (--this.#sends === 0) for (const flush of [...this.#flushes]) flush.resolve();
  }

  /** The connection was lost with `count` sends in flight. They may or may not have run. */
  lost(count: number, error: ConnectionLost): void {
    if (count === 0) return;
    this.#log(`sends that may have run before the connection was lost: ${count}`, error);
    this.#sends -= count;
    for (const flush of [...this.#flushes]) flush.reject(new ConnectionLost(error.code, error.reason));
  }
}

