import { Client, NotFound } from "./client.js";

const client = new Client("/ws/", { token: () => sessionStorage.getItem("token") ?? undefined });
const page = await client.cards.list({ query: { page: 1 } });
const card = await client.cards.retrieve({ pk: 1 });
await client.cards.partialUpdate({ pk: card.id }, { data: { title: `${card.title}!` } }, { timeout: 5 });
await client.cards.retrieve({ pk: 404 }).catch((error: unknown) => {
  if (!(error instanceof NotFound)) throw error;
});
for await (const line of client.boards.count({ pk: 7 }, { to: 3 })) console.log(line); // leaving the loop cancels it

const cards = await client.cards.subscribe({ snapshot: true });
let shown = cards.snapshot.results;
for await (const item of cards) {
  if (item.event === "$resync") shown = item.snapshot.results; // something was lost: here is all of it, anew
  else if (item.event === "deleted") shown = shown.filter((one) => one.id !== item.data.pk);
  else console.log(item.event, item.data.title); // each event once and in order
}
