// Socket: one connection with its calls and subscriptions. It reconnects automatically.
// It calls its owner's `state(name, text)`, `changed(call)`, `event(message)`, `subscribed()`, `closed(code, reason)`,
// and `note(text)` for what happens to the connection.

const MAX_CALLS = 100;
const MAX_ITEMS = 200; // kept of a stream
const FIRST_DELAY = 500; // milliseconds
const MAX_DELAY = 30_000;
const PING_INTERVAL = 60_000; // keeps the server from closing the connection as idle
const PASSING_STATUSES = [408, 425, 429];

/** Whether a close code is final, so that the client must not reconnect: the rule of wsaction/_protocol/close_codes.py. */
function refuses(code) {
  return code === 1008 || (code >= 4400 && code < 4500 && !PASSING_STATUSES.includes(code - 4000));
}

class Socket {
  constructor(owner) {
    this.owner = owner;
    this.calls = []; // newest first
    this.subscriptions = new Map(); // route to the position to resume from
    this.credential = null; // {way: "bearer" | "frame", value}; in memory only
    this.url = null;
    this.stayConnected = false;
    this.attempt = 0;
    this.number = 0;
    this.pending = new Map();
    this.internal = new Map(); // request_id to callback, for the explorer's own frames
    this.faults = new Faults();
    this.link = null;
    addEventListener("online", () => this.stayConnected && !this.isOpen && this.open());
  }

  get isOpen() {
    return this.link?.socket.readyState === WebSocket.OPEN;
  }

  /** Connects to an address, and reconnects until `disconnect()`. */
  connect(url) {
    if (url !== this.url) this.clearSubscriptions();
    this.url = url;
    this.stayConnected = true;
    this.attempt = 0;
    this.closeSocket();
    this.open();
  }

  disconnect() {
    this.stayConnected = false;
    clearTimeout(this.timer);
    this.closeSocket();
    this.clearSubscriptions();
    this.owner.state("idle", "Disconnected");
  }

  open() {
    clearTimeout(this.timer);
    if (this.link && this.link.socket.readyState <= WebSocket.OPEN) return;
    this.owner.state("connecting", this.attempt ? "Reconnecting…" : "Connecting…");
    const bearer = this.credential?.way === "bearer" ? [`bearer.${this.credential.value}`] : [];
    let socket;
    try {
      socket = new WebSocket(this.url, ["wsaction.v1", ...bearer]);
    } catch (error) {
      this.stayConnected = false;
      this.owner.state("refused", error.message);
      return;
    }
    const link = (this.link = new Link(socket, this.faults, (text) => this.receive(text)));
    let opened = false;
    socket.onopen = () => {
      opened = true;
      if (link === this.link) this.opened();
    };
    socket.onmessage = (message) => link === this.link && this.arrived(message.data);
    socket.onclose = (close) => link === this.link && this.closed(close, opened);
  }

  async opened() {
    this.attempt = 0;
    this.owner.state("open", "Connected");
    this.owner.note("Connected");
    this.pings = setInterval(() => this.ask({ action: "$ping" }), PING_INTERVAL);
    if (this.credential?.way === "frame") {
      const reply = await this.ask({ action: "$auth", data: this.credential.value });
      if (reply && reply.status !== 200) this.owner.state("open", `Connected; sign-in failed: ${reply.errors[0]?.msg}`);
    }
    for (const [route, position] of this.subscriptions) this.resubscribe(route, position);
  }

  async resubscribe(route, position) {
    const reply = await this.ask({ action: "subscribe", route, ...(position ? { since: position } : {}) });
    if (!reply) return;
    if (reply.status === 200) this.subscriptions.set(route, laterPosition(positionOf(reply.data), reply.data?.recovered && position));
    else this.unsubscribed(route);
    this.owner.subscribed();
    const missing = reply.data?.recovered === false ? "some events may be missing" : "nothing is missing";
    const range = position && reply.data?.offset !== undefined ? `from ${position.offset} to ${reply.data.offset}, ` : "";
    const outcome = reply.status === 200 ? range + missing : `refused: ${reply.errors[0]?.msg}`;
    this.owner.event({ event: "resubscribed", route, data: outcome, ours: true });
    this.owner.note(`Resubscribed to ${route || "the empty route"}: ${outcome}`);
  }

  closed(close, opened) {
    this.dropLink();
    if (opened) this.owner.closed(close.code, close.reason); // failed attempts are not logged
    this.owner.note(opened ? `The connection closed with ${close.code}` : "The server cannot be reached, or refuses");
    if (!this.stayConnected) return;
    if (refuses(close.code)) {
      this.stayConnected = false;
      this.owner.state("refused", `Closed ${close.code}: ${close.reason || "refused"}`);
      return;
    }
    const delay = Math.max(100, Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.attempt++));
    this.countDown(performance.now() + delay, opened ? `Lost (${close.code})` : "Not reachable, or refused");
  }

  /** Shows the time left until the next attempt, then starts it. */
  countDown(until, reason) {
    const left = until - performance.now();
    if (left <= 0) return this.open();
    this.owner.state("waiting", `${reason}. Again in ${Math.ceil(left / 1000)} s`);
    this.timer = setTimeout(() => this.countDown(until, reason), Math.min(left, 1000));
  }

  closeSocket() {
    const socket = this.link?.socket;
    this.dropLink();
    socket?.close();
  }

  /** Forgets the connection: nothing of it is heard any more, and calls in flight are lost. */
  dropLink() {
    clearInterval(this.pings);
    this.link?.clear();
    this.link = null;
    this.endPending();
  }

  /** Drops the connection, as if it broke, and connects again after some seconds. */
  cut(seconds) {
    if (!this.isOpen) return;
    const inFlight = this.pending.size;
    this.closeSocket();
    const lost = inFlight === 1 ? "1 call in flight is lost" : `${inFlight} calls in flight are lost`;
    this.owner.event({ event: "cut", route: "", data: lost, ours: true });
    this.owner.note(`Cut by this page; ${lost}`);
    this.countDown(performance.now() + seconds * 1000, "Cut by this page");
  }

  /** Stops or resumes handling what arrives. */
  setReading(isReading) {
    this.faults.isReading = isReading;
    this.owner.note(isReading ? `Reading again, ${this.held} frames waited` : "Stopped reading");
    this.link?.incoming.run();
  }

  /** How many received frames wait until the page reads again, or until their delay is over. */
  get held() {
    return this.link?.incoming.items.length ?? 0;
  }

  arrived(text) {
    this.link.incoming.push(text);
    if (!this.faults.isReading && this.held >= MAX_HELD) this.setReading(true);
    this.owner.heldChanged();
  }

  endPending() {
    for (const call of this.pending.values()) this.finish(call, "lost", null);
    for (const answer of this.internal.values()) answer(null);
    this.pending.clear();
    this.internal.clear();
  }

  // frames
  /** Sends a frame of the explorer's own. Resolves to the reply, or to null if the connection closes first. */
  ask(frame) {
    if (!this.isOpen) return Promise.resolve(null);
    const id = `explorer-${++this.number}`;
    return new Promise((answer) => {
      this.internal.set(id, answer);
      this.link.outgoing.push(JSON.stringify({ ...frame, request_id: id }));
    });
  }

  /** Sends the text of a frame. Returns the call. */
  send(text, frame) {
    const call = { id: frame.request_id, frame, text, sentAt: new Date(), start: performance.now(), status: "running", items: [], count: 0, reply: null };
    this.calls.unshift(call);
    for (const old of this.calls.splice(MAX_CALLS)) old.dropped = true;
    if (call.id !== undefined) this.pending.set(call.id, call);
    this.link.outgoing.push(text);
    if (call.id === undefined) this.finish(call, "sent", null);
    else this.owner.changed(call);
    return call;
  }

  nextId() {
    return ++this.number;
  }

  async cancel(call) {
    await this.ask({ action: "$cancel", data: call.id });
  }

  receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.owner.event({ event: "unreadable", route: "", data: text, ours: true });
    }
    if ("event" in message) return this.receiveEvent(message);
    const call = this.pending.get(message.request_id);
    if (call && message.status === 206) {
      call.items.push(message.data);
      call.count += 1;
      call.items.splice(0, call.items.length - MAX_ITEMS);
      call.first ??= performance.now() - call.start;
      this.owner.changed(call);
    } else if (call) {
      this.pending.delete(message.request_id);
      this.trackSubscription(call.frame, message);
      this.finish(call, message.status, message);
    } else if (this.internal.has(message.request_id)) {
      this.internal.get(message.request_id)(message);
      this.internal.delete(message.request_id);
    } else {
      this.owner.event({ event: "unexpected reply", route: message.route ?? "", data: message, ours: true });
    }
  }

  finish(call, status, reply) {
    Object.assign(call, { status, reply, ms: performance.now() - call.start });
    this.owner.changed(call);
  }

  /** Updates the subscriptions and their positions from a reply. */
  trackSubscription(frame, reply) {
    const route = (frame.route ?? "").split("?", 1)[0];
    if (frame.action === "subscribe" && reply.status === 200) {
      this.subscriptions.set(reply.data.route ?? route, positionOf(reply.data));
      this.owner.subscribed();
    }
    if (frame.action === "unsubscribe" && reply.status < 300) this.unsubscribed(route);
  }

  unsubscribed(route) {
    this.subscriptions.delete(route);
    this.owner.subscribed();
  }

  /** Removes all subscriptions. */
  clearSubscriptions() {
    this.subscriptions.clear();
    this.owner.subscribed();
  }

  receiveEvent(message) {
    const position = this.subscriptions.get(message.route);
    if (position && message.offset !== undefined) position.offset = message.offset;
    if (["$position", "$resync"].includes(message.event)) this.subscriptions.set(message.route, positionOf(message.data));
    if (message.event === "$unsubscribed") this.unsubscribed(message.route);
    this.owner.event(message);
  }
}

/** The position to resume from: the later one if the events in between were recovered. */
function laterPosition(position, known) {
  return position && known ? { ...position, offset: Math.max(position.offset, known.offset) } : position;
}

function positionOf(data) {
  return data?.epoch !== undefined && data?.offset !== undefined ? { epoch: data.epoch, offset: data.offset } : null;
}
