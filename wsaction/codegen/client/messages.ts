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
    const message = { event, route, data: body["data"] };
    return typeof offset === "number" ? { ...message, offset } : message;
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

/** A timer, in seconds; returns what stops it. Longer than a timer can be is until then. */
function after(seconds: number, then: () => void): () => void {
  const timer = setTimeout(then, Math.min(seconds * 1000, 2_147_483_647));
  return () => clearTimeout(timer);
}

function now(): number {
  return performance.now() / 1000;
}

