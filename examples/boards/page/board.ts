/** One board: its columns, cards, viewers and members. */

import { PermissionDenied, type Board, type BoardsEvent, type Card, type Column, type Moved, type ServerEvent, type Subscription } from "./client.js";
import { showCard } from "./card.js";
import { announce, avatar, askToConfirm, field, setValue, h, syncChildren, keepFocus, showFault, titleInput, toast, setText } from "./dom.js";
import { draggable } from "./drag.js";
import { LiveList } from "./live.js";
import { showMembers } from "./members.js";
import { attempt, explain, type Session } from "./session.js";

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

const GONE = "This board was deleted, or you are not a member of it.";

/** Shows a board; returns a function that ends it. */
export async function showBoard(view: HTMLElement, session: Session, id: number): Promise<() => void> {
  const page = new BoardPage(view, session, id);
  await page.open();
  return () => page.close();
}

/** The state and actions of a board's page, which its dialogs use too. */
export class BoardPage {
  readonly view: HTMLElement;
  readonly session: Session;
  readonly id: number;
  board: Board | undefined;
  readonly cards: LiveList<Card, ServerEvent<"moved", Moved>>;
  readonly columns: LiveList<Column>;
  readonly watchers = new Set<() => void>(); // dialogs, called after each change
  readonly #title = titleInput(
    "Title of the board",
    () => this.board?.title ?? "",
    (title, input) => attempt(this.client.boards.partialUpdate({ board: this.id }, { data: { title } }), input),
  );
  readonly #titleField = field(this.#title);
  readonly #heading = h("h1", {});
  readonly #people = h("ul", { class: "people", "aria-label": "Looking at this board" });
  readonly #members = h("button", { class: "quiet", onclick: () => showMembers(this) }, "Members");
  readonly #remove = h("button", { class: "quiet danger", onclick: () => this.#delete() }, "Delete board");
  readonly #lists = h("div", { class: "columns" });
  readonly #adding = h(
    "form",
    { class: "column new", onsubmit: (event) => this.#addColumn(event) },
    field(h("input", { name: "title", "aria-label": "Title of a new column", placeholder: "Add a column", maxlength: 120, required: true })),
  );
  #about: Subscription<BoardsEvent, Board> | undefined;
  readonly #elements = new Map<number, HTMLElement>(); // by card id; a card keeps its element when it changes columns
  #isDragging = false; // while a card is dragged
  #isClosed = false;

  constructor(view: HTMLElement, session: Session, id: number) {
    this.view = view;
    this.session = session;
    this.id = id;
    const gone = (error: unknown): void => this.#ended(error);
    this.cards = new LiveList(() => this.#render(), gone, ({ data }) => this.#announceMove(data));
    this.columns = new LiveList(() => this.#render(), gone);
    session.drafts.onChange = (board, added) => this.#draftsChanged(board, added);
  }

  get client(): Session["client"] {
    return this.session.client;
  }

  get isOwner(): boolean {
    return this.board?.owner_id === this.session.user.id;
  }

  async open(): Promise<void> {
    const [at, snapshot] = [{ board: this.id }, { snapshot: true }] as const;
    const boards = this.client.boards;
    this.#lists.addEventListener("keydown", (event) => this.#onKeyDown(event));
    draggable(this.#lists, (isDragging) => this.#setDragging(isDragging), ({ card, list, before }) => {
      const column = Number(list.closest<HTMLElement>(".column")?.dataset["id"]);
      void this.move(Number(card.dataset["id"]), column, before === null ? null : Number(before.dataset["id"]));
    });
    try {
      const [about] = await Promise.all([
        boards.subscribe(at, snapshot),
        this.columns.open(boards.columns.subscribe(at, snapshot)),
        this.cards.open(boards.cards.subscribe(at, snapshot)),
      ]);
      this.#about = about;
      if (this.#isClosed) return void about.close();
      this.#show(about.snapshot);
      void this.#follow(about);
      void this.#loadPresence();
    } catch (error) {
      this.#showGone(explain(error));
    }
  }

  close(): void {
    this.#isClosed = true;
    this.cards.close();
    this.columns.close();
    void this.#about?.close();
  }

  // ---------------------------------------------------------------------------------------------- data
  inOrder(): Column[] {
    return [...this.columns.rows.values()].sort((one, other) => one.id - other.id);
  }

  cardsOf(column: number): Card[] {
    const here = [...this.cards.rows.values()].filter((one) => one.column_id === column);
    return here.sort((one, other) => one.position - other.position || one.id - other.id);
  }

  /** Moves a card before another card of a column, or to its end. The page shows it there at once. */
  async move(id: number, column: number, before: number | null): Promise<void> {
    const card = this.cards.rows.get(id);
    const to = this.columns.rows.get(column);
    if (card === undefined || to === undefined || before === id) return;
    const others = this.cardsOf(column).filter((one) => one.id !== id);
    const at = others.findIndex((one) => one.id === before);
    const below = at < 0 ? undefined : others[at];
    const above = at < 0 ? others.at(-1) : others[at - 1];
    const position = ((above?.position ?? (below?.position ?? 0) - 2) + (below?.position ?? (above?.position ?? 0) + 2)) / 2;
    this.cards.set({ ...card, column_id: column, position });
    announce(`${card.title}: in ${to.title}, ${(at < 0 ? others.length : at) + 1} of ${others.length + 1}`);
    const moved = await attempt(this.client.boards.cards.move({ board: this.id, pk: id }, { data: { column_id: column, before } }));
    if (moved === undefined && this.cards.rows.get(id)?.position === position) this.cards.set(card); // undo
  }

  // ---------------------------------------------------------------------------------------------- events
  async #follow(about: Subscription<BoardsEvent, Board>): Promise<void> {
    try {
      for await (const event of about) {
        if (event.event === "$resync") this.#show(event.snapshot);
        else if (event.event === "updated") this.#show(event.data);
        else if (event.event === "deleted") return this.#showGone(GONE);
        if (event.event === "join" || event.event === "leave" || event.event === "$resync") await this.#loadPresence();
      }
    } catch (error) {
      this.#ended(error);
    }
  }

  /** A subscription ended by an error, such as `PermissionDenied` for a removed member. */
  #ended(error: unknown): void {
    this.#showGone(error instanceof PermissionDenied ? GONE : explain(error));
  }

  /** Shows a message about a move by another user. */
  #announceMove({ by, card_id, column_id }: Moved): void {
    const [card, column] = [this.cards.rows.get(card_id), this.columns.rows.get(column_id)];
    if (by.id === this.session.user.id || card === undefined || column === undefined) return;
    toast(`${by.name} moved “${card.title}” to ${column.title}`, "news");
  }

  /** Loads all viewers again whenever one comes or goes, so that the list is always complete. */
  async #loadPresence(): Promise<void> {
    const here = await attempt(this.client.boards.presence({ board: this.id }));
    if (here === undefined || this.#isClosed) return;
    const people = (this.board?.members ?? []).filter((one) => String(one.id) in here);
    this.#people.replaceChildren(...people.map((one) => h("li", {}, avatar(one))));
  }

  #showGone(reason: string): void {
    if (this.#isClosed) return;
    this.close();
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
    this.view.replaceChildren(
      h("section", { class: "overview" }, h("h1", {}, "No such board"), h("p", { class: "hint" }, reason), h("a", { href: "#/" }, "Your boards")),
    );
  }

  // ---------------------------------------------------------------------------------------------- the page
  #show(board: Board): void {
    const isNew = this.board === undefined;
    this.board = board;
    document.title = `${board.title} · Boards`;
    setValue(this.#title, board.title);
    setText(this.#heading, board.title);
    this.#heading.hidden = this.isOwner;
    this.#titleField.hidden = this.#remove.hidden = !this.isOwner;
    setText(this.#members, `Members (${board.members.length})`);
    if (isNew) {
      const tools = h("div", { class: "tools" }, this.#heading, this.#titleField, h("span", { class: "spacer" }), this.#people, this.#members, this.#remove);
      const hint = h("p", { class: "hint keys" }, "Drag a card, or press ", h("kbd", {}, "Alt"), " and an arrow key while it is focused.");
      this.view.replaceChildren(tools, this.#lists, hint);
    }
    this.#render();
  }

  #setDragging(isDragging: boolean): void {
    this.#isDragging = isDragging;
    if (!isDragging) this.#render();
  }

  #render(): void {
    if (this.#isClosed || this.#isDragging || this.board === undefined) return;
    const change = (): void => {
      syncChildren(this.#lists, this.inOrder(), (column) => this.#makeColumn(column), (element, column) => this.#updateColumn(element, column));
      if (this.#lists.lastElementChild !== this.#adding) this.#lists.append(this.#adding);
    };
    keepFocus(change);
    for (const id of this.#elements.keys()) if (!this.cards.rows.has(id)) this.#elements.delete(id);
    for (const watcher of this.watchers) watcher();
  }

  #makeColumn(column: Column): HTMLElement {
    const at = { board: this.id, pk: column.id };
    const title = titleInput(
      "Title of the column",
      () => this.columns.rows.get(column.id)?.title ?? "",
      (title, input) => attempt(this.client.boards.columns.partialUpdate(at, { data: { title } }), input),
    );
    const card = h("input", { name: "title", "aria-label": `New card in ${column.title}`, placeholder: "Add a card", maxlength: 120, required: true, autocomplete: "off" });
    return h(
      "section",
      { class: "column" },
      h(
        "header",
        {},
        field(title),
        h("span", { class: "count", "aria-hidden": true }),
        h("button", { class: "icon", title: "Delete column", onclick: () => this.#deleteColumn(column.id) }, "×"),
      ),
      h("ol", { class: "cards" }),
      h("ul", { class: "drafts" }),
      h("form", { class: "adding", onsubmit: (event) => this.#addCard(event, column.id, card) }, field(card)),
    );
  }

  #updateColumn(element: HTMLElement, column: Column): void {
    const cards = this.cardsOf(column.id);
    const list = element.querySelector("ol") as HTMLElement;
    element.setAttribute("aria-label", column.title);
    list.setAttribute("aria-label", `Cards in ${column.title}`);
    element.querySelector(".icon")?.setAttribute("aria-label", `Delete column ${column.title}`);
    setValue(element.querySelector(".title") as HTMLInputElement, column.title);
    setText(element.querySelector(".count") as HTMLElement, String(cards.length));
    syncChildren(list, cards, (card) => this.#makeCard(card), updateCard);
    const [waiting, { drafts }] = [element.querySelector("ul") as HTMLElement, this.session];
    waiting.setAttribute("aria-label", `Cards not yet in ${column.title}`);
    syncChildren(waiting, drafts.of(this.id, column.id), (draft) => drafts.make(draft), (item, draft) => drafts.update(item, draft));
  }

  #makeCard({ id }: Card): HTMLElement {
    const known = this.#elements.get(id);
    if (known !== undefined) return known;
    const open = h("button", { "aria-keyshortcuts": "Alt+ArrowLeft Alt+ArrowRight Alt+ArrowUp Alt+ArrowDown", onclick: () => showCard(this, id) });
    const made = h("li", { class: "card" }, open, h("p", {}), h("span", { class: "comments" }));
    this.#elements.set(id, made);
    return made;
  }

  // ---------------------------------------------------------------------------------------------- actions
  #onKeyDown(event: KeyboardEvent): void {
    const [aside, down] = ARROWS[event.key] ?? [0, 0];
    const id = Number((event.target as Element).closest<HTMLElement>(".card")?.dataset["id"]);
    if (!event.altKey || (aside === 0 && down === 0) || !this.cards.rows.has(id)) return;
    event.preventDefault();
    this.step(id, aside, down);
  }

  /** Moves a card by one column, or up or down by one place. */
  step(id: number, aside: number, down: number): void {
    const card = this.cards.rows.get(id) as Card;
    const columns = this.inOrder();
    const column = columns[columns.findIndex((one) => one.id === card.column_id) + aside];
    if (column === undefined) return;
    const here = this.cardsOf(card.column_id);
    const at = here.findIndex((one) => one.id === id);
    if (down !== 0 && here[at + down] === undefined) return;
    const before = aside !== 0 ? this.cardsOf(column.id)[at] : down < 0 ? here[at - 1] : here[at + 2];
    void this.move(id, column.id, before?.id ?? null);
  }

  #addCard(event: Event, column: number, input: HTMLInputElement): void {
    event.preventDefault();
    const title = input.value.trim();
    if (title === "") return showFault(input, "Write a title.");
    input.value = "";
    this.session.drafts.add(this.id, column, title);
  }

  #draftsChanged(board: number, added: Card | undefined): void {
    if (board === this.id && added !== undefined && !this.cards.rows.has(added.id)) this.cards.set(added);
    else this.#render();
  }

  async #addColumn(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const input = this.#adding.elements.namedItem("title") as HTMLInputElement;
    const made = await attempt(this.client.boards.columns.create({ board: this.id }, { data: { title: input.value.trim() } }), input);
    if (made !== undefined) input.value = "";
  }

  async #deleteColumn(id: number): Promise<void> {
    const [title, count] = [this.columns.rows.get(id)?.title ?? "", this.cardsOf(id).length];
    const what = count === 0 ? `Delete the column “${title}”?` : `Delete the column “${title}” and its ${count} card${count === 1 ? "" : "s"}?`;
    if (await askToConfirm(what, "Delete")) await attempt(this.client.boards.columns.destroy({ board: this.id, pk: id }));
  }

  async #delete(): Promise<void> {
    if (!(await askToConfirm(`Delete the board “${this.board?.title ?? ""}” with all its cards, for all its members?`, "Delete board"))) return;
    const done = await attempt(this.client.boards.destroy({ board: this.id }).then(() => true));
    if (done) location.hash = "#/";
  }
}

function updateCard(element: HTMLElement, card: Card): void {
  const [open, notes, comments] = [...element.children] as [HTMLElement, HTMLElement, HTMLElement];
  setText(open, card.title);
  setText(notes, card.notes);
  notes.hidden = card.notes === "";
  setText(comments, card.comment_count === 1 ? "1 comment" : `${card.comment_count} comments`);
  comments.hidden = card.comment_count === 0;
}
