import { ActionError, Client, ConnectionFailed, ConnectionLost } from "./client";

export async function titles(token: () => Promise<string>): Promise<string[]> {
  const client = new Client("wss://example.com/ws/", { token });
  const stop = client.onState((state, cause) => console.log(state, cause));
  try {
    const page = await client.cards.list({ query: { page: 1 } }); // an unknown query parameter is a type error
    const card = await client.cards.create({ data: { title: "Try the client" } });
    await client.cards.partialUpdate({ pk: card.id }, { data: { done: true } });
    return page.results.map((one) => one.title);
  } catch (error) {
    if (error instanceof ActionError) console.log(error.status, error.type, error.errors); // the server's answer
    else if (error instanceof ConnectionLost) console.log("the action may have run");
    else if (error instanceof ConnectionFailed) console.log("refused", error.code);
    throw error;
  } finally {
    stop();
    client.close();
  }
}
