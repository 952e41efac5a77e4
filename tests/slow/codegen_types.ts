// Lines that the compiler must refuse, and lines that it must accept. tests/slow/test_codegen_node.py compiles them.
import { Client } from "./boards.js";
import type { BoardsEvent, Card, CardsCreateData, PageReplyCard, Position, Resync, ServerEvent, Stream, Subscription } from "./boards.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function is<_T extends true>(): void {}

export async function types(client: Client, saved: Position | undefined): Promise<void> {
  // @ts-expect-error a parameter of the wrong type
  await client.boards.move({ pk: 7 }, { data: { card: "3" } });
  // @ts-expect-error a parameter that does not exist
  await client.boards.count({ pk: 7 }, { to: 3, from: 1 });
  // @ts-expect-error a missing parameter
  await client.boards.count({ pk: 7 }, {});
  // @ts-expect-error a capture of the wrong type
  await client.cards.retrieve({ pk: "7" });
  // @ts-expect-error a missing capture
  await client.cards.retrieve();
  // @ts-expect-error a route that does not exist
  await client.columns.list();
  // @ts-expect-error an action that the route does not have
  await client.boards.list();
  // @ts-expect-error a read-only field in a request
  await client.cards.create({ data: { id: 1, title: "one" } });
  // @ts-expect-error a write-only field in a reply
  (await client.cards.retrieve({ pk: 1 })).note;
  // @ts-expect-error a snapshot that was not requested
  (await client.cards.subscribe()).snapshot.results;
  // @ts-expect-error an event that is not declared
  const event: BoardsEvent = { event: "removed", route: "", data: { card: 1, to: "" } };
  // @ts-expect-error a query parameter that the list does not take
  await client.cards.list({ query: { pages: 2 } });
  // @ts-expect-error a query parameter that the snapshot's list does not have
  await client.cards.subscribe({ snapshot: true, query: { page: 1, pages: 2 } });
  // @ts-expect-error a subscribe option that does not exist
  await client.cards.subscribe({ snapshots: true });
  // @ts-expect-error the same for $subscribe
  await client.$subscribe("cards/", { snapshots: true });
  // @ts-expect-error a client option that does not exist
  new Client("ws://127.0.0.1/", { retries: 3 });

  const created: CardsCreateData = { title: "one" };
  is<Same<Awaited<ReturnType<typeof client.cards.create>>, Card>>();
  is<Same<Awaited<ReturnType<typeof client.cards.destroy>>, null>>();
  is<Same<ReturnType<typeof client.boards.count>, Stream<string>>>();
  is<Same<ReturnType<typeof client.whisper>, Promise<void>>>();
  await client.cards.create({ data: created }, { timeout: null });
  await client.hello();
  const list = await client.cards.subscribe({ snapshot: true });
  is<Same<typeof list.snapshot, PageReplyCard>>();
  const again = await client.cards.subscribe({ pk: 1 }, { snapshot: true, since: saved });
  is<Same<typeof again.snapshot, Card | undefined>>();
  for await (const item of again) {
    if (item.event === "$resync") is<Same<typeof item.snapshot, Card>>();
    else if (item.event === "deleted") is<Same<typeof item.data.pk, number>>();
    else is<Same<typeof item.data, Card>>();
  }
  const more = await client.cards.subscribe({ pk: 1 }, { snapshot: true, since: again.position });
  is<Same<typeof more.snapshot, Card | undefined>>();
  const plain = await client.boards.subscribe({ pk: 1 });
  is<Same<typeof plain, Subscription<BoardsEvent, undefined, undefined>>>();
  for await (const item of client.$events()) is<Same<typeof item, ServerEvent | Resync>>();
  void event;
}
