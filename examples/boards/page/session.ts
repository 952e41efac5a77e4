/** The session: the signed-in user, the page's client, and the display of its connection. */

import { ActionError, CallTimeout, Client, ConnectionFailed, ConnectionLost, type Person, type State } from "./client.js";
import { byId, type Field, showFault, toast, setText } from "./dom.js";
import { Drafts } from "./drafts.js";

const TOKEN_KEY = "boards.token"; // in sessionStorage, so that each window may have another user

export interface Session {
  readonly client: Client;
  readonly user: Person;
  readonly drafts: Drafts;
}

/** The URL of the socket, relative to this page. */
const address = (): string => Client.address(new URL(".", document.baseURI).href);

/** Signs in and stores the token. Throws errors for `explain`. */
export async function signIn(name: string, password: string): Promise<void> {
  const client = new Client(address(), { timeout: 10 });
  try {
    sessionStorage.setItem(TOKEN_KEY, (await client.signIn({ name, password })).token);
  } finally {
    client.close();
  }
}

/** Resumes a session with the stored token; null if there is none. Calls `ended` with the reason if it ends later. */
export async function resume(ended: (reason: string) => void): Promise<Session | null> {
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token === null) return null;
  const client: Client = new Client(address(), {
    token,
    timeout: 15,
    longestWait: 5,
    onState(state, cause) {
      show(state);
      if (state === "closed" && cause instanceof ConnectionFailed) {
        signOut(client);
        ended(cause.code === 4401 ? "Please sign in again." : explain(cause));
      }
    },
  });
  show("connecting");
  try {
    return { client, user: await client.whoami({ timeout: null }), drafts: new Drafts(client) };
  } catch (error) {
    if (error instanceof ConnectionFailed) return null; // `ended` has the reason
    throw error;
  }
}

/** Removes the token and closes the connection. */
export function signOut(client: Client): void {
  sessionStorage.removeItem(TOKEN_KEY);
  client.close();
}

/** Shows the state of the connection. */
function show(state: State): void {
  const shown = byId("state");
  const words = { connecting: "Connecting…", open: "Live", waiting: navigator.onLine ? "Reconnecting…" : "Offline", closed: "Closed" };
  shown.hidden = state === "closed"; // the sign-in form follows
  shown.dataset["state"] = state;
  shown.title = state === "open" ? "You see every change at once." : "This page may be out of date until the connection is back.";
  setText(shown, words[state]);
}

/** A message for an error. */
export function explain(error: unknown): string {
  if (error instanceof ActionError) {
    const [first] = error.errors;
    const where = first?.loc?.at(-1);
    return where === undefined || where === "data" ? error.msg : `${String(where)}: ${error.msg}`;
  }
  if (error instanceof ConnectionLost) return "The connection was lost. Please check whether your change was saved.";
  if (error instanceof CallTimeout) return navigator.onLine ? "The server does not answer." : "You are offline.";
  if (error instanceof ConnectionFailed) return "There is no connection to the server.";
  return error instanceof Error ? error.message : String(error);
}

/** Awaits a promise. If it fails, shows the error, below an input if one is given, and resolves to undefined. */
export async function attempt<Result>(work: Promise<Result>, input?: Field): Promise<Result | undefined> {
  if (input !== undefined) showFault(input, "");
  try {
    return await work;
  } catch (error) {
    if (input?.isConnected === true) showFault(input, error instanceof ActionError ? error.msg : explain(error));
    else toast(explain(error));
    return undefined;
  }
}
