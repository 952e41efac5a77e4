// Views: the list of calls with their replies, and the log of events.

const MAX_EVENTS = 500;
const MAX_ROWS = 200;
const MAX_SHOWN_ITEMS = 50;

const MEANINGS = { running: "running", lost: "connection lost", sent: "sent" };

/** The list of calls, newest first. */
class CallsView {
  constructor(node, { load, cancel, signIn }) {
    Object.assign(this, { node, load, cancel, signIn, rows: new Map(), changed: new Set(), current: null });
    this.empty = element("p", { class: "empty" }, "Your calls and their replies appear here.");
    node.append(this.empty);
  }

  /** Draws a new or changed call in the next animation frame. */
  show(call) {
    if (!this.changed.size) requestAnimationFrame(() => this.draw());
    this.changed.add(call);
  }

  draw() {
    for (const call of this.changed) this.drawCall(call);
    this.changed.clear();
  }

  /** Names the call whose reply answers what the form says now. All others are marked as old once they have ended. */
  setCurrent(call) {
    if (call === this.current) return;
    this.current = call;
    for (const one of this.rows.keys()) this.show(one);
  }

  drawCall(call) {
    const row = this.rows.get(call) ?? this.rowFor(call);
    const isOld = Boolean(call.isFromForm) && call !== this.current && call.status !== "running";
    row.classList.toggle("old", isOld);
    row.parts.summary.replaceChildren(...this.summary(call, isOld));
    this.addItems(row.parts, call);
    if (row.parts.shown === call.status) return; // a button must not move while it is clicked
    row.parts.shown = call.status;
    row.dataset.status = typeof call.status === "number" ? String(call.status)[0] : call.status;
    row.parts.answer.replaceChildren(...this.answer(call));
    row.parts.buttons.replaceChildren(...this.buttons(call));
    row.parts.frames.replaceChildren(asCode(call.frame), ...(call.reply ? [asCode(call.reply)] : []));
  }

  rowFor(call) {
    this.empty.remove();
    for (const other of this.rows.values()) other.open = false;
    const parts = {
      summary: element("summary"),
      answer: element("div", { class: "answer" }),
      items: element("ol", { class: "stream", "aria-label": "Items of the stream" }),
      buttons: element("div", { class: "buttons" }),
      frames: element("div"),
      drawn: 0,
    };
    const raw = element("details", { class: "raw" }, element("summary", {}, "Frames"), parts.frames);
    const row = element("details", { class: "call", open: true }, parts.summary, element("div", { class: "body" }, parts.answer, parts.buttons, parts.items, raw));
    row.parts = parts;
    this.rows.set(call, row);
    this.node.prepend(row);
    for (const [old, one] of this.rows) if (old.dropped) (one.remove(), this.rows.delete(old));
    return row;
  }

  summary(call, isOld) {
    const time = call.ms === undefined ? "" : call.ms < 10 ? `${call.ms.toFixed(1)} ms` : `${Math.round(call.ms)} ms`;
    const parts = [
      element("span", { class: "status" }, MEANINGS[call.status] ?? String(call.status)),
      element("span", { class: "what" }, element("b", {}, call.frame.action ?? "?"), " ", element("span", { class: "faint" }, call.frame.route ?? "")),
      element("span", { class: "time" }, time || call.sentAt.toLocaleTimeString()),
    ];
    if (isOld) parts.splice(2, 0, element("span", { class: "tag old", title: "The form says something else now." }, "old"));
    if (call.count) parts.splice(2, 0, element("span", { class: "faint" }, `${call.count} items`));
    return parts;
  }

  answer(call) {
    if (!call.reply) return [];
    if (call.reply.errors?.length) return call.reply.errors.map((error) => errorLine(error));
    return call.count ? [] : [asCode(call.reply.data)];
  }

  /** Adds the new items of a stream. Keeps the newest, and scrolls to them if the list was at its end. */
  addItems(parts, call) {
    const { items } = parts;
    const added = Math.min(call.count - parts.drawn, call.items.length, MAX_SHOWN_ITEMS);
    if (added <= 0) return;
    parts.drawn = call.count;
    const atEnd = items.scrollHeight - items.scrollTop - items.clientHeight < 40;
    for (const item of call.items.slice(-added)) items.append(element("li", {}, asCode(item)));
    while (items.children.length > MAX_SHOWN_ITEMS) items.firstChild.remove();
    if (atEnd) items.scrollTop = items.scrollHeight;
  }

  buttons(call) {
    const quiet = (text, onclick) => element("button", { type: "button", class: "quiet", onclick }, text);
    const buttons = [quiet("Edit and send again", () => this.load(call))];
    if (call.status === "running") buttons.unshift(element("button", { type: "button", class: "cancel", onclick: () => this.cancel(call) }, "Cancel"));
    if (this.signIn.offered(call)) buttons.unshift(this.tokenButton(call));
    if (call.reply) buttons.push(quiet("Copy reply", () => copy(JSON.stringify(call.reply, null, 2), "the reply")));
    return buttons;
  }

  tokenButton(call) {
    return element("button", { type: "button", class: "token", onclick: () => this.signIn.useToken(this.signIn.offered(call)) }, "Sign in with this token");
  }
}

function errorLine(error) {
  return element(
    "div", { class: "error" },
    element("b", {}, error.type ?? "error"), " ",
    error.loc?.length ? element("code", {}, error.loc.join(" › ")) : null,
    element("p", {}, error.msg ?? ""),
    error.ctx && Object.keys(error.ctx).length ? asCode(error.ctx) : null,
  );
}

/** The log of events, with a filter, a pause and a clear button. */
class EventsView {
  constructor(node, { seen, unsubscribe }) {
    Object.assign(this, { node, seen, unsubscribe, entries: [], frozen: null, missed: 0, waiting: 0 });
    this.filter = element("input", { type: "search", placeholder: "Filter events", "aria-label": "Filter events", oninput: () => this.draw() });
    this.pause = element("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => this.toggle() }, "Pause");
    const clear = element("button", { type: "button", class: "quiet", onclick: () => this.clear() }, "Clear");
    this.topics = element("ul", { class: "topics", "aria-label": "Subscriptions" });
    this.list = element("ol", { class: "events", reversed: true });
    node.append(element("div", { class: "bar" }, this.filter, this.pause, clear), this.topics, this.list);
    this.draw();
  }

  add(message) {
    const entry = { message, text: JSON.stringify(message).toLowerCase() };
    entry.node = eventRow(message, new Date());
    this.entries.unshift(entry);
    this.entries.splice(MAX_EVENTS);
    this.seen();
    if (this.frozen) this.missed += 1;
    if (!this.waiting) this.waiting = requestAnimationFrame(() => ((this.waiting = 0), this.draw()));
  }

  toggle() {
    this.frozen = this.frozen ? null : [...this.entries];
    this.missed = 0;
    this.draw();
  }

  clear() {
    this.entries = [];
    if (this.frozen) this.toggle();
    this.draw();
  }

  subscribed(routes) {
    this.topics.replaceChildren(
      ...routes.map((route) =>
        element("li", {}, route || "(the empty route)", " ", element("button", { type: "button", class: "quiet icon", "aria-label": `Unsubscribe from ${route}`, onclick: () => this.unsubscribe(route) }, "×")),
      ),
    );
  }

  draw() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const entries = this.frozen ?? this.entries;
    const shown = entries.filter((one) => words.every((word) => one.text.includes(word)));
    const emptyText = entries.length ? "No event matches the filter." : "Events of your subscriptions and events that the server pushes appear here.";
    this.pause.textContent = this.frozen ? (this.missed ? `Resume (${this.missed} new)` : "Resume") : "Pause";
    this.pause.setAttribute("aria-pressed", String(this.frozen !== null));
    this.list.replaceChildren(...shown.slice(0, MAX_ROWS).map((one) => one.node));
    if (!shown.length) this.list.append(element("li", { class: "empty" }, emptyText));
  }
}

function eventRow({ event, route, data, offset, ours }, at) {
  const line = JSON.stringify(data) ?? "";
  return element(
    "li", { class: ours ? "ours" : "" },
    element(
      "details", {},
      element(
        "summary", {},
        element("b", {}, event), " ", element("span", { class: "faint" }, route), " ",
        element("code", { class: "line" }, line.slice(0, 200)),
        element("span", { class: "time" }, `${offset === undefined ? "" : `#${offset} `}${at.toLocaleTimeString()}`),
      ),
      asCode(data ?? null),
    ),
  );
}
