/** Dragging cards by mouse, pen or finger. A drag starts with a press and a move; by finger, with a long press. */

import { h } from "./dom.js";

const DRAG_DISTANCE = 6; // pixels of movement that start a drag
const LONG_PRESS = 320; // milliseconds of touch that start a drag
const SCROLL_EDGE = 48; // pixels from the window's edge where the board scrolls

/** Where a card was dropped: in a list, before another card or at the end. */
export interface Drop {
  readonly card: HTMLElement;
  readonly list: HTMLElement;
  readonly before: HTMLElement | null;
}

/** Makes the cards of a board draggable between its lists. Calls `onDragging` when a drag starts and ends. */
export function draggable(board: HTMLElement, onDragging: (isDragging: boolean) => void, drop: (drop: Drop) => void): void {
  board.addEventListener("pointerdown", (down) => {
    const card = (down.target as Element).closest<HTMLElement>(".card");
    if (card === null || down.button !== 0) return;
    new Drag(board, card, down, onDragging, drop);
  });
}

class Drag {
  readonly #board: HTMLElement;
  readonly #card: HTMLElement;
  readonly #down: PointerEvent;
  readonly #onDragging: (isDragging: boolean) => void;
  readonly #drop: (drop: Drop) => void;
  readonly #ends = new AbortController();
  readonly #gap = h("li", { class: "gap", "aria-hidden": true });
  readonly #offset: { readonly x: number; readonly y: number };
  #ghost: HTMLElement | undefined; // the copy that follows the pointer during a drag
  #timer: number | undefined;

  constructor(
    board: HTMLElement,
    card: HTMLElement,
    down: PointerEvent,
    onDragging: (isDragging: boolean) => void,
    drop: (drop: Drop) => void,
  ) {
    this.#board = board;
    this.#card = card;
    this.#down = down;
    this.#onDragging = onDragging;
    this.#drop = drop;
    const box = card.getBoundingClientRect();
    this.#offset = { x: down.clientX - box.left, y: down.clientY - box.top };
    const until = { signal: this.#ends.signal };
    addEventListener("pointermove", (event) => this.#move(event), until);
    addEventListener("pointerup", () => this.#end(true), until);
    addEventListener("pointercancel", () => this.#end(false), until);
    addEventListener("keydown", (event) => event.key === "Escape" && this.#end(false), until);
    board.addEventListener("touchmove", (event) => this.#ghost !== undefined && event.preventDefault(), { ...until, passive: false });
    board.addEventListener("contextmenu", (event) => this.#ghost !== undefined && event.preventDefault(), until);
    if (down.pointerType === "touch") this.#timer = setTimeout(() => this.#begin(down), LONG_PRESS);
  }

  #begin(at: PointerEvent): void {
    const { width, height } = this.#card.getBoundingClientRect();
    const ghost = this.#card.cloneNode(true) as HTMLElement;
    ghost.classList.add("ghost");
    ghost.removeAttribute("data-id");
    ghost.style.width = `${width}px`;
    this.#gap.style.height = `${height}px`;
    this.#card.after(this.#gap);
    this.#card.hidden = true;
    document.body.append(ghost);
    this.#ghost = ghost;
    this.#onDragging(true);
    this.#follow(at);
  }

  #move(event: PointerEvent): void {
    const far = Math.hypot(event.clientX - this.#down.clientX, event.clientY - this.#down.clientY) > DRAG_DISTANCE;
    if (this.#ghost !== undefined) this.#follow(event);
    else if (far && this.#timer !== undefined) this.#end(false); // the finger scrolls
    else if (far) this.#begin(event);
  }

  #follow(event: PointerEvent): void {
    const ghost = this.#ghost as HTMLElement;
    ghost.style.translate = `${event.clientX - this.#offset.x}px ${event.clientY - this.#offset.y}px`;
    const side = event.clientX > innerWidth - SCROLL_EDGE ? 1 : event.clientX < SCROLL_EDGE ? -1 : 0;
    if (side !== 0) this.#board.scrollBy({ left: side * 16 });
    const list = this.#listAt(event.clientX);
    if (list === null) return;
    const cards = [...list.querySelectorAll<HTMLElement>(".card:not([hidden])")];
    const below = cards.find((one) => {
      const box = one.getBoundingClientRect();
      return event.clientY < box.top + box.height / 2;
    });
    list.insertBefore(this.#gap, below ?? null);
  }

  /** The list nearest to a horizontal position. */
  #listAt(x: number): HTMLElement | null {
    const lists = [...this.#board.querySelectorAll<HTMLElement>(".cards")];
    const away = (one: HTMLElement): number => {
      const { left, right } = one.getBoundingClientRect();
      return Math.max(left - x, x - right, 0);
    };
    return lists.sort((one, other) => away(one) - away(other))[0] ?? null;
  }

  #end(isDropped: boolean): void {
    this.#ends.abort();
    clearTimeout(this.#timer);
    if (this.#ghost === undefined) return;
    const swallow = (click: Event): void => click.stopPropagation(); // the click at the end of a drag must not open the card
    addEventListener("click", swallow, { capture: true });
    setTimeout(() => removeEventListener("click", swallow, { capture: true }));
    let before = this.#gap.nextElementSibling as HTMLElement | null;
    if (before === this.#card) before = before.nextElementSibling as HTMLElement | null;
    const list = this.#gap.parentElement as HTMLElement;
    this.#ghost.remove();
    this.#gap.remove();
    this.#card.hidden = false;
    const stays = list === this.#card.parentElement && before === this.#card.nextElementSibling;
    if (isDropped && !stays) this.#drop({ card: this.#card, list, before });
    this.#onDragging(false);
  }
}
