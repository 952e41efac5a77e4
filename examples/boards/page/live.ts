/** Live lists: the rows of a route, kept in sync with the server. */

import type { Resync, ServerEvent, Subscription } from "./client.js";

interface Row {
  readonly id: number;
}
type Change<Item> = ServerEvent<"created", Item> | ServerEvent<"updated", Item> | ServerEvent<"deleted", { pk: number }>;

/**
 * The rows of a list by id: its snapshot and every change after it. The client handles a lost connection: it receives the
 * missed events or, if the server no longer has them, a new snapshot.
 */
export class LiveList<Item extends Row, Other extends ServerEvent = never> {
  readonly rows = new Map<number, Item>();
  readonly #onChange: () => void;
  readonly #onRefused: (error: unknown) => void;
  readonly #onOther: (event: Other) => void;
  #subscription: Subscription<Change<Item> | Other, Item[]> | undefined;
  #isClosed = false;

  /** Calls `onChange` after each change, `onRefused` if the server ends it, `onOther` with events other than changes. */
  constructor(
    onChange: () => void,
    onRefused: (error: unknown) => void,
    onOther: (event: Other) => void = () => undefined,
  ) {
    this.#onChange = onChange;
    this.#onRefused = onRefused;
    this.#onOther = onOther;
  }

  /** Starts with a subscription; resolves once the snapshot is loaded. */
  async open(subscribing: Promise<Subscription<Change<Item> | Other, Item[]>>): Promise<void> {
    const subscription = await subscribing;
    this.#subscription = subscription;
    if (this.#isClosed) return void subscription.close();
    this.#load(subscription.snapshot);
    void this.#follow(subscription);
  }

  close(): void {
    this.#isClosed = true;
    void this.#subscription?.close();
  }

  /** Changes a row locally, until the server sends a change of it. */
  set(item: Item): void {
    this.rows.set(item.id, item);
    this.#onChange();
  }

  async #follow(subscription: Subscription<Change<Item> | Other, Item[]>): Promise<void> {
    try {
      for await (const event of subscription) this.#apply(event);
    } catch (error) {
      if (!this.#isClosed) this.#onRefused(error);
    }
  }

  #apply(event: Change<Item> | Other | Resync<Item[]>): void {
    const change = event as Change<Item> | Resync<Item[]>;
    if (change.event === "$resync") return this.#load(change.snapshot);
    else if (change.event === "created" || change.event === "updated") this.rows.set(change.data.id, change.data);
    else if (change.event === "deleted") this.rows.delete(change.data.pk);
    else return this.#onOther(event as Other);
    this.#onChange();
  }

  #load(items: readonly Item[]): void {
    this.rows.clear();
    for (const item of items) this.rows.set(item.id, item);
    this.#onChange();
  }
}
