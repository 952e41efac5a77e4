/** Live lists: what a route's list holds, kept as it is on the server for as long as somebody looks. */

import type { Resync, ServerEvent, Subscription } from "./client.js";

interface Row {
  readonly id: number;
}
type Change<Item> = ServerEvent<"created", Item> | ServerEvent<"updated", Item> | ServerEvent<"deleted", { pk: number }>;

/**
 * The rows of a list by their ids: its snapshot, and every change after it. A lost connection is the client's affair: it
 * comes back with what was missed, or, where the server cannot say that, with a new snapshot.
 */
export class LiveList<Item extends Row, Other extends ServerEvent = never> {
  readonly rows = new Map<number, Item>();
  readonly #onChange: () => void;
  readonly #onRefused: (error: unknown) => void;
  readonly #onOther: (event: Other) => void;
  #subscription: Subscription<Change<Item> | Other, Item[]> | undefined;
  #isClosed = false;

  /** `changed` is called after each change, `refused` where it ends, `heard` with the events that are no change. */
  constructor(
    onChange: () => void,
    onRefused: (error: unknown) => void,
    onOther: (event: Other) => void = () => undefined,
  ) {
    this.#onChange = onChange;
    this.#onRefused = onRefused;
    this.#onOther = onOther;
  }

  /** Begins, with what subscribes; resolves once the snapshot is there. */
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

  /** Shows a row otherwise than the server has it, until the server says something of it. */
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
