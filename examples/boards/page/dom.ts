/** Elements: made, and kept in step with what they show. */

type Child = Node | string | null | undefined | false;
type Listeners = { [Name in keyof HTMLElementEventMap as `on${Name}`]?: (event: HTMLElementEventMap[Name]) => void };
type Attributes = { readonly [name: string]: string | number | boolean | undefined | ((event: never) => void) } & Listeners;

/** An element: `h("a", { href: "#/", onclick: go }, "Boards")`. Attributes that are false or undefined are left out. */
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

/**
 * An input for a title, which is saved when it was changed; an empty one, and one that `save` has no answer for, is taken
 * back.
 */
export function titleInput(label: string, current: () => string, save: (title: string) => Promise<unknown>): HTMLInputElement {
  const input = h("input", { class: "title", "aria-label": label, maxlength: 120, autocomplete: "off" });
  input.addEventListener("change", async () => {
    const title = input.value.trim();
    if (title === "" || (await save(title)) === undefined) input.value = current();
  });
  return input;
}

/**
 * Makes the first children of an element those of `items`, in their order: what is there stays and is updated, so that
 * what is being typed is kept.
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

/** Runs a change of the page; what has the focus keeps it, though it may be somewhere else afterwards. */
export function keepFocus(change: () => void): void {
  const focused = document.activeElement;
  change();
  if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) focused.focus();
}

/** Changes an element's text, where it is another. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Changes what an input holds, unless somebody is typing there. */
export function setValue(input: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement, value: string): void {
  if (input !== document.activeElement && input.value !== value) input.value = value;
}

/** Says something to those who do not see the page. */
export function announce(text: string): void {
  byId("said").textContent = text;
}

/** Shows a message for a while: what went wrong, or what somebody else did. */
export function toast(text: string, kind: "problem" | "news" = "problem"): void {
  const shown = h("p", { class: kind, role: kind === "news" ? "status" : "alert" }, text);
  const toasts = byId("toasts");
  toasts.append(shown);
  while (toasts.children.length > 3) toasts.firstElementChild?.remove();
  toasts.hidePopover();
  toasts.showPopover(); // above a dialog that is open
  setTimeout(() => shown.remove(), kind === "news" ? 4_000 : 8_000);
}

/** The circle that stands for a person. */
export function avatar(person: { readonly id: number; readonly name: string }): HTMLElement {
  const hue = (person.id * 137 + 200) % 360;
  return h("span", { class: "avatar", style: `--hue: ${hue}`, title: person.name, role: "img", "aria-label": person.name }, person.name.slice(0, 1).toUpperCase());
}

/** Asks a question; true where it is answered with yes. */
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
