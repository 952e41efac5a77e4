// Recovery: a panel that disturbs the page's own connection, and shows how it recovers.

const MAX_NOTES = 50;
const MAX_SECONDS = 600;
const MAX_MILLISECONDS = 60_000;

class RecoveryView {
  constructor(node, socket) {
    this.socket = socket;
    this.waiting = 0;
    this.away = this.numberInput("away", "5", MAX_SECONDS, () => {});
    this.delay = this.numberInput("delay", "0", MAX_MILLISECONDS, (value) => (socket.faults.delay = value));
    this.cut = element("button", { type: "button", onclick: () => socket.cut(numberOf(this.away) ?? 0) }, "Cut the connection");
    this.again = element("button", { type: "button", class: "quiet", onclick: () => socket.connect(socket.url) }, "Reconnect now");
    this.reading = element("button", { type: "button", "aria-pressed": "false", onclick: () => socket.setReading(!socket.faults.isReading) }, "Stop reading");
    this.held = element("span", { class: "faint" });
    this.positions = element("ul", { class: "positions" });
    this.notes = element("ol", { class: "notes", "aria-label": "What happened to the connection", role: "log" });
    node.append(
      element("p", {}, "Disturb this page's connection, and watch it recover: subscribe first, then let others publish meanwhile."),
      this.block("Cut", [
        element("div", { class: "control" }, element("label", { for: "away" }, "Seconds until it connects again"), this.away),
        element("div", { class: "buttons" }, this.cut, this.again),
      ], "Calls in flight and frames on their way are lost, as if the network broke. A page cannot break it for real, though: the browser tells the server that it closes, so the server knows at once."),
      this.block("Delay", [
        element("div", { class: "control" }, element("label", { for: "delay" }, "Milliseconds for each frame, each way"), this.delay),
      ], "The page holds back what it sends and what it receives. Pings and pongs of the WebSocket are the browser's, and are not delayed."),
      this.block("Stop reading", [
        element("div", { class: "buttons" }, this.reading, this.held),
      ], `Frames that arrive wait in this page. A page cannot stop the browser itself: it goes on reading from the network and answers pings, so the server notices nothing. After ${MAX_HELD.toLocaleString("en")} frames the page reads again.`),
      element("h3", {}, "Positions to resume from"), this.positions,
      element("h3", {}, "What happened"), this.notes,
    );
    this.draw();
  }

  block(name, controls, hint) {
    return element("section", { class: "fault", "aria-label": name }, element("h3", {}, name), controls, element("p", { class: "hint" }, hint));
  }

  numberInput(id, value, most, use) {
    const change = () => {
      clearProblems(node.parentElement);
      const number = numberOf(node);
      if (number === null) showProblem(node, `Enter a number from 0 to ${most.toLocaleString("en")}.`);
      else use(number);
      this.show();
    };
    const node = element("input", { id, type: "number", min: "0", max: String(most), value, oninput: change });
    return node;
  }

  /** Draws the state in the next animation frame. */
  show() {
    if (!this.waiting) this.waiting = requestAnimationFrame(() => ((this.waiting = 0), this.draw()));
  }

  draw() {
    const { socket } = this;
    const { isReading, delay } = socket.faults;
    this.cut.disabled = !socket.isOpen || numberOf(this.away) === null;
    this.again.disabled = socket.isOpen || !socket.stayConnected;
    this.reading.textContent = isReading ? "Stop reading" : "Read again";
    this.reading.setAttribute("aria-pressed", String(!isReading));
    this.held.textContent = isReading ? "" : `${socket.held} ${socket.held === 1 ? "frame waits" : "frames wait"}`;
    const rows = [...socket.subscriptions].map(([route, position]) =>
      element("li", {}, element("code", {}, route || "(the empty route)"), " ", element("span", { class: "faint" }, position ? `offset ${position.offset}, epoch ${position.epoch.slice(0, 8)}` : "keeps no history")));
    this.positions.replaceChildren(...(rows.length ? rows : [element("li", { class: "empty" }, "No subscriptions.")]));
    const faults = [isReading ? null : "not reading", delay ? `frames delayed by ${delay} ms` : null].filter(Boolean);
    byId("faults").textContent = `This page disturbs its connection: ${faults.join(", ")}.`;
    byId("faults").hidden = !faults.length;
    if (!this.notes.children.length) this.notes.append(element("li", { class: "empty" }, "Nothing yet."));
  }

  note(text) {
    this.notes.querySelector(".empty")?.remove();
    this.notes.prepend(element("li", {}, element("span", { class: "time" }, new Date().toLocaleTimeString()), " ", text));
    while (this.notes.children.length > MAX_NOTES) this.notes.lastChild.remove();
    this.show();
  }
}

/** The number in an input, within its bounds, or null. */
function numberOf(input) {
  const number = input.valueAsNumber;
  return Number.isFinite(number) && number >= 0 && number <= Number(input.max) ? number : null;
}
