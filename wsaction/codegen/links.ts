// ------------------------------------------------------------------------------------------------------ connections

/** What a client needs of a WebSocket class: the platform's own, or that of the npm package `ws`. */
export type SocketClass = new (url: string, protocols: string[]) => {
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

/** The same, with what every one of them has. */
interface Socket {
  readonly readyState: number;
  readonly bufferedAmount: number;
  addEventListener(type: string, listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

/** Who is told of the replies to one request. */
interface Asker {
  reply(reply: Reply): void;
  lost(error: ClientError): void;
}

const OPEN = 1;
const RESERVED = ["action", "route", "request_id"];
const HARD = 16; // times `buffer` that may wait where nothing can be made to wait

/** One connection, from its handshake until it is lost. */
class Link {
  readonly opened: Promise<void>;
  readonly done: Promise<ConnectionLost>;
  lost: ConnectionLost | undefined;
  heardAt = now();
  readonly #socket: Socket;
  readonly #onEvent: (event: ServerEvent, size: number) => void;
  readonly #log: Log;
  readonly #mark: number;
  readonly #askers = new Map<string, Asker>();
  readonly #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
  #count = 0;
  #finish: (lost: ConnectionLost) => void = () => undefined;

  constructor(socket: Socket, onEvent: (event: ServerEvent, size: number) => void, mark: number, log: Log) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    this.#mark = mark;
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
    socket.addEventListener("message", (event) => this.#take(event.data));
    socket.addEventListener("error", () => {
      if (!isOpen) this.fail(new ConnectionLost(1006)); // a close follows, though in Node 20 not always
    });
    socket.addEventListener("close", (event) => this.fail(new ConnectionLost(event.code ?? 1006, event.reason ?? "")));
  }

  /** Tells all who wait for replies that none will come. The first time counts. */
  fail(lost: ConnectionLost): void {
    if (this.lost !== undefined) return;
    this.lost = lost;
    const askers = [...this.#askers.values()];
    this.#askers.clear();
    for (const asker of askers) asker.lost(new ConnectionLost(lost.code, lost.reason));
    this.#finish(lost);
  }

  /** Closes it, and does not wait for the server's word. */
  close(code: number, reason: string): void {
    this.#socket.close(1000);
    this.fail(new ConnectionLost(code, reason));
  }

  /** Sends a request, and returns its `request_id`. Throws where it cannot be sent. Without an asker, errors are logged. */
  ask(action: string, route: string, keys: Frame, asker: Asker | undefined): string {
    if (this.lost !== undefined) throw new ConnectionLost(this.lost.code, this.lost.reason);
    const taken = RESERVED.find((name) => Object.hasOwn(keys, name));
    if (taken !== undefined) throw new TypeError(`${taken} is the protocol's own key, not a parameter of ${action}`);
    if (this.#socket.bufferedAmount > this.#mark * HARD) {
      throw new Overflow(`over ${this.#mark * HARD} bytes wait to be sent; await what was asked before asking more`);
    }
    const id = `${this.#prefix}${++this.#count}`;
    this.#put({ action, ...(route === "" ? {} : { route }), ...keys, request_id: id });
    if (asker !== undefined) this.#askers.set(id, asker);
    return id;
  }

  /** Has a request cancelled whose replies nobody waits for any more, if it is still under way. */
  cancel(id: string): void {
    if (this.#askers.delete(id)) this.#put({ action: "$cancel", data: id });
  }

  ping(): void {
    this.#put({ action: "$ping" });
  }

  #put(frame: Frame): void {
    const text = JSON.stringify(frame);
    if (this.#socket.readyState === OPEN) this.#socket.send(text);
  }

  #take(text: unknown): void {
    this.heardAt = now();
    if (this.lost !== undefined) return;
    const message = typeof text === "string" ? read(text) : null;
    if (message === null) this.#log("the server sent what is neither a reply nor an event", text);
    else if ("event" in message) this.#onEvent(message, String(text).length);
    else this.#answer(message);
  }

  #answer(reply: Reply): void {
    const { requestId, status, action, route, data, size } = reply;
    if (typeof requestId === "string" && requestId.startsWith(this.#prefix)) {
      const asker = this.#askers.get(requestId);
      if (status !== 206) this.#askers.delete(requestId);
      if (asker !== undefined) asker.reply(reply);
      else if (status >= 400 && status !== 499) this.#log("nobody waits for this reply", actionError(reply));
    } else if (status < 400 && !action.startsWith("$")) {
      this.#onEvent({ event: action, route, data }, size); // broadcast to others than who asked
    }
  }
}

