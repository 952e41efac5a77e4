/** The list of the user's boards. */

import type { Board } from "./client.js";
import { avatar, field, h, syncChildren, toast, setText } from "./dom.js";
import { LiveList } from "./live.js";
import { attempt, explain, type Session } from "./session.js";

/** Shows the list; returns a function that ends it. */
export async function showBoards(view: HTMLElement, { client, user }: Session): Promise<() => void> {
  const list = h("ul", { class: "boards" });
  const none = h("p", { class: "hint" }, "You have no boards yet. Create one, or ask a member of a board to invite you.");
  const title = h("input", { name: "title", "aria-label": "Title of a new board", placeholder: "New board", maxlength: 120, required: true });
  const form = h(
    "form",
    {
      class: "adding",
      onsubmit: async (event) => {
        event.preventDefault();
        const made = await attempt(client.users.boards.create({ user: user.id }, { data: { title: title.value.trim() } }), title);
        if (made !== undefined) location.hash = `#/boards/${made.id}`;
      },
    },
    field(title),
    h("button", { class: "primary" }, "Create"),
  );
  view.replaceChildren(
    h("section", { class: "overview" }, h("h1", {}, "Your boards"), list, none, form, h("p", { class: "hint" }, "Try every action of this page by hand in ", h("a", { href: "docs" }, "the explorer"), ".")),
  );
  document.title = "Boards";

  const live: LiveList<Board> = new LiveList<Board>(
    () => {
      const boards = [...live.rows.values()].sort((one, other) => one.id - other.id);
      none.hidden = boards.length > 0;
      syncChildren(list, boards, make, update);
    },
    (error) => toast(explain(error)),
  );
  none.hidden = true;
  await attempt(live.open(client.users.boards.subscribe({ user: user.id }, { snapshot: true })));
  return () => live.close();

  function make(board: Board): HTMLElement {
    return h("li", {}, h("a", { href: `#/boards/${board.id}` }, h("b", {}), h("span", { class: "people" })));
  }

  function update(element: HTMLElement, board: Board): void {
    setText(element.querySelector("b") as HTMLElement, board.title);
    element.querySelector(".people")?.replaceChildren(...board.members.map(avatar));
  }
}
