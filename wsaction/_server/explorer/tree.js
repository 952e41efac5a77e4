// Tree: the routes and actions of a connection, and on a phone the drawer that holds them.

const LIVE = ["subscribe", "unsubscribe", "presence"];
const PHONE = matchMedia("(max-width: 700px)");

/** What kind of action it is, to be told apart at a glance: each kind has a word and an icon of its own. */
function kindsOf({ facts }) {
  return [facts.destructive && "destructive", LIVE.includes(facts.action) && "live", facts.streams && "stream"].filter(Boolean);
}

function kindTags(one) {
  return kindsOf(one).map((kind) => element("span", { class: "kind", "data-kind": kind }, kind));
}

class Tree {
  constructor(page) {
    this.page = page;
    byId("filter").addEventListener("input", () => this.draw());
    byId("tree").addEventListener("click", (event) => event.target.closest("a") && this.close());
    for (const node of [byId("tree"), byId("filter")]) node.addEventListener("keydown", (event) => this.moveFocus(event));
    byId("menu").addEventListener("click", () => this.openDrawer());
    byId("drawer-close").addEventListener("click", () => this.close());
    byId("drawer").addEventListener("click", (event) => event.target === byId("drawer") && this.close()); // a tap outside
    byId("drawer").addEventListener("close", () => this.putBack());
    PHONE.addEventListener("change", () => this.close());
  }

  draw() {
    const { contract, channel: name } = this.page;
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const textOf = (one) => `${one.facts.route} ${one.facts.action} ${one.operation.summary ?? ""} ${kindsOf(one).join(" ")}`.toLowerCase();
    const all = this.page.actions.filter((one) => one.channel === name && words.every((word) => textOf(one).includes(word)));
    const own = all.filter((one) => !one.facts.action.startsWith("$"));
    const groups = contract.channels[name]["x-wsaction"].routes.map((route) => [route, own.filter((one) => one.facts.route === route.route)]);
    groups.push([{ route: null }, all.filter((one) => one.facts.action.startsWith("$"))]);
    byId("tree").replaceChildren(...groups.filter(([, actions]) => actions.length).map(([route, actions]) => this.group(route, actions)));
    if (!all.length) byId("tree").append(element("p", { class: "empty" }, "No action matches."));
  }

  group(route, actions) {
    const name = route.route === null ? "Protocol" : route.route || "(the empty route)";
    const subscribe = route.actions?.includes("subscribe") && !route.parameters
      ? element("button", { type: "button", class: "quiet small", onclick: () => this.subscribe(route.route) }, "Subscribe") : null;
    return element(
      "section", {},
      element("h2", { title: route.handler ?? "" }, element("code", {}, name), subscribe),
      element("ul", {}, actions.map((one) => element("li", {}, this.link(one)))),
    );
  }

  link(one) {
    return element(
      "a", { href: `#${one.id}`, title: one.operation.summary ?? "", "aria-current": this.page.form?.one.id === one.id ? "page" : null },
      element("span", {}, one.facts.action), kindTags(one),
    );
  }

  mark(one) {
    for (const link of byId("tree").querySelectorAll("a")) {
      if (link.hash === `#${one.id}`) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest" });
      } else link.removeAttribute("aria-current");
    }
  }

  subscribe(route) {
    this.close();
    this.page.sendAction("subscribe", route);
    this.page.showList();
  }

  /** Moves the focus through the actions by the arrow keys. */
  moveFocus(event) {
    if (!["ArrowDown", "ArrowUp"].includes(event.key)) return;
    const links = [...byId("tree").querySelectorAll("a")];
    const at = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    (links[at] ?? (at < 0 ? byId("filter") : links.at(-1)))?.focus();
  }

  /** Focuses the filter, wherever it is. */
  find() {
    this.openDrawer();
    byId("filter").focus();
  }

  // A modal dialog keeps the focus, closes by Escape and makes the page behind inert. The tree moves into it.
  openDrawer() {
    const drawer = byId("drawer");
    if (drawer.open || !PHONE.matches) return;
    drawer.append(byId("nav"));
    drawer.showModal();
    byId("menu").setAttribute("aria-expanded", "true");
    const current = byId("tree").querySelector("[aria-current]") ?? byId("filter");
    current.focus();
    current.scrollIntoView({ block: "center" });
  }

  close() {
    byId("drawer").close();
  }

  putBack() {
    byId("menu").setAttribute("aria-expanded", "false");
    byId("columns").prepend(byId("nav"));
  }
}
