// -------------------------------------------------------------------------------------------------------- messages

/** A position in a route's history. Pass it as `since` to receive the events after it. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/**
 * An event that the server sent. `offset`: its place in the route's history, if the route keeps one. `traceparent`: the
 * span of its delivery, if the server traces.
 */
export interface ServerEvent<Name extends string = string, Data = unknown> {
  readonly event: Name;
  readonly route: string;
  readonly data: Data;
  readonly offset?: number;
  readonly traceparent?: string;
}

/**
 * Events were lost here. Load the data again; the events that follow are complete. If the subscription asked for
 * snapshots, `snapshot` is the data. `position` is null among the events of no subscription.
 */
export interface Resync<Snapshot = undefined> {
  readonly event: "$resync";
  readonly route: string;
  readonly position: Position | null;
  readonly snapshot: Snapshot;
}

/** The query of a route: page, filters, search and ordering of a list. Null and undefined are left out. */
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

/** Parses a message. Returns null if it is neither a reply nor an event. */
function read(text: string): Reply | ServerEvent | null {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(body)) return null;
  const route = typeof body["route"] === "string" ? body["route"] : "";
  const { event, status, errors, offset, traceparent } = body;
  if (typeof event === "string") {
    const message = { event, route, data: body["data"], ...(typeof offset === "number" ? { offset } : {}) };
    return typeof traceparent === "string" ? { ...message, traceparent } : message;
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

/** The position in the data of a reply or notice; null if it has none. */
function positionIn(data: unknown): Position | null {
  if (!isObject(data)) return null;
  const { epoch, offset } = data;
  return typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : null;
}

// ---------------------------------------------------------------------------------------------------------- queues

/** A queue of items for one consumer. It has no bound of its own: the producer checks `size`. */
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

  /** Ends the queue. The consumer still gets the waiting items; after them, every `next()` rejects with the error. */
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
      return Promise.reject(new Error("another next() is pending; iterate with one consumer only"));
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }
}

/** Random waits between zero and a bound that doubles each time ("full jitter"). */
class Backoff {
  readonly #first: number;
  readonly #longest: number;
  #next: number;

  constructor(first: number, longest: number) {
    this.#first = this.#next = first;
    this.#longest = longest;
  }

  seconds(): number {
    const bound = this.#next;
    this.#next = Math.min(bound * 2, this.#longest);
    return Math.random() * bound;
  }

  reset(): void {
    this.#next = this.#first;
  }
}

/** Calls a function after some seconds; returns a function that stops the timer. A timer lasts at most 24.8 days. */
function after(seconds: number, then: () => void): () => void {
  const timer = setTimeout(then, Math.min(seconds * 1000, 2_147_483_647));
  return () => clearTimeout(timer);
}

function now(): number {
  return performance.now() / 1000;
}

