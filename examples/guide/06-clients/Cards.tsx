import { useState } from "react";
import { Client } from "./client";
import { useAction, useConnection, useSubscription } from "./client.react";

const client = new Client("/ws/");

export function Cards() {
  const { state, cause } = useConnection(client);
  const { data, error } = useSubscription((options) => client.cards.subscribe({ ...options, snapshot: true }), []);
  const create = useAction(client.cards.create);
  const [title, setTitle] = useState("");

  async function add(): Promise<void> {
    const outcome = await create.run({ data: { title } });
    if (outcome.error === undefined) setTitle("");
  }

  if (error !== undefined) return <p role="alert">{error.message}</p>;
  return (
    <>
      <p>{state === "open" ? "" : `${state} ${cause?.message ?? ""}`}</p>
      <ul>{data?.results.map((card) => <li key={card.id}>{card.title}</li>)}</ul>
      <input value={title} onChange={(event) => setTitle(event.target.value)} />
      <button onClick={() => void add()} disabled={create.pending}>Add</button>
      <p role="alert">{create.error?.message}</p>
    </>
  );
}
