/** The dialog of one card: title, notes, place and comments. */

import type { BoardPage } from "./board.js";
import type { BoardsCardsPartialUpdateData, Comment } from "./client.js";
import { avatar, askToConfirm, field, type Field, setValue, h, syncChildren, titleInput, setText } from "./dom.js";
import { LiveList } from "./live.js";
import { attempt } from "./session.js";

/** Opens the dialog. It shows changes of other users, and closes if the card is deleted. */
export function showCard(page: BoardPage, pk: number): void {
  const at = { board: page.id, pk };
  const { client } = page;
  const change = (data: BoardsCardsPartialUpdateData, input: Field): Promise<unknown> => attempt(client.boards.cards.partialUpdate(at, { data }), input);
  const title = titleInput(
    "Title of the card",
    () => page.cards.rows.get(pk)?.title ?? "",
    (title, input) => change({ title }, input),
  );
  const notes = h("textarea", { id: "notes", rows: 4, maxlength: 2000, placeholder: "Notes", onchange: () => void change({ notes: notes.value }, notes) });
  const column = h("select", { id: "column", onchange: () => void page.move(pk, Number(column.value), null) });
  const [up, down] = [
    h("button", { type: "button", class: "quiet", onclick: () => page.step(pk, 0, -1) }, "Move up"),
    h("button", { type: "button", class: "quiet", onclick: () => page.step(pk, 0, 1) }, "Move down"),
  ];
  const comments = h("ul", { class: "said" });
  const text = h("textarea", { name: "text", rows: 2, "aria-label": "New comment", placeholder: "Write a comment", maxlength: 2000, required: true });
  const dialog: HTMLDialogElement = h(
    "dialog",
    { class: "sheet", "aria-label": "Card", onclose: () => close(), onclick: (event) => event.target === dialog && dialog.close() },
    h(
      "div",
      { class: "inside", tabindex: -1, autofocus: true },
      h("header", {}, field(title), h("button", { class: "icon", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
      h("label", { for: "notes" }, "Notes"),
      field(notes),
      h("label", { for: "column" }, "Column"),
      h("div", { class: "row" }, column, up, down),
      h("h2", {}, "Comments"),
      comments,
      h(
        "form",
        { class: "commenting", onsubmit: addComment },
        field(text),
        h("button", { class: "primary" }, "Comment"),
      ),
      h("footer", {}, h("button", { class: "quiet danger", onclick: remove }, "Delete card")),
    ),
  );

  const live: LiveList<Comment> = new LiveList<Comment>(
    () => syncChildren(comments, [...live.rows.values()].sort((one, other) => one.id - other.id), make, (element, one) => setText(element.querySelector("p") as HTMLElement, one.text)),
    () => dialog.close(),
  );
  page.watchers.add(update);
  document.body.append(dialog);
  update();
  dialog.showModal();
  void attempt(live.open(client.boards.cards.comments.subscribe({ board: page.id, card: pk }, { snapshot: true })));

  function update(): void {
    const card = page.cards.rows.get(pk);
    if (card === undefined || !page.columns.rows.has(card.column_id)) return dialog.close();
    setValue(title, card.title);
    setValue(notes, card.notes);
    syncChildren(column, page.inOrder(), (one) => h("option", { value: one.id }), (element, one) => setText(element, one.title));
    column.value = String(card.column_id);
    const here = page.cardsOf(card.column_id);
    up.disabled = here[0]?.id === pk;
    down.disabled = here.at(-1)?.id === pk;
  }

  function close(): void {
    page.watchers.delete(update);
    live.close();
    dialog.remove();
    page.view.querySelector<HTMLElement>(`.card[data-id="${pk}"] button`)?.focus();
  }

  async function addComment(event: Event): Promise<void> {
    event.preventDefault();
    const added = await attempt(client.boards.cards.comments.create({ board: page.id, card: pk }, { data: { text: text.value.trim() } }), text);
    if (added !== undefined) text.value = "";
  }

  async function remove(): Promise<void> {
    if (await askToConfirm(`Delete the card “${page.cards.rows.get(pk)?.title ?? ""}”?`, "Delete")) await attempt(client.boards.cards.destroy(at));
  }

  function make(one: Comment): HTMLElement {
    const own = one.author.id === page.session.user.id;
    const when = new Date(one.written_at * 1000);
    const deleteComment = (): void => void attempt(client.boards.cards.comments.destroy({ board: page.id, card: pk, pk: one.id }));
    return h(
      "li",
      {},
      avatar(one.author),
      h("div", {}, h("b", {}, one.author.name), " ", h("time", { datetime: when.toISOString() }, when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" })), h("p", {})),
      own && h("button", { class: "icon", "aria-label": "Delete this comment", onclick: deleteComment }, "×"),
    );
  }
}
