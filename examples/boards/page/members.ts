/** The dialog with a board's members. Only the owner can invite and remove members. */

import type { BoardPage } from "./board.js";
import type { Person } from "./client.js";
import { avatar, field, h, syncChildren } from "./dom.js";
import { attempt } from "./session.js";

export function showMembers(page: BoardPage): void {
  const list = h("ul", { class: "members" });
  const name = h("input", { name: "name", "aria-label": "Name of a user to invite", placeholder: "Name, such as linus", required: true, autocapitalize: "none" });
  const inviting = h("form", { class: "adding", onsubmit: invite }, field(name), h("button", { class: "primary" }, "Invite"));
  const dialog: HTMLDialogElement = h(
    "dialog",
    { class: "sheet", "aria-label": "Members", onclose: close, onclick: (event) => event.target === dialog && dialog.close() },
    h(
      "div",
      { class: "inside", tabindex: -1, autofocus: true },
      h("header", {}, h("h1", {}, "Members"), h("button", { class: "icon", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
      list,
      page.isOwner ? inviting : h("p", { class: "hint" }, "Only the owner can invite and remove members."),
    ),
  );
  page.watchers.add(update);
  document.body.append(dialog);
  update();
  dialog.showModal();

  function update(): void {
    syncChildren(list, page.board?.members ?? [], make, () => undefined);
  }

  function close(): void {
    page.watchers.delete(update);
    dialog.remove();
  }

  function make(person: Person): HTMLElement {
    const isOwner = person.id === page.board?.owner_id;
    const dismiss = (): void => void attempt(page.client.boards.dismiss({ board: page.id }, { user_id: person.id }));
    return h(
      "li",
      {},
      avatar(person),
      h("span", {}, person.name),
      isOwner ? h("small", {}, "owner") : page.isOwner && h("button", { class: "quiet", "aria-label": `Remove ${person.name}`, onclick: dismiss }, "Remove"),
    );
  }

  async function invite(event: Event): Promise<void> {
    event.preventDefault();
    const invited = await attempt(page.client.boards.invite({ board: page.id }, { name: name.value.trim() }), name);
    if (invited !== undefined) name.value = "";
  }
}
