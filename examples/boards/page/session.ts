/** Who is signed in, the one client of the page, and what is said of its connection. */

import { ActionError, CallTimeout, Client, ConnectionFailed, ConnectionLost, type Person, type State } from "./client.js";
import { byId, toast, setText } from "./dom.js";

const TOKEN_KEY = "boards.token"; // for this window alone: another one may be somebody else's

export interface Session {
  readonly client: Client;
  readonly user: Person;
}

/** The address of the socket, beside this page. */
const address = (): string => Client.address(new URL(".", document.baseURI).href);

/** Signs in. Throws what `explain` explains. */
export async function signIn(name: string, password: string): Promise<void> {
  const client = new Client(address(), { timeout: 10 });
  try {
    sessionStorage.setItem(TOKEN_KEY, (await client.signIn({ name, password })).token);
  } finally {
    client.close();
  }
}

/** Goes on with the token that is kept; null where there is none. `ended` is told why where it does not hold any more. */
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
    return { client, user: await client.whoami({ timeout: null }) };
  } catch (error) {
    if (error instanceof ConnectionFailed) return null; // which `ended` was told of
    throw error;
  }
}

/** Forgets the token, and ends the connection. */
export function signOut(client: Client): void {
  sessionStorage.removeItem(TOKEN_KEY);
  client.close();
}

/** Says how it stands with the connection. */
function show(state: State): void {
  const shown = byId("state");
  const words = { connecting: "Connecting…", open: "Live", waiting: navigator.onLine ? "Reconnecting…" : "Offline", closed: "Closed" };
  shown.hidden = state === "closed"; // which ends in the form to sign in
  shown.dataset["state"] = state;
  shown.title = state === "open" ? "You see every change at once." : "What you see may be old. Changes are shown once the connection is back.";
  setText(shown, words[state]);
}

/** What went wrong, in words. */
export function explain(error: unknown): string {
  if (error instanceof ActionError) {
    const [first] = error.errors;
    const where = first?.loc?.at(-1);
    return where === undefined || where === "data" ? error.msg : `${String(where)}: ${error.msg}`;
  }
  if (error instanceof ConnectionLost) return "The connection was lost meanwhile. Look whether it was done.";
  if (error instanceof CallTimeout) return navigator.onLine ? "The server does not answer." : "You are offline.";
  if (error instanceof ConnectionFailed) return "There is no connection to the server.";
  return error instanceof Error ? error.message : String(error);
}

/** Runs what may fail, and says so where it does; undefined then. */
export async function attempt<Result>(work: Promise<Result>): Promise<Result | undefined> {
  try {
    return await work;
  } catch (error) {
    toast(explain(error));
    return undefined;
  }
}
