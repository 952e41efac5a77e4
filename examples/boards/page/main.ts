/** The page: signs in, and shows the list of boards at #/ and one board at #/boards/7. */

import { showBoard } from "./board.js";
import { showBoards } from "./boards.js";
import { askToConfirm, byId, h, toast } from "./dom.js";
import { explain, resume, type Session, signOut } from "./session.js";
import { showSignIn } from "./sign_in.js";

let session: Session | null = null;
let shown = 0; // counts views, so that a view that loads too late is ended at once
let end = (): void => undefined;

async function show(): Promise<void> {
  const turn = ++shown;
  end();
  end = () => undefined;
  if (session === null) return;
  const view = newView();
  const board = /^#\/boards\/(\d+)$/.exec(location.hash);
  const ending = await (board === null ? showBoards(view, session) : showBoard(view, session, Number(board[1])));
  if (turn === shown) end = ending;
  else ending();
}

async function begin(reason = ""): Promise<void> {
  try {
    session = await resume((ended) => leave((reason = ended)));
  } catch (error) {
    toast(explain(error));
  }
  if (session === null) return leave(reason);
  byId("me").replaceChildren(h("span", {}, session.user.name), h("button", { class: "quiet", onclick: () => void askToLeave() }, "Sign out"));
  await show();
}

function leave(reason = ""): void {
  if (session !== null) signOut(session.client);
  session = null;
  void show();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  byId("me").replaceChildren();
  document.title = "Boards";
  showSignIn(newView(), reason, () => void begin());
}

async function askToLeave(): Promise<void> {
  const count = session?.drafts.count ?? 0;
  const what = count === 1 ? "A card is not added yet, and will be lost." : `${count} cards are not added yet, and will be lost.`;
  if (count === 0 || (await askToConfirm(`${what} Sign out?`, "Sign out"))) leave();
}

/** A new, empty view. An earlier view that still loads stays detached from the page. */
function newView(): HTMLElement {
  const view = h("div", { class: "view" });
  byId("view").replaceChildren(view);
  return view;
}

addEventListener("hashchange", () => void show());
addEventListener("beforeunload", (event) => {
  if ((session?.drafts.count ?? 0) > 0) event.preventDefault(); // the browser asks whether to leave
});
void begin();
