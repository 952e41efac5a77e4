// ------------------------------------------------------------------------------------------------------ connections

/** A WebSocket class: the platform's own, or that of the npm package `ws`. */
export type SocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

/** The part of the WebSocket interface that the client uses. */
interface Socket {
  readonly readyState: number;
  addEventListener(type: string, listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

const OPEN = 1;
const MAX_BUFFERS = 16; // times `buffer` that a stream may hold, since its server cannot be slowed down
const FIRST_PROBE = 0.001; // seconds between two probes at first, if anything waits for sends
const MAX_PROBE = 0.25;
const IDLE_PROBE = 1; // seconds until a probe if nothing waits

/**
 * One connection, from its handshake until it is lost.
 *
 * A successful send has no reply. The client finds out whether it is done by a `$ping` with the same `request_id`, called
 * a probe: while the send is running, the server refuses another frame with that id (409).
 */
class Link {
  readonly opened: Promise<void>;
  readonly done: Promise<ConnectionLost>;
  lost: ConnectionLost | undefined;
  heardAt = now();
  isLetIn = false; // whether the server has sent anything but a 401
  readonly #socket: Socket;
  readonly #onEvent: (event: ServerEvent, size: number) => void;
  readonly #log: Log;
  readonly #pacer: Pacer;
  readonly #requests = new Map<string, OutgoingRequest>(); // by id, until the final reply
  readonly #sends = new Map<string, OutgoingRequest[]>(); // sends not known to be done, by route
  readonly #probes = new Set<string>(); // ids of sends with a probe in flight
  readonly #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
  #number = 0;
  #count = 0; // requests that may wait in the server's queue
  #size = 0;
  #silent = 0; // number of sends not known to be done
  #probeWait = FIRST_PROBE;
  #stopProbing: (() => void) | undefined;
  #stopIdle: (() => void) | undefined;
  #finish: (lost: ConnectionLost) => void = () => undefined;

  constructor(socket: Socket, onEvent: (event: ServerEvent, size: number) => void, pacer: Pacer, log: Log) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    this.#pacer = pacer;
    this.#log = log;
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    let isOpen = false;
    this.opened = new Promise((resolve) => {
      socket.addEventListener("open", () => {
        isOpen = true;
        resolve();
      });
      void this.done.then(() => resolve());
    });
    socket.addEventListener("message", (event) => this.#receive(event.data));
    socket.addEventListener("error", () => {
      if (!isOpen) this.fail(new ConnectionLost(1006)); // a close event follows, but not always in Node 20
    });
    socket.addEventListener("close", (event) => this.fail(new ConnectionLost(event.code ?? 1006, event.reason ?? "")));
  }

  /** Rejects all requests that wait for replies. Only the first call has an effect. */
  fail(lost: ConnectionLost): void {
    if (this.lost !== undefined) return;
    this.lost = lost;
    this.#stopProbing?.();
    this.#stopIdle?.();
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    this.#pacer.lost([...this.#sends.values()].flat().filter((one) => one.number !== undefined).length, lost);
    this.#sends.clear();
    for (const request of requests) request.asker?.lost(new ConnectionLost(lost.code, lost.reason));
    this.#finish(lost);
  }

  /** Closes the connection without waiting for the server's close frame. */
  close(code: number, reason: string): void {
    this.#socket.close(1000);
    this.fail(new ConnectionLost(code, reason));
  }

  /** Sends a request at once, before those that wait. Throws `ConnectionLost` if the connection is lost. */
  ask(action: string, route: string, keys: object, asker: Asker): OutgoingRequest {
    if (this.lost !== undefined) throw new ConnectionLost(this.lost.code, this.lost.reason);
    const request = new OutgoingRequest(action, route, keys, asker);
    this.put(request);
    return request;
  }

  /** Whether a request of this size may be sent now. One that is larger than the limit is sent alone. */
  hasRoom(size: number): boolean {
    if (this.lost !== undefined) return false;
    return this.#count === 0 || (this.#count < this.#pacer.maxCount && this.#size + size <= this.#pacer.maxSize);
  }

  put(request: OutgoingRequest): void {
    request.link = this;
    request.id = `${this.#prefix}${++this.#number}`;
    this.#requests.set(request.id, request);
    this.#count++;
    this.#size += request.text.length;
    request.isCounted = true;
    this.#send(request.withId());
    if (request.asker !== undefined) return;
    this.#awaitSilence(request);
    request.sent?.resolve();
    request.sent = undefined;
  }

  /** Asks the server to cancel a request if it is still in flight. Its replies are dropped. */
  cancel(request: OutgoingRequest): void {
    if (this.#requests.get(request.id) !== request || request.asker === undefined) return;
    this.#send(JSON.stringify({ action: "$cancel", data: request.id }));
    request.asker = request.number = undefined;
    if (request.isCounted) this.#awaitSilence(request); // a silent action that succeeds sends no final reply
  }

  ping(): void {
    this.#send('{"action":"$ping"}');
  }

  #send(text: string): void {
    if (this.#socket.readyState === OPEN) this.#socket.send(text);
  }

  #receive(text: unknown): void {
    this.heardAt = now();
    if (this.lost !== undefined) return;
    const message = typeof text === "string" ? read(text) : null;
    if (message === null) this.#log("the server sent a message that is neither a reply nor an event", text);
    else if ("event" in message) this.#deliver(message, String(text).length);
    else {
      this.isLetIn ||= message.status !== 401;
      this.#answer(message);
    }
  }

  #deliver(event: ServerEvent, size: number): void {
    this.isLetIn = true;
    this.#onEvent(event, size);
  }

  #answer(reply: Reply): void {
    const { requestId, status, action, route, data, size } = reply;
    if (typeof requestId === "string" && requestId.startsWith(this.#prefix)) {
      const request = this.#requests.get(requestId);
      if (action === "$ping" && this.#probes.has(requestId)) this.#probeAnswered(requestId, status);
      else if (request !== undefined) this.#reply(request, reply);
    } else if (status < 400 && !action.startsWith("$")) {
      this.#deliver({ event: action, route, data }, size); // a broadcast of another connection's reply
    }
  }

  #reply(request: OutgoingRequest, reply: Reply): void {
    if (reply.status !== 206) {
      this.#requests.delete(request.id);
      if (request.asker === undefined) this.#forgetSend(request);
    }
    this.#uncount(request);
    if (request.number !== undefined && wasNotRun(reply)) return this.#pacer.refused(request, reply);
    this.#pacer.answered();
    if (request.asker !== undefined) request.asker.reply(reply);
    else if (request.number !== undefined) {
      if (reply.status >= 400) this.#log("a send failed", actionError(reply));
      this.#pacer.settled();
    }
    this.#pacer.pump();
  }

  #uncount(request: OutgoingRequest): void {
    if (!request.isCounted) return;
    request.isCounted = false;
    this.#count--;
    this.#size -= request.text.length;
  }

  // sends
  #awaitSilence(request: OutgoingRequest): void {
    const sends = this.#sends.get(request.route);
    if (sends === undefined) this.#sends.set(request.route, [request]);
    else sends.push(request);
    this.#silent++;
    if (this.#pacer.wantsToKnow || this.#silent * 2 >= this.#pacer.maxCount) this.probe();
    else this.#probeLater();
  }

  #probeLater(): void {
    this.#stopIdle ??= after(IDLE_PROBE, () => {
      this.#stopIdle = undefined;
      this.probe();
    });
  }

  #forgetSend(request: OutgoingRequest): void {
    const sends = this.#sends.get(request.route) ?? [];
    const at = sends.indexOf(request);
    if (at < 0) return;
    sends.splice(at, 1);
    this.#silent--;
    if (sends.length === 0) this.#sends.delete(request.route);
  }

  /** Probes the middle send of each route. Frames of one route run in order, so those before it are done if it is. */
  probe(): void {
    if (this.#probes.size > 0 || this.#stopProbing !== undefined || this.lost !== undefined) return;
    for (const sends of this.#sends.values()) {
      const request = sends[(sends.length - 1) >> 1];
      if (request === undefined) continue;
      this.#probes.add(request.id);
      this.#send(JSON.stringify({ action: "$ping", request_id: request.id }));
    }
  }

  #probeAnswered(id: string, status: number): void {
    this.#probes.delete(id);
    const request = this.#requests.get(id);
    if (request !== undefined && status < 400) {
      this.#probeWait = FIRST_PROBE;
      this.#settleUntil(request);
    }
    if (this.#probes.size > 0) return;
    this.#pacer.pump();
    if (this.#stopProbing !== undefined) return;
    if (!this.#pacer.wantsToKnow) {
      if (this.#silent > 0) this.#probeLater();
      return;
    }
    this.#stopProbing = after(this.#probeWait, () => {
      this.#stopProbing = undefined;
      this.probe();
    });
    this.#probeWait = Math.min(this.#probeWait * 2, MAX_PROBE);
  }

  /** Marks the sends of a route as done up to this one. */
  #settleUntil(last: OutgoingRequest): void {
    const sends = this.#sends.get(last.route) ?? [];
    for (const request of sends.splice(0, sends.indexOf(last) + 1)) {
      this.#silent--;
      this.#requests.delete(request.id);
      this.#uncount(request);
      if (request.number !== undefined) this.#pacer.settled();
    }
    if (sends.length === 0) this.#sends.delete(last.route);
  }
}

