/** Helpers to create DOM elements and to update them from data. */

type Child = Node | string | null | undefined | false;
type Listeners = { [Name in keyof HTMLElementEventMap as `on${Name}`]?: (event: HTMLElementEventMap[Name]) => void };
type Attributes = { readonly [name: string]: string | number | boolean | undefined | ((event: never) => void) } & Listeners;

/** Creates an element: `h("a", { href: "#/", onclick: go }, "Boards")`. False and undefined attributes are left out. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value as EventListener);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((one): one is Node | string => one !== null && one !== undefined && one !== false));
  return element;
}

/** The element of the page with an id. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** An input that saves a title when it changes. If it is left empty, the old title returns. */
export function titleInput(label: string, current: () => string, save: (title: string, input: HTMLInputElement) => Promise<unknown>): HTMLInputElement {
  const input = h("input", { class: "title", "aria-label": label, maxlength: 120, autocomplete: "off" });
  input.addEventListener("change", async () => {
    const title = input.value.trim();
    if (title === "") input.value = current();
    else await save(title, input);
  });
  return input;
}

export type Field = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

/** An element around an input, with a place for its error. */
export function field(input: Field): HTMLElement {
  return h("div", { class: "field" }, input);
}

/** Shows an error below the input of a `field`, until the user changes the input. An empty text removes it. */
export function showFault(input: Field, text: string): void {
  input.nextElementSibling?.remove();
  input.removeAttribute("aria-invalid");
  input.removeAttribute("aria-describedby");
  if (text === "") return;
  const id = `fault-${++faults}`;
  input.after(h("p", { class: "fault", id, role: "alert" }, text));
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", id);
  input.addEventListener("input", () => showFault(input, ""), { once: true });
}

let faults = 0;

/**
 * Makes the first children of an element those for `items`, in order. Existing children are updated, not replaced, so that
 * text being typed is kept.
 */
export function syncChildren<Item extends { readonly id: number }, Kind extends HTMLElement>(
  parent: HTMLElement,
  items: readonly Item[],
  make: (item: Item) => Kind,
  update: (element: Kind, item: Item) => void,
): void {
  const known = new Map([...parent.querySelectorAll<Kind>(":scope > [data-id]")].map((one) => [one.dataset["id"], one]));
  items.forEach((item, at) => {
    const key = String(item.id);
    const element = known.get(key) ?? make(item);
    known.delete(key);
    element.dataset["id"] = key;
    update(element, item);
    const isNew = element.parentElement !== parent;
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
    if (isNew && matchMedia("(prefers-reduced-motion: no-preference)").matches) {
      element.animate([{ opacity: 0, scale: 0.94 }, { opacity: 1, scale: 1 }], { duration: 160, easing: "ease-out" });
    }
  });
  for (const gone of known.values()) gone.remove();
}

/** Runs a change of the page and restores the focus, which an element loses when it moves. */
export function keepFocus(change: () => void): void {
  const focused = document.activeElement;
  change();
  if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) focused.focus();
}

/** Sets an element's text if it differs. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an input's value, unless the user is typing there or has yet to correct what they typed. */
export function setValue(input: Field, value: string): void {
  if (input !== document.activeElement && !input.hasAttribute("aria-invalid") && input.value !== value) input.value = value;
}

/** Announces a text to screen readers. */
export function announce(text: string): void {
  byId("said").textContent = text;
}

/** Shows a message for a few seconds: an error, or what another user did. */
export function toast(text: string, kind: "problem" | "news" = "problem"): void {
  const shown = h("p", { class: kind, role: kind === "news" ? "status" : "alert" }, text);
  const toasts = byId("toasts");
  toasts.append(shown);
  while (toasts.children.length > 3) toasts.firstElementChild?.remove();
  toasts.hidePopover();
  toasts.showPopover(); // again, so that it is above an open dialog
  setTimeout(() => shown.remove(), kind === "news" ? 4_000 : 8_000);
}

/** The circle with a person's initial. */
export function avatar(person: { readonly id: number; readonly name: string }): HTMLElement {
  const hue = (person.id * 137 + 200) % 360;
  return h("span", { class: "avatar", style: `--hue: ${hue}`, title: person.name, role: "img", "aria-label": person.name }, person.name.slice(0, 1).toUpperCase());
}

/** Asks a question in a dialog. Resolves to true if the user confirms. */
export function askToConfirm(question: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "ask", "aria-label": question, onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) },
      h(
        "form",
        { method: "dialog" },
        h("p", {}, question),
        h("div", { class: "buttons" }, h("button", { value: "no", class: "quiet" }, "Cancel"), h("button", { value: "yes", class: "danger" }, yes)),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
