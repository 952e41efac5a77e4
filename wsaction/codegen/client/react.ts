import { useCallback, useMemo, useState, useSyncExternalStore } from "react";
import { CallTimeout, ConnectionLost } from "./client";
import type { BaseClient, Resync, ServerEvent, State, Subscription, SubscriptionState } from "./client";

/** The state of a client's connection. `cause`: why there is none. */
export interface Connection {
  readonly state: State;
  readonly cause: Error | undefined;
}

/** The connection of a client: `const { state, cause } = useConnection(client)`. */
export function useConnection(client: BaseClient): Connection {
  const subscribe = useCallback((changed: () => void) => client.onState(changed), [client]);
  const state = useSyncExternalStore(subscribe, () => client.state, () => "connecting" as const);
  return { state, cause: client.$cause };
}

/** What came of one run of an action: its result or its error. */
export type Outcome<Result> =
  | { readonly data: Result; readonly error: undefined }
  | { readonly data: undefined; readonly error: Error };

/** An action that a component runs. */
export interface Action<Args extends readonly unknown[], Result> {
  /** Runs the action. Never rejects: the outcome has the result or the error. */
  readonly run: (...args: Args) => Promise<Outcome<Result>>;
  /** Whether a run is in progress. */
  readonly pending: boolean;
  /** The error of the last run; undefined if it succeeded, and while one is in progress. */
  readonly error: Error | undefined;
}

/**
 * Runs an action, such as `client.cards.create` or `(pk: number) => client.cards.destroy({ pk })`:
 *
 *     const create = useAction(client.cards.create);
 *     const { data: card, error } = await create.run({ data: { title } });
 *     if (error === undefined) show(card);
 */
export function useAction<Args extends readonly unknown[], Result>(action: (...args: Args) => Promise<Result>): Action<Args, Result> {
  const [{ running, error }, change] = useState<{ running: number; error: Error | undefined }>({ running: 0, error: undefined });
  const run = useCallback(
    async (...args: Args): Promise<Outcome<Result>> => {
      change((before) => ({ running: before.running + 1, error: undefined }));
      try {
        const data = await action(...args);
        change((before) => ({ ...before, running: before.running - 1 }));
        return { data, error: undefined };
      } catch (caught) {
        const failure = errorOf(caught);
        change((before) => ({ running: before.running - 1, error: failure }));
        return { data: undefined, error: failure };
      }
    },
    [action],
  );
  return { run, pending: running > 0, error };
}

/** What a component knows of a route. It is replaced when something changes, never changed in place. */
export interface Subscribed<Data> {
  /** undefined until the server has answered, and once the object is deleted. */
  readonly data: Data | undefined;
  /** `joining`: before the first answer. `recovering`: missed events are being loaded. `closed`: for good. */
  readonly state: SubscriptionState;
  /** Why it is closed, or why it takes so long to join. */
  readonly error: Error | undefined;
}

type Open<Told extends ServerEvent, Snapshot> = (options: { readonly signal: AbortSignal }) => Promise<Subscription<Told, Snapshot, Snapshot>>;

/** How the data of a component follows from the events of a route. */
export interface Reducer<Told extends ServerEvent, Snapshot, Data> {
  /** The data at the start, and again wherever events were lost. It may load it; events wait meanwhile. */
  start(snapshot: Snapshot): Data | Promise<Data>;
  /** The data after an event: a new value, or the same if nothing changes. */
  reduce(data: Data, event: Told): Data;
}

/**
 * The snapshot of a route, kept up to date by its events.
 *
 *     const { data, state, error } = useSubscription((options) => client.cards.subscribe({ ...options, snapshot: true }), [client]);
 *     const card = useSubscription((options) => client.cards.subscribe({ pk }, { ...options, snapshot: true }), [client, pk]);
 *
 * It subscribes again when one of `deps` changes. A list takes `created`, `updated` and `deleted`: new objects go to its end,
 * whatever its query says. `key` is the field that identifies an object, "id" by default.
 *
 * For other events and other data, pass a `Reducer`. It belongs to `deps` like the function before it:
 *
 *     const lines = useSubscription((options) => client.rooms.subscribe({ pk }, options), [client, pk], {
 *       start: () => client.rooms.history({ pk }),
 *       reduce: (lines, event) => (event.event === "said" ? [...lines, event.data] : lines),
 *     });
 *
 * All subscriptions of one route share one subscription at the server, which ends with the last of them.
 */
export function useSubscription<Told extends ServerEvent, Snapshot>(
  subscribe: Open<Told, Snapshot>,
  deps: readonly unknown[],
  options?: { readonly key?: string | undefined },
): Subscribed<Snapshot>;
export function useSubscription<Told extends ServerEvent, Snapshot, Data>(
  subscribe: Open<Told, Snapshot>,
  deps: readonly unknown[],
  reducer: Reducer<Told, Snapshot, Data>,
): Subscribed<Data>;
export function useSubscription(
  subscribe: Open<ServerEvent, unknown>,
  deps: readonly unknown[],
  options: { readonly key?: string | undefined } | Reducer<ServerEvent, unknown, unknown> = {},
): Subscribed<unknown> {
  const reducer = "reduce" in options ? options : new Rows(options.key ?? "id");
  const store = useMemo(() => new Store(subscribe, reducer), deps);
  return useSyncExternalStore(store.subscribe, store.current, store.initial);
}

/** A route with presence: an object of the client such as `client.rooms`. */
export interface Room<Args extends readonly unknown[]> {
  subscribe(...args: [...Args, options: { readonly signal: AbortSignal }]): Promise<Subscription<ServerEvent, undefined, undefined>>;
  presence(...args: Args): Promise<{ readonly [user: string]: number }>;
}

/**
 * The users who are subscribed to a route, sorted; the component's own user is one of them.
 *
 *     const { data: users = [] } = usePresence(client.rooms, { pk });
 */
export function usePresence(room: Room<[]>): Subscribed<readonly string[]>;
export function usePresence<Captures extends object>(room: Room<[captures: Captures]>, captures: Captures): Subscribed<readonly string[]>;
export function usePresence(room: Room<[]> | Room<[captures: object]>, ...args: [captures?: object]): Subscribed<readonly string[]> {
  const place = room as Room<readonly unknown[]>;
  return useSubscription((options) => place.subscribe(...args, options), [room, JSON.stringify(args)], {
    start: async () => Object.keys(await place.presence(...args)).sort(),
    reduce: (users, { event, data }) => {
      if (event !== "join" && event !== "leave") return users;
      const user = String((data as { readonly user: unknown }).user);
      const others = users.filter((one) => one !== user);
      return event === "leave" ? others : [...others, user].sort();
    },
  });
}

// ------------------------------------------------------------------------------------------------------------ inside

const JOINING: Subscribed<unknown> = { data: undefined, state: "joining", error: undefined };

/** One subscription, as a store for `useSyncExternalStore`. It is open while it has listeners. */
class Store {
  readonly #open: Open<ServerEvent, unknown>;
  readonly #reducer: Reducer<ServerEvent, unknown, unknown>;
  readonly #listeners = new Set<() => void>();
  #closing: AbortController | undefined;
  #current: Subscribed<unknown> = JOINING;

  constructor(open: Open<ServerEvent, unknown>, reducer: Reducer<ServerEvent, unknown, unknown>) {
    this.#open = open;
    this.#reducer = reducer;
  }

  readonly current = (): Subscribed<unknown> => this.#current;
  readonly initial = (): Subscribed<unknown> => JOINING;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (this.#closing === undefined) {
      this.#closing = new AbortController();
      void this.#run(this.#closing.signal);
    }
    return () => {
      this.#listeners.delete(listener);
      queueMicrotask(() => this.#closeUnused()); // StrictMode unmounts and mounts again within one task
    };
  };

  #closeUnused(): void {
    if (this.#listeners.size > 0) return;
    this.#closing?.abort();
    this.#closing = undefined;
    this.#current = { ...this.#current, state: "joining" }; // in case it is mounted again
  }

  #change(signal: AbortSignal, change: Partial<Subscribed<unknown>>): void {
    if (signal.aborted) return;
    this.#current = { ...this.#current, ...change };
    for (const listener of [...this.#listeners]) listener();
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#follow(signal);
        return this.#change(signal, { state: "closed" }); // the client is closed
      } catch (caught) {
        const mayPass = caught instanceof CallTimeout || caught instanceof ConnectionLost;
        this.#change(signal, { state: mayPass ? "joining" : "closed", error: errorOf(caught) });
        if (!mayPass) return;
      }
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const subscription = await this.#open({ signal });
    const stop = subscription.onState((state) => this.#change(signal, { state }));
    try {
      let data = await this.#reducer.start(subscription.snapshot);
      this.#change(signal, { data, state: subscription.state, error: undefined });
      for await (const item of subscription) {
        const isResync = item.event === "$resync";
        data = isResync ? await this.#reducer.start((item as Resync<unknown>).snapshot) : this.#reducer.reduce(data, item as ServerEvent);
        if (data !== this.#current.data) this.#change(signal, { data });
      }
    } finally {
      stop();
      subscription.close();
    }
  }
}

type Row = { readonly [field: string]: unknown };

/** Keeps a list, a page of one, or an object up to date by `created`, `updated` and `deleted`. */
class Rows implements Reducer<ServerEvent, unknown, unknown> {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  start(snapshot: unknown): unknown {
    return snapshot;
  }

  reduce(data: unknown, { event, data: told }: ServerEvent): unknown {
    if (event !== "created" && event !== "updated" && event !== "deleted") return data;
    if (Array.isArray(data)) return this.#rows(data as Row[], event, told as Row | null);
    if (!isPage(data)) return event === "deleted" ? undefined : told;
    const results = this.#rows(data.results, event, told as Row | null);
    const { count } = data;
    const more = event === "updated" ? 0 : event === "created" ? Math.max(results.length - data.results.length, 0) : -1;
    return { ...data, results, ...(typeof count === "number" ? { count: count + more } : {}) };
  }

  #rows(rows: readonly Row[], event: "created" | "updated" | "deleted", told: Row | null): readonly Row[] {
    const field = event === "deleted" ? "pk" : this.#key;
    const pk = told?.[field];
    if (pk === undefined) throw new Error(`${event} has no field ${JSON.stringify(field)}; name it by { key }, or pass a Reducer`);
    if (event === "deleted") return rows.filter((row) => row[this.#key] !== pk);
    const isKnown = rows.some((row) => row[this.#key] === pk);
    if (isKnown) return rows.map((row) => (row[this.#key] === pk ? (told as Row) : row));
    return event === "created" ? [...rows, told as Row] : rows;
  }
}

function isPage(data: unknown): data is { readonly results: readonly Row[]; readonly count?: unknown } {
  return typeof data === "object" && data !== null && "next" in data && "previous" in data && Array.isArray((data as { results?: unknown }).results);
}

function errorOf(caught: unknown): Error {
  return caught instanceof Error ? caught : new Error(String(caught));
}
