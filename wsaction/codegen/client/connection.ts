// ------------------------------------------------------------------------------------------------------ connections

/** What a client needs of a WebSocket class: the platform's own, or that of the npm package `ws`. */
export type SocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

/** The same, with what every one of them has. */
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
const MAX_BUFFERS = 16; // times `buffer` that may wait where nothing can be made to wait
const FIRST_PROBE = 0.001; // seconds between two questions whether a send is done, if somebody waits
const MAX_PROBE = 0.25;
const IDLE_PROBE = 1; // seconds until the question if nobody does

/**
 * One connection, from its handshake until it is lost.
 *
 * A send that succeeds is silent. Its `request_id` tells when it is done: as long as it is under way, the server refuses
 * another frame with that id (409), so a `$ping` with it asks without changing anything.
 */
class Link {
  readonly opened: Promise<void>;
  readonly done: Promise<ConnectionLost>;
  lost: ConnectionLost | undefined;
  heardAt = now();
  isLetIn = false; // whether the server has answered anything but 401
  readonly #socket: Socket;
  readonly #onEvent: (event: ServerEvent, size: number) => void;
  readonly #log: Log;
  readonly #pacer: Pacer;
  readonly #requests = new Map<string, OutgoingRequest>(); // by their ids, until the final reply
  readonly #sends = new Map<string, OutgoingRequest[]>(); // not known to be done, by their routes
  readonly #probes = new Set<string>(); // ids that the server was asked about
  readonly #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
  #number = 0;
  #count = 0; // of requests that may wait in the server's queue
  #size = 0;
  #silent = 0; // sends that are not known to be done
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
      if (!isOpen) this.fail(new ConnectionLost(1006)); // a close follows, though in Node 20 not always
    });
    socket.addEventListener("close", (event) => this.fail(new ConnectionLost(event.code ?? 1006, event.reason ?? "")));
  }

  /** Tells all who wait for replies that none will come. The first time counts. */
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

  /** Closes it, and does not wait for the server's word. */
  close(code: number, reason: string): void {
    this.#socket.close(1000);
    this.fail(new ConnectionLost(code, reason));
  }

  /** Sends a request out of turn. Throws where it cannot be sent. */
  ask(action: string, route: string, keys: object, asker: Asker): OutgoingRequest {
    if (this.lost !== undefined) throw new ConnectionLost(this.lost.code, this.lost.reason);
    const request = new OutgoingRequest(action, route, keys, asker);
    this.put(request);
    return request;
  }

  /** Whether one more request may be under way. One that is too large for any window goes alone. */
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

  /** Has a request cancelled whose replies nobody waits for any more, if it is still under way. */
  cancel(request: OutgoingRequest): void {
    if (this.#requests.get(request.id) !== request || request.asker === undefined) return;
    this.#send(JSON.stringify({ action: "$cancel", data: request.id }));
    request.asker = request.number = undefined;
    if (request.isCounted) this.#awaitSilence(request); // its final reply may never come: it may succeed in silence
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
    if (message === null) this.#log("the server sent what is neither a reply nor an event", text);
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
      this.#deliver({ event: action, route, data }, size); // broadcast to others than who asked
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
      if (reply.status >= 400) this.#log("nobody waits for this reply", actionError(reply));
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

  // silent success
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

  /** Asks the server which sends are done, of each route that in the middle: its frames run in order. */
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

  /** Sends of a route are done up to this one. */
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

