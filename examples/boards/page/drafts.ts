/** Cards that are being sent, or that could not be added. A session keeps them, whichever board it shows. */

import { NotFound, type Card, type Client } from "./client.js";
import { h, setText, toast } from "./dom.js";
import { explain } from "./session.js";

const DELAY = 150; // milliseconds until a card is shown as being sent; most are added before

export interface Draft {
  readonly id: number;
  readonly board: number;
  readonly column: number;
  readonly title: string;
  readonly withdrawal: AbortController;
  error: string; // why it was not added; empty while it is being sent
}

export class Drafts {
  /** Called after each change of a board's drafts, with the card that was added, if one was. */
  onChange: (board: number, added?: Card) => void = () => undefined;
  readonly #client: Client;
  readonly #unsent = new Set<Draft>();
  readonly #shown = new Set<Draft>();
  #last = 0;

  constructor(client: Client) {
    this.#client = client;
  }

  /** How many cards are not added yet. */
  get count(): number {
    return this.#unsent.size;
  }

  /** The drafts to show in a column. */
  of(board: number, column: number): Draft[] {
    return [...this.#shown].filter((one) => one.board === board && one.column === column);
  }

  add(board: number, column: number, title: string): void {
    const draft = { id: ++this.#last, board, column, title, withdrawal: new AbortController(), error: "" };
    this.#unsent.add(draft);
    void this.send(draft);
  }

  /** Sends a card, or sends it again. If there is no connection, it waits for one. */
  async send(draft: Draft): Promise<void> {
    const { board, column, title } = draft;
    draft.error = "";
    const isSlow = setTimeout(() => this.#show(draft), DELAY);
    try {
      const data = { column_id: column, title };
      const added = await this.#client.boards.cards.create({ board }, { data }, { timeout: null, signal: draft.withdrawal.signal });
      this.#remove(draft, added);
    } catch (error) {
      if (draft.withdrawal.signal.aborted) return;
      draft.error = explain(error);
      if (!(error instanceof NotFound)) return this.#show(draft);
      toast(`“${title}” was not added. ${draft.error}`); // its board or column is gone, and with it the place to show it
      this.#remove(draft);
    } finally {
      clearTimeout(isSlow);
    }
  }

  /** Gives a card up. If it is being sent, the server cancels the action. */
  discard(draft: Draft): void {
    draft.withdrawal.abort();
    this.#remove(draft);
  }

  /** The element that shows a draft. */
  make(draft: Draft): HTMLElement {
    const again = h("button", { class: "quiet", "aria-label": `Try again to add ${draft.title}`, onclick: () => this.#again(draft) }, "Try again");
    const discard = h("button", { class: "quiet", "aria-label": `Discard ${draft.title}`, onclick: () => this.discard(draft) }, "Discard");
    const state = h("p", { role: "status" });
    return h("li", { class: "draft" }, h("p", {}, draft.title), state, h("div", { class: "row" }, again, discard));
  }

  update(element: HTMLElement, { error }: Draft): void {
    const state = element.children[1] as HTMLElement;
    state.className = error === "" ? "hint" : "fault";
    setText(state, error === "" ? "Being sent…" : error);
    (element.querySelector("button") as HTMLButtonElement).hidden = error === "";
  }

  #again(draft: Draft): void {
    void this.send(draft);
    this.onChange(draft.board);
  }

  #show(draft: Draft): void {
    this.#shown.add(draft);
    this.onChange(draft.board);
  }

  #remove(draft: Draft, added?: Card): void {
    this.#unsent.delete(draft);
    this.#shown.delete(draft);
    this.onChange(draft.board, added);
  }
}
