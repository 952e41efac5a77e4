// A page in StrictMode, for tests/slow/test_react.py: what the components show, and the frames that the page sends.
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { Client } from "./client";
import type { Card, ServerEvent } from "./client";
import { useAction, useConnection, usePresence, useSubscription } from "./client.react";

const sent: unknown[] = [];
const logged: string[] = [];

const sockets: WebSocket[] = [];

class Recording extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    sockets.push(this);
  }

  override send(text: string): void {
    sent.push(JSON.parse(text));
    super.send(text);
  }
}

const options = { firstWait: 0.01, longestWait: 0.02, log: (message: string, cause: unknown) => logged.push(`${message}: ${String(cause)}`) };
const client = new Client("/ws/", { ...options, WebSocket: Recording });
const other = new Client("/ws/", options); // another user

const shows: { [name: string]: (isShown: boolean) => void } = {};
Object.assign(globalThis, { sent, sockets, logged, client, other, shows });

/** A component that the test shows and hides, at first hidden or shown. */
function Toggled({ name, isShown, children }: { name: string; isShown: boolean; children: React.ReactNode }) {
  const [shown, show] = useState(isShown);
  useEffect(() => void (shows[name] = show), [name]);
  return shown ? children : null;
}

function List({ id }: { id: string }) {
  const { data, state, error } = useSubscription((options) => client.cards.subscribe({ ...options, snapshot: true }), []);
  const titles: string[] = data?.results.map((card: Card) => card.title) ?? [];
  return <p id={id}>{`${state} ${titles.join(",")} ${data?.count ?? ""} ${error?.name ?? ""}`}</p>;
}

function One({ id, pk }: { id: string; pk: number }) {
  const { data, state, error } = useSubscription((options) => client.cards.subscribe({ pk }, { ...options, snapshot: true }), [pk]);
  return <p id={id}>{`${state} ${data?.title ?? "none"} ${error?.name ?? ""}`}</p>;
}

/** What a user writes without the hooks. */
function Effect() {
  const [titles, setTitles] = useState<readonly string[]>([]);
  useEffect(() => {
    const closing = new AbortController();
    const follow = async (): Promise<void> => {
      const cards = await client.cards.subscribe({ snapshot: true, signal: closing.signal });
      setTitles(cards.snapshot.results.map((card) => card.title));
      for await (const item of cards) if (item.event === "created") setTitles((before) => [...before, item.data.title]);
    };
    follow().catch((error: Error) => error.name === "AbortError" || logged.push(String(error)));
    return () => closing.abort();
  }, []);
  return <p id="effect">{titles.join(",")}</p>;
}

function Status() {
  const { state, cause } = useConnection(client);
  return <p id="status">{`${state} ${cause?.name ?? ""}`}</p>;
}

function Add() {
  const create = useAction(client.cards.create);
  const [told, tell] = useState("");
  const add = async (title: unknown): Promise<void> => {
    const { data, error } = await create.run({ data: { title: title as string } });
    tell(error === undefined ? `made ${data.title}` : `failed ${error.name}`);
  };
  return (
    <>
      <button id="add" onClick={() => void add("new")} />
      <button id="add-wrong" onClick={() => void add(7)} />
      <p id="added">{`${create.pending} ${create.error?.name ?? ""} ${told}`}</p>
    </>
  );
}

function Room({ pk }: { pk: number }) {
  const { data: users = [], state } = usePresence(client.rooms, { pk });
  const said = useSubscription((options) => client.rooms.subscribe({ pk }, options), [pk], {
    start: async () => [await client.rooms.topic({ pk })],
    reduce: (lines, event) => (event.event === "said" ? [...lines, event.data] : lines),
  });
  const lines: string[] = said.data ?? [];
  return <p id="room">{`${state} ${users.length} ${lines.join(",")}`}</p>;
}

/** The objects have no field "id". */
function Wrong() {
  const { state, error } = useSubscription((options) => client.cards.subscribe({ ...options, snapshot: true }), [], { key: "slug" });
  return <p id="wrong">{`${state} ${error?.message ?? ""}`}</p>;
}

function Refused() {
  const { state, error } = useSubscription((options) => client.$subscribe("nowhere/", options), [], {
    start: () => 0,
    reduce: (count: number, _event: ServerEvent) => count + 1,
  });
  return <p id="refused">{`${state} ${error?.name ?? ""}`}</p>;
}

createRoot(document.body.appendChild(document.createElement("main"))).render(
  <StrictMode>
    <Toggled name="first" isShown={true}><List id="first" /></Toggled>
    <Toggled name="second" isShown={true}><List id="second" /></Toggled>
    <Toggled name="one" isShown={false}><One id="one" pk={1} /></Toggled>
    <Toggled name="effect" isShown={false}><Effect /></Toggled>
    <Toggled name="room" isShown={false}><Room pk={7} /></Toggled>
    <Toggled name="wrong" isShown={false}><Wrong /></Toggled>
    <Toggled name="refused" isShown={false}><Refused /></Toggled>
    <Status />
    <Add />
  </StrictMode>,
);
