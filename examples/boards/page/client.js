// Written by `wsaction codegen typescript`: the client of Boards, connection /ws/. Do not edit.
/* eslint-disable */
// ---------------------------------------------------------------------------------------------------------- errors
/** Whatever this client raises of its own. */
export class ClientError extends Error {
    name = "ClientError";
}
/** There is no connection, and the client does not try any more. `code` is that of a close which says no. */
export class ConnectionFailed extends ClientError {
    name = "ConnectionFailed";
    isFinal;
    code;
    constructor(message, isFinal = false, code, cause) {
        super(message, cause === undefined ? {} : { cause });
        this.isFinal = isFinal;
        this.code = code;
    }
}
/** The connection was lost before the final reply. The action may have been carried out or not: it is never sent again. */
export class ConnectionLost extends ClientError {
    name = "ConnectionLost";
    code;
    reason;
    constructor(code, reason = "") {
        const told = reason ? `, ${JSON.stringify(reason)}` : "";
        super(`the connection was lost (code ${code}${told}); what was under way may have been carried out`);
        this.code = code;
        this.reason = reason;
    }
}
/** No reply in time; the server is told to cancel what was asked. `cause` says why there was no connection, if so. */
export class CallTimeout extends ClientError {
    name = "CallTimeout";
    seconds;
    constructor(what, seconds, cause) {
        const why = cause instanceof Error ? `: ${cause.message}` : "";
        super(`${what}: no reply in ${seconds} s${why}`, cause === undefined ? {} : { cause });
        this.seconds = seconds;
    }
}
/** More waits than may: items of a stream for their consumer, or frames to be sent. */
export class Overflow extends ClientError {
    name = "Overflow";
}
/** The server answered something else than what was asked for. */
export class UnexpectedReply extends ClientError {
    name = "UnexpectedReply";
}
/** A route that cannot be: a capture that its pattern does not take. Nothing was sent. */
export class InvalidRoute extends ClientError {
    name = "InvalidRoute";
}
/** The server answered with an error. `type`, `msg` and `ctx` are those of the first of `errors`. */
export class ActionError extends ClientError {
    name = "ActionError";
    status;
    errors;
    action;
    route;
    type;
    msg;
    ctx;
    constructor(status, errors, action, route) {
        const told = errors.slice(0, 5).map((one) => `${one.type}: ${one.msg}${one.loc ? ` [${one.loc.join(".")}]` : ""}`);
        super(`${status} ${told.join("; ")} (${`${action} ${route}`.trim()})`);
        this.status = status;
        this.errors = errors;
        this.action = action;
        this.route = route;
        this.type = errors[0]?.type ?? "unknown";
        this.msg = errors[0]?.msg ?? "";
        this.ctx = errors[0]?.ctx ?? {};
    }
}
/** 400: the frame, its data or its parameters; `errors` has an item, with `loc`, for each fault. */
export class InvalidRequest extends ActionError {
    name = "InvalidRequest";
}
/** 401: `$auth` was refused, or has to come first. */
export class NotAuthenticated extends ActionError {
    name = "NotAuthenticated";
}
/** 403: a permission said no. */
export class PermissionDenied extends ActionError {
    name = "PermissionDenied";
}
/** 404: no such object or page. */
export class NotFound extends ActionError {
    name = "NotFound";
}
/** 404: no pattern of the server's matches the route. */
export class RouteNotFound extends NotFound {
    name = "RouteNotFound";
}
/** 405: the route has no such action. */
export class ActionNotAllowed extends ActionError {
    name = "ActionNotAllowed";
}
/** 408: it took the server too long, which cancelled it. */
export class ActionTimeout extends ActionError {
    name = "ActionTimeout";
}
/** 409: with what is already there. */
export class Conflict extends ActionError {
    name = "Conflict";
}
/** 429: too often. */
export class Throttled extends ActionError {
    name = "Throttled";
    /** Seconds until the same may be asked again; undefined where the server does not say. */
    get retryAfter() {
        const seconds = this.ctx["retry_after"];
        return typeof seconds === "number" ? seconds : undefined;
    }
}
/** 499: cancelled, by another `$cancel` than the client's own. */
export class Cancelled extends ActionError {
    name = "Cancelled";
}
/** 500: a bug of the server's. */
export class ServerError extends ActionError {
    name = "ServerError";
    /** What finds it in the server's log. */
    get errorId() {
        const id = this.ctx["error_id"];
        return typeof id === "string" ? id : undefined;
    }
}
/** 503: busy, shutting down, or a part is away. Nothing was done: the same may be asked again later. */
export class Unavailable extends ActionError {
    name = "Unavailable";
}
const BY_STATUS = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: ActionNotAllowed,
    408: ActionTimeout,
    409: Conflict,
    429: Throttled,
    499: Cancelled,
    500: ServerError,
    503: Unavailable,
};
function actionError(reply) {
    const { status, errors, action, route } = reply;
    const isRoute = status === 404 && errors[0]?.type === "route_not_found";
    const kind = isRoute ? RouteNotFound : (BY_STATUS[status] ?? ActionError);
    return new kind(status, errors, action, route);
}
/** Reads a message; null for what is neither a reply nor an event. */
function read(text) {
    let body;
    try {
        body = JSON.parse(text);
    }
    catch {
        return null;
    }
    if (!isObject(body))
        return null;
    const route = typeof body["route"] === "string" ? body["route"] : "";
    const { event, status, errors, offset } = body;
    if (typeof event === "string") {
        const told = { event, route, data: body["data"] };
        return typeof offset === "number" ? { ...told, offset } : told;
    }
    if (typeof status !== "number" || !Array.isArray(errors))
        return null;
    const action = typeof body["action"] === "string" ? body["action"] : "";
    const data = body["data"] ?? null;
    return { status, data, errors: errors, action, route, requestId: body["request_id"], size: text.length };
}
function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}
/** The position in a reply or notice; null where it has none. */
function positionIn(data) {
    if (!isObject(data))
        return null;
    const { epoch, offset } = data;
    return typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : null;
}
// ---------------------------------------------------------------------------------------------------------- queues
/** Items that wait for their one consumer, with the end that follows them. Whoever puts looks at `size`. */
class Buffer {
    size = 0;
    ended = false;
    #items = [];
    #error;
    #waiter;
    get length() {
        return this.#items.length;
    }
    get last() {
        return this.#items[this.#items.length - 1]?.item;
    }
    put(item, size) {
        if (this.ended)
            return;
        const waiter = this.#waiter;
        if (waiter !== undefined) {
            this.#waiter = undefined;
            waiter.resolve({ value: item, done: false });
            return;
        }
        this.#items.push({ item, size });
        this.size += size;
    }
    /** Nothing more comes; what waits is still handed out, and then the error, each time it is asked. */
    end(error) {
        if (this.ended)
            return;
        this.ended = true;
        this.#error = error;
        const waiter = this.#waiter;
        this.#waiter = undefined;
        if (error === undefined)
            waiter?.resolve({ value: undefined, done: true });
        else
            waiter?.reject(error);
    }
    clear() {
        this.#items = [];
        this.size = 0;
    }
    next() {
        const waiting = this.#items.shift();
        if (waiting !== undefined) {
            this.size -= waiting.size;
            return Promise.resolve({ value: waiting.item, done: false });
        }
        if (this.#error !== undefined)
            return Promise.reject(this.#error);
        if (this.ended)
            return Promise.resolve({ value: undefined, done: true });
        if (this.#waiter !== undefined) {
            return Promise.reject(new Error("somebody iterates over this already; it has one consumer"));
        }
        return new Promise((resolve, reject) => {
            this.#waiter = { resolve, reject };
        });
    }
}
/** Waits of a random length, from none to a bound that doubles each time ("full jitter"). */
class Backoff {
    #first;
    #most;
    #next;
    constructor(first, most) {
        this.#first = this.#next = first;
        this.#most = most;
    }
    seconds() {
        const bound = this.#next;
        this.#next = Math.min(bound * 2, this.#most);
        return Math.random() * bound;
    }
    reset() {
        this.#next = this.#first;
    }
}
/** A timer, in seconds; returns what stops it. Longer than a timer can be is until then. */
function after(seconds, then) {
    const timer = setTimeout(then, Math.min(seconds * 1000, 2_147_483_647));
    return () => clearTimeout(timer);
}
function now() {
    return performance.now() / 1000;
}
const OPEN = 1;
const RESERVED = ["action", "route", "request_id"];
const HARD = 16; // times `buffer` that may wait where nothing can be made to wait
/** One connection, from its handshake until it is lost. */
class Link {
    opened;
    done;
    lost;
    heardAt = now();
    #socket;
    #onEvent;
    #log;
    #mark;
    #askers = new Map();
    #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
    #count = 0;
    #finish = () => undefined;
    constructor(socket, onEvent, mark, log) {
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
            if (!isOpen)
                this.fail(new ConnectionLost(1006)); // a close follows, though in Node 20 not always
        });
        socket.addEventListener("close", (event) => this.fail(new ConnectionLost(event.code ?? 1006, event.reason ?? "")));
    }
    /** Tells all who wait for replies that none will come. The first time counts. */
    fail(lost) {
        if (this.lost !== undefined)
            return;
        this.lost = lost;
        const askers = [...this.#askers.values()];
        this.#askers.clear();
        for (const asker of askers)
            asker.lost(new ConnectionLost(lost.code, lost.reason));
        this.#finish(lost);
    }
    /** Closes it, and does not wait for the server's word. */
    close(code, reason) {
        this.#socket.close(1000);
        this.fail(new ConnectionLost(code, reason));
    }
    /** Sends a request, and returns its `request_id`. Throws where it cannot be sent. Without an asker, errors are logged. */
    ask(action, route, keys, asker) {
        if (this.lost !== undefined)
            throw new ConnectionLost(this.lost.code, this.lost.reason);
        const taken = RESERVED.find((name) => Object.hasOwn(keys, name));
        if (taken !== undefined)
            throw new TypeError(`${taken} is the protocol's own key, not a parameter of ${action}`);
        if (this.#socket.bufferedAmount > this.#mark * HARD) {
            throw new Overflow(`over ${this.#mark * HARD} bytes wait to be sent; await what was asked before asking more`);
        }
        const id = `${this.#prefix}${++this.#count}`;
        this.#put({ action, ...(route === "" ? {} : { route }), ...keys, request_id: id });
        if (asker !== undefined)
            this.#askers.set(id, asker);
        return id;
    }
    /** Has a request cancelled whose replies nobody waits for any more, if it is still under way. */
    cancel(id) {
        if (this.#askers.delete(id))
            this.#put({ action: "$cancel", data: id });
    }
    ping() {
        this.#put({ action: "$ping" });
    }
    #put(frame) {
        const text = JSON.stringify(frame);
        if (this.#socket.readyState === OPEN)
            this.#socket.send(text);
    }
    #take(text) {
        this.heardAt = now();
        if (this.lost !== undefined)
            return;
        const message = typeof text === "string" ? read(text) : null;
        if (message === null)
            this.#log("the server sent what is neither a reply nor an event", text);
        else if ("event" in message)
            this.#onEvent(message, String(text).length);
        else
            this.#answer(message);
    }
    #answer(reply) {
        const { requestId, status, action, route, data, size } = reply;
        if (typeof requestId === "string" && requestId.startsWith(this.#prefix)) {
            const asker = this.#askers.get(requestId);
            if (status !== 206)
                this.#askers.delete(requestId);
            if (asker !== undefined)
                asker.reply(reply);
            else if (status >= 400 && status !== 499)
                this.#log("nobody waits for this reply", actionError(reply));
        }
        else if (status < 400 && !action.startsWith("$")) {
            this.#onEvent({ event: action, route, data }, size); // broadcast to others than who asked
        }
    }
}
const SAYS_NO = [1008, 4401, 4403, 4404]; // close codes: connecting again as one is does not help
const STABLE = 10; // seconds after which a connection counts as one that went well
const PATIENCE = 10; // seconds that the answer to a ping is waited for at most
const MIN_REFRESH = 0.5; // seconds between two $auth
const MOST_WAITING = 1_000; // calls that wait for a connection
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/; // what a sub-protocol may hold
/** One connection at a time, made again when it is lost, until it is closed or the server says no. */
class Line {
    state = "connecting";
    log;
    buffer;
    timeout;
    #url;
    #options;
    #hearer;
    #backoff;
    #waiters = new Set();
    #link;
    #dialing; // not open yet, or not introduced
    #isRunning = false;
    #refused = 0; // connections in a row that were closed by a no before they were stable
    #cause; // why there is no connection
    #failure;
    #wake = () => undefined;
    constructor(url, options, hearer) {
        this.#url = socketUrl(url);
        this.#options = options;
        this.#hearer = hearer;
        this.buffer = options.buffer ?? 1_048_576;
        this.timeout = options.timeout === undefined ? 60 : options.timeout;
        this.log = options.log ?? ((message, cause) => console.warn(`wsaction: ${message}`, cause));
        this.#backoff = this.newBackoff();
    }
    newBackoff() {
        return new Backoff(this.#options.firstWait ?? 0.5, this.#options.longestWait ?? 30);
    }
    get link() {
        return this.#link?.lost === undefined ? this.#link : undefined;
    }
    get cause() {
        return this.link === undefined ? this.#cause : undefined;
    }
    /** Calls `go` with the connection, now or once there is one; returns what gives that up. */
    whenOpen(go, fail) {
        const link = this.link;
        if (this.#failure !== undefined)
            fail(again(this.#failure));
        else if (link !== undefined)
            go(link);
        else if (this.#waiters.size >= MOST_WAITING)
            fail(new Overflow(`${MOST_WAITING} calls wait for a connection`));
        else {
            const waiter = { go, fail };
            this.#waiters.add(waiter);
            if (!this.#isRunning)
                void this.#run();
            return () => this.#waiters.delete(waiter);
        }
        return () => undefined;
    }
    close() {
        this.#end(undefined);
        for (const link of [this.#dialing, this.#link])
            link?.close(1000, "closed by this client");
        this.#wake();
    }
    async #run() {
        this.#isRunning = true;
        const page = globalThis;
        page.addEventListener?.("online", this.#online);
        try {
            while (this.#failure === undefined) {
                this.#tell("connecting", this.#cause);
                const failure = await this.#live();
                if (this.#failure !== undefined)
                    break;
                if (failure.isFinal || this.#options.reconnect === false)
                    return this.#end(failure);
                this.#tell("waiting", failure);
                await this.#pause(this.#backoff.seconds());
            }
        }
        finally {
            page.removeEventListener?.("online", this.#online);
        }
    }
    #online = () => this.#wake();
    #pause(seconds) {
        return new Promise((resolve) => {
            const stop = after(seconds, resolve);
            this.#wake = () => {
                stop();
                resolve();
            };
        });
    }
    /** A connection's whole life; says why it ended. */
    async #live() {
        let link;
        try {
            link = await this.#dial();
            const expiresAt = this.#options.auth === undefined ? null : await this.#introduce(link);
            if (link.lost !== undefined)
                throw refusal(this.#url, link.lost);
            return await this.#serve(link, expiresAt);
        }
        catch (error) {
            link?.close(1000, "closed by this client");
            const failure = error instanceof ConnectionFailed ? error : noCredential(error);
            this.#cause = failure;
            return failure;
        }
    }
    async #serve(link, expiresAt) {
        const began = now();
        this.#dialing = undefined;
        this.#link = link;
        this.#hearer.linked(link);
        const waiters = [...this.#waiters];
        this.#waiters.clear();
        for (const waiter of waiters)
            waiter.go(link);
        this.#tell("open", undefined);
        const stops = [this.#beat(link), this.#refresh(link, expiresAt)];
        const lost = await link.done;
        for (const stop of stops)
            stop();
        this.#link = undefined;
        this.#cause = lost;
        if (this.#failure === undefined)
            this.#hearer.cut();
        if (now() - began >= STABLE) {
            this.#refused = 0;
            this.#backoff.reset();
        }
        const failure = refusal(this.#url, lost);
        if (!failure.isFinal)
            return failure;
        const canRenew = typeof this.#options.token === "function" || typeof this.#options.auth === "function";
        return ++this.#refused > 1 || !canRenew ? failure : new ConnectionFailed(failure.message, false, failure.code, lost);
    }
    async #dial() {
        const protocols = ["wsaction.v1"];
        const token = await current(this.#options.token);
        if (token !== undefined)
            protocols.push(`bearer.${checked(token)}`);
        const kind = this.#options.WebSocket ?? globalThis.WebSocket;
        if (kind === undefined)
            throw new ConnectionFailed("there is no WebSocket here; pass one: new Client(url, { WebSocket })", true);
        let socket;
        try {
            socket = new kind(this.#url, protocols);
        }
        catch (error) {
            throw new ConnectionFailed(`cannot connect to ${this.#url}: ${String(error)}`, true, undefined, error);
        }
        const link = new Link(socket, (event, size) => this.#hearer.event(event, size), this.buffer, this.log);
        if (this.#failure !== undefined)
            link.close(1000, "closed by this client");
        this.#dialing = link;
        const seconds = this.#options.openTimeout ?? 10;
        const stop = after(seconds, () => link.close(1006, `no answer in ${seconds} s`));
        await link.opened;
        stop();
        if (link.lost === undefined)
            return link;
        if (SAYS_NO.includes(link.lost.code))
            throw refusal(this.#url, link.lost);
        throw new ConnectionFailed(`cannot connect to ${this.#url} (code ${link.lost.code} ${link.lost.reason})`.replace(" )", ")"));
    }
    /** Says who it is, before anything else is sent. */
    async #introduce(link) {
        try {
            return await this.#authenticate(link);
        }
        catch (error) {
            if (error instanceof ActionError) {
                const isFinal = error.status < 500 && error.status !== 408 && error.status !== 429;
                throw new ConnectionFailed(`${this.#url} refused $auth: ${error.message}`, isFinal, undefined, error);
            }
            throw error instanceof ConnectionLost ? refusal(this.#url, error) : error;
        }
    }
    async #authenticate(link) {
        const data = await current(this.#options.auth);
        const seconds = this.#options.openTimeout ?? 10;
        return new Promise((resolve, reject) => {
            let stop = () => undefined;
            const settle = (reply) => {
                stop();
                const at = isObject(reply.data) ? reply.data["expires_at"] : null;
                if (reply.status >= 400)
                    reject(actionError(reply));
                else
                    resolve(typeof at === "number" ? at : null);
            };
            const lost = (error) => {
                stop();
                reject(error);
            };
            link.ask("$auth", "", { data }, { reply: settle, lost });
            stop = after(seconds, () => reject(new ConnectionFailed(`${this.#url} did not answer $auth in ${seconds} s`)));
        });
    }
    /** Authenticates again at half time, for as long as the server says that there is an end. */
    #refresh(link, expiresAt) {
        let stop = () => undefined;
        const wait = (until) => {
            if (until === null || typeof this.#options.auth !== "function" || link.lost !== undefined)
                return;
            stop = after(Math.max((until - Date.now() / 1000) / 2, MIN_REFRESH), () => {
                this.#authenticate(link).then(wait, (error) => {
                    if (link.lost !== undefined)
                        return;
                    this.log("the credential could not be refreshed", error);
                    wait(until);
                });
            });
        };
        wait(expiresAt);
        return () => stop();
    }
    /** Pings a server that is silent, and gives up one that stays so. */
    #beat(link) {
        const heartbeat = this.#options.heartbeat === undefined ? 25 : this.#options.heartbeat;
        if (heartbeat === null)
            return () => undefined;
        const patience = Math.min(heartbeat, PATIENCE);
        let stop = () => undefined;
        let pinged = null;
        const look = () => {
            if (link.lost !== undefined)
                return;
            if (pinged !== null && link.heardAt >= pinged)
                pinged = null;
            if (pinged !== null && now() - pinged >= patience)
                return link.close(1006, `no sign of the server for ${patience} s`);
            if (pinged === null && now() - link.heardAt >= heartbeat) {
                pinged = now();
                link.ping();
            }
            stop = after(pinged === null ? heartbeat - (now() - link.heardAt) : patience, look);
        };
        stop = after(heartbeat, look);
        return () => stop();
    }
    /** No connection any more: everybody who waits for something is told. */
    #end(failure) {
        if (this.#failure !== undefined)
            return;
        this.#failure = failure ?? new ConnectionFailed("the client is closed");
        const waiters = [...this.#waiters];
        this.#waiters.clear();
        for (const waiter of waiters)
            waiter.fail(again(this.#failure));
        this.#hearer.ended(failure);
        this.#tell("closed", failure);
    }
    #tell(state, cause) {
        this.state = state;
        try {
            this.#options.onState?.(state, cause);
        }
        catch (error) {
            this.log(`onState(${JSON.stringify(state)}, ...) failed`, error);
        }
    }
}
/** An address as WebSockets take it: of "/ws/" in a page of https://example.com, wss://example.com/ws/. */
function socketUrl(url) {
    const here = globalThis.location?.href;
    const whole = /^[a-z]+:/i.test(url) || here === undefined ? url : new URL(url, here).href;
    return whole.replace(/^http/i, "ws");
}
function refusal(url, lost) {
    const told = lost.reason ? `, ${JSON.stringify(lost.reason)}` : "";
    const message = `${url} closed the connection: code ${lost.code}${told}`;
    return new ConnectionFailed(message, SAYS_NO.includes(lost.code), lost.code, lost);
}
function noCredential(error) {
    return new ConnectionFailed(`no credential to connect with: ${String(error)}`, false, undefined, error);
}
function again(failure) {
    return new ConnectionFailed(failure.message, failure.isFinal, failure.code, failure);
}
function checked(token) {
    if (typeof token === "string" && TOKEN.test(token))
        return token;
    throw new ConnectionFailed("the token has characters that a sub-protocol cannot carry, such as = and /; use auth", true);
}
async function current(value) {
    return typeof value === "function" ? await value() : value;
}
// ---------------------------------------------------------------------------------------- streams and subscriptions
/**
 * The items of a stream, as they come. Nothing is asked before the first `next()`; leaving the loop has the server cancel
 * it. It throws what a call throws, and `Overflow` where over 16 times `buffer` characters wait for their consumer.
 */
export class Stream {
    #begin;
    #most;
    #items = new Buffer();
    #stop;
    #hasItems = false;
    /** @internal */
    constructor(begin, buffer) {
        this.#begin = begin;
        this.#most = buffer * HARD;
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    next() {
        if (this.#stop === undefined && !this.#items.ended) {
            this.#stop = () => undefined;
            this.#stop = this.#begin({
                reply: (reply) => this.#reply(reply),
                lost: (error) => this.#end(error),
                fail: (error) => this.#end(error),
            });
            if (this.#items.ended)
                this.#stop(); // it failed before it had begun
        }
        return this.#items.next();
    }
    /** Ends it, and has the server cancel what is still under way. */
    return() {
        this.#items.clear();
        this.#end();
        return Promise.resolve({ value: undefined, done: true });
    }
    #reply(reply) {
        if (reply.status === 206) {
            this.#hasItems = true;
            this.#items.put(reply.data, reply.size);
            if (this.#items.size > this.#most) {
                this.#end(new Overflow(`over ${this.#most} characters of this stream wait for their consumer`));
            }
        }
        else if (reply.status >= 400)
            this.#end(actionError(reply));
        else {
            if (!this.#hasItems && reply.data !== null)
                this.#items.put(reply.data, reply.size); // no stream: its data is the item
            this.#end();
        }
    }
    #end(error) {
        this.#items.end(error);
        this.#stop?.();
    }
}
const LEAVE_TIMEOUT = 5; // seconds that leaving waits for the server's word
const STATES = { IDLE: 0, ASKED: 1, LIVE: 2, BEHIND: 3, LEAVING: 4 }; // BEHIND: what comes is asked for again
/** What a subscription does; `Subscription` is what users see of it. */
class Follower {
    route; // under which its events come
    position;
    recovered = null;
    snapshot = undefined;
    onEnd = () => undefined;
    items = new Buffer();
    #askedRoute;
    #line;
    #registry;
    #wantsSnapshot;
    #timeout;
    #backoff;
    #entered;
    #hasEntered = false;
    #received;
    #state = STATES.IDLE;
    #isLost = false; // whether something was lost that the next answer makes good
    #asking;
    #stop = () => undefined; // the timer
    constructor(line, registry, route, options, entered) {
        this.#line = line;
        this.#registry = registry;
        this.#askedRoute = route;
        this.route = route.split("?", 1)[0] ?? "";
        this.#wantsSnapshot = options.snapshot === true;
        this.#timeout = options.timeout ?? 30;
        this.#backoff = line.newBackoff();
        this.position = this.#received = options.since ?? null;
        this.#entered = entered;
    }
    get isLeaving() {
        return this.#state === STATES.LEAVING;
    }
    async next() {
        const result = await this.items.next();
        if (result.done === true)
            return result;
        this.position = result.value.position;
        if (this.#state === STATES.BEHIND && this.items.length === 0)
            this.#askAgain();
        return { value: result.value.item, done: false };
    }
    /** Nothing more comes: because of an error, or because the client is closed. */
    end(error) {
        this.#stop();
        this.#asking = undefined;
        this.onEnd();
        this.items.end(error);
        this.#registry.remove(this);
        if (!this.#hasEntered)
            this.#entered.reject(error ?? new ConnectionFailed("the client is closed"));
    }
    /** Unsubscribes; until the server has said that it is done, what comes is dropped. */
    leave() {
        if (this.isLeaving)
            return Promise.resolve();
        this.#stop();
        this.#state = STATES.LEAVING;
        this.onEnd();
        this.items.clear();
        this.items.end();
        const link = this.#line.link;
        if (link === undefined || this.#asking === undefined) {
            this.#registry.remove(this);
            return Promise.resolve();
        }
        return new Promise((resolve) => {
            const done = () => {
                stop();
                this.#registry.remove(this);
                resolve();
            };
            const stop = after(LEAVE_TIMEOUT, () => {
                this.#line.log(`unsubscribe ${this.#askedRoute}: no reply in ${LEAVE_TIMEOUT} s`, undefined);
                done();
            });
            try {
                link.ask("unsubscribe", this.#askedRoute, {}, { reply: done, lost: done });
            }
            catch {
                done(); // the connection is gone, and the subscription with it
            }
        });
    }
    /** Subscribes: for the first time, or again with all that is known by now. */
    ask(link) {
        if (this.isLeaving || this.items.ended)
            return;
        this.#stop();
        const asking = { reply: (reply) => this.#answered(reply, asking), lost: () => undefined };
        const since = this.#received !== null && !this.#isLost ? { since: this.#received } : {};
        this.#state = STATES.ASKED;
        this.#asking = asking;
        this.#stop = after(this.#timeout, () => this.#askAgain());
        try {
            link.ask("subscribe", this.#askedRoute, { ...(this.#wantsSnapshot ? { snapshot: true } : {}), ...since }, asking);
        }
        catch (error) {
            this.#line.log(`subscribe ${this.#askedRoute}`, error); // it is asked again by the timer or the next connection
        }
    }
    #askAgain() {
        const link = this.#line.link;
        if (link !== undefined)
            this.ask(link); // else it is asked once there is one
    }
    /** The connection was lost: what is known stays. */
    cut() {
        this.#stop();
        this.#asking = undefined;
    }
    #answered(reply, asking) {
        if (asking !== this.#asking || this.#state !== STATES.ASKED)
            return; // it has been asked again since
        this.#stop();
        if (reply.status >= 400)
            return this.#refused(actionError(reply));
        this.#backoff.reset();
        const position = positionIn(reply.data);
        if (position === null)
            return this.end(new UnexpectedReply(`subscribe ${this.#askedRoute}: no position in the reply`));
        const { route } = reply.data;
        if (typeof route === "string" && route !== this.route) { // under which its events come, where it was asked for otherwise
            this.#registry.remove(this);
            this.route = route;
            this.#registry.add(this);
        }
        this.#joined(position, reply);
    }
    /** Ends, unless it was there before and the server may think better of it. */
    #refused(error) {
        const mayPass = error instanceof Unavailable || error instanceof Throttled;
        if (!mayPass || !this.#hasEntered)
            return this.end(error);
        const wait = this.#backoff.seconds() + (error instanceof Throttled ? (error.retryAfter ?? 0) : 0);
        this.#stop = after(wait, () => this.#askAgain());
    }
    /** From here on what comes follows without a hole. */
    #joined(told, reply) {
        const data = reply.data;
        const since = this.#received;
        const isLost = this.#isLost || (since !== null && data["recovered"] !== true);
        this.#isLost = false;
        this.#state = STATES.LIVE;
        // the position in the reply is the one before what follows
        const position = since === null || isLost ? told : { epoch: told.epoch, offset: Math.max(told.offset, since.offset) };
        this.#received = position;
        if (isLost)
            this.#keepResync(position, data["snapshot"], reply.size);
        else
            this.#moved(position);
        if (this.#hasEntered)
            return;
        this.#hasEntered = true;
        this.recovered = typeof data["recovered"] === "boolean" ? data["recovered"] : null;
        this.snapshot = data["snapshot"];
        this.#entered.resolve();
    }
    /** An event of its route came. */
    told(event, size) {
        if (this.#state !== STATES.LIVE)
            return; // before the server's word, or dropped
        if (event.event === "$position" || event.event === "$resync")
            return this.#notice(event);
        if (event.event === "$unsubscribed") {
            const lost = { type: "permission_denied", msg: "The right to this was lost after it was subscribed to." };
            return this.end(new PermissionDenied(403, [lost], "subscribe", this.#askedRoute));
        }
        if (this.items.length > 0 && this.items.size + size > this.#line.buffer) {
            this.#state = STATES.BEHIND;
        }
        else if (event.offset === undefined) {
            this.items.put({ item: event, position: this.#received }, size);
        }
        else if (this.#received === null || event.offset > this.#received.offset) {
            this.#received = { epoch: this.#received?.epoch ?? "", offset: event.offset };
            this.items.put({ item: event, position: this.#received }, size);
        } // else it is known
    }
    #notice(event) {
        const position = positionIn(event.data);
        if (position === null)
            return this.#line.log(`${event.event} of ${event.route} without a position`, event.data);
        if (event.event === "$position") {
            this.#received = position;
            this.#moved(position);
        }
        else if (this.#wantsSnapshot) {
            this.#isLost = true; // what comes until there is a new snapshot is in it, or comes after it
            this.#askAgain();
        }
        else {
            this.#received = position;
            this.#keepResync(position, undefined, 1);
        }
    }
    /** It always fits: one right after another takes its place. */
    #keepResync(position, snapshot, size) {
        const item = { event: "$resync", route: this.route, position, snapshot };
        const last = this.items.last;
        if (last !== undefined && last.item.event === "$resync") {
            last.item = item;
            last.position = position;
        }
        else
            this.items.put({ item, position }, size);
    }
    /** The position behind the last item that waits is another. */
    #moved(position) {
        const last = this.items.last;
        if (last !== undefined)
            last.position = position;
        else
            this.position = position;
    }
}
/**
 * The events of a route, each once and in order, through lost connections and slow consumers, and a `$resync` wherever
 * something was lost. Leaving the loop closes it; it ends when the client is closed, and throws the `ActionError` with
 * which the server refuses to go on. Events that wait for their consumer beyond `buffer` characters are asked for again
 * from the server's history.
 */
export class Subscription {
    #follower;
    /** @internal */
    constructor(follower) {
        this.#follower = follower;
    }
    /** What was there when it began, where that was asked for. */
    get snapshot() {
        return this.#follower.snapshot;
    }
    /** Whether all that was missed since a position followed; null where none was named. */
    get recovered() {
        return this.#follower.recovered;
    }
    /** That of the last item that was handed out: keep it, and pass it as `since` another day. */
    get position() {
        return this.#follower.position;
    }
    /** The route, as events name it. */
    get route() {
        return this.#follower.route;
    }
    /** Ends it; resolves once the server has said so, or after 5 s. */
    close() {
        return this.#follower.leave();
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    next() {
        return this.#follower.next();
    }
    async return() {
        await this.close();
        return { value: undefined, done: true };
    }
}
/**
 * The events of no subscription, from when it was made; a `$resync` among them says that some are lost here: the
 * connection was, or more of them waited than may. It ends when the client is closed.
 */
export class Events {
    #most;
    #items = new Buffer();
    #forget;
    /** @internal */
    constructor(buffer, forget) {
        this.#most = buffer;
        this.#forget = forget;
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    next() {
        return this.#items.next();
    }
    /** Listens no more. */
    return() {
        this.#items.clear();
        this.end();
        this.#forget(this);
        return Promise.resolve({ value: undefined, done: true });
    }
    /** @internal */
    told(event, size) {
        if (this.#items.length > 0 && this.#items.size + size > this.#most)
            this.miss();
        else
            this.#items.put(event, size);
    }
    /** @internal */
    miss() {
        const isTold = this.#items.last?.event === "$resync";
        if (!isTold)
            this.#items.put({ event: "$resync", route: "", position: null, snapshot: undefined }, 0);
    }
    /** @internal */
    end(failure) {
        this.#items.end(failure);
    }
}
/** Hands each event to the subscription of its route or, where there is none, to all who listen. */
class Audience {
    #followers = new Map();
    #listeners = new Set();
    #wasCut = false;
    listen(buffer) {
        const events = new Events(buffer, (one) => this.#listeners.delete(one));
        this.#listeners.add(events);
        return events;
    }
    add(follower) {
        const known = this.#followers.get(follower.route);
        if (known !== undefined && !known.isLeaving) {
            throw new Error(`this client is subscribed to ${JSON.stringify(follower.route)} already; share that subscription`);
        }
        this.#followers.set(follower.route, follower);
    }
    remove(follower) {
        if (this.#followers.get(follower.route) === follower)
            this.#followers.delete(follower.route);
    }
    event(event, size) {
        const follower = this.#followers.get(event.route);
        if (follower !== undefined)
            follower.told(event, size);
        else
            for (const listener of this.#listeners)
                listener.told(event, size);
    }
    linked(link) {
        for (const follower of [...this.#followers.values()])
            follower.ask(link);
        if (this.#wasCut)
            for (const listener of this.#listeners)
                listener.miss();
    }
    cut() {
        this.#wasCut = true;
        for (const follower of [...this.#followers.values()])
            follower.cut();
    }
    ended(failure) {
        for (const follower of [...this.#followers.values()])
            follower.end(failure);
        for (const listener of this.#listeners)
            listener.end(failure);
        this.#followers.clear();
        this.#listeners.clear();
    }
}
/** What every generated client is built on: one address, one connection at a time, made again when it is lost. */
export class BaseClient {
    #audience = new Audience();
    #line;
    constructor(url, options = {}) {
        this.#line = new Line(url, options, this.#audience);
    }
    /** How it stands with the connection. */
    get state() {
        return this.#line.state;
    }
    /**
     * Connects now, not at the first call. Resolves once there is a connection; rejects with `ConnectionFailed` where there
     * will be none, because the server says no or the client is closed.
     */
    connect() {
        return new Promise((resolve, reject) => {
            this.#line.whenOpen(() => resolve(), reject);
        });
    }
    /** Closes it for good: what is under way fails with `ConnectionLost`, iterations end. */
    close() {
        this.#line.close();
    }
    /** What the server pushes of no subscription, from now on. */
    $events() {
        const events = this.#audience.listen(this.#line.buffer);
        this.#line.whenOpen(() => undefined, (error) => events.end(error));
        return events;
    }
    /** Runs an action by its name, of which the generated methods do not know; `params` are keys of its frame. */
    $call(action, route = "", params = {}, options = {}) {
        const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
        const asked = withQuery(route, options.query);
        return this.#within(`${action} ${asked}`, seconds, options.signal, (resolve, reject) => {
            const reply = (told) => {
                if (told.status === 206)
                    reject(new UnexpectedReply(`${action} ${asked} is a stream; iterate over client.$stream(...)`));
                else if (told.status >= 400)
                    reject(actionError(told));
                else
                    resolve(told.data);
            };
            return this.#ask(action, asked, params, { reply, lost: reject, fail: reject });
        });
    }
    /** Runs an action that answers nothing. Resolves once it is on its way; errors are logged. */
    $send(action, route = "", params = {}, options = {}) {
        const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
        const asked = withQuery(route, options.query);
        return this.#within(`${action} ${asked}`, seconds, options.signal, (resolve, reject) => {
            return this.#line.whenOpen((link) => {
                try {
                    link.ask(action, asked, { ...params }, undefined);
                    resolve();
                }
                catch (error) {
                    reject(error);
                }
            }, reject);
        });
    }
    /** The items of an action that is a stream. */
    $stream(action, route = "", params = {}, options = {}) {
        const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
        const asked = withQuery(route, options.query);
        return new Stream((asker) => {
            let settle = () => undefined;
            const stops = [];
            const fail = (error) => asker.fail(error);
            if (options.signal?.aborted === true) {
                fail(options.signal.reason);
                return () => undefined;
            }
            const first = this.#within(`${action} ${asked}`, seconds, undefined, (resolve) => {
                settle = () => resolve(undefined);
                return () => undefined;
            });
            first.catch(fail);
            const reply = (told) => {
                settle(); // a timeout bounds the first item
                asker.reply(told);
            };
            stops.push(onAbort(options.signal, fail), () => settle());
            stops.push(this.#ask(action, asked, params, { reply, lost: fail, fail }));
            return () => stops.forEach((stop) => stop());
        }, this.#line.buffer);
    }
    /** The events of a route, which is told in the form in which the server writes it. */
    async $subscribe(route, options) {
        const told = options ?? {};
        const asked = withQuery(route, told.query);
        let follower;
        try {
            await this.#within(`subscribe ${asked}`, told.timeout ?? 30, told.signal, (resolve, reject) => {
                const one = (follower = new Follower(this.#line, this.#audience, asked, told, { resolve, reject }));
                this.#audience.add(one);
                const link = this.#line.link;
                if (link !== undefined)
                    one.ask(link);
                return link === undefined ? this.#line.whenOpen(() => undefined, reject) : () => undefined; // `linked` asks
            });
        }
        catch (error) {
            void follower?.leave();
            throw error;
        }
        const following = follower;
        if (following !== undefined)
            following.onEnd = onAbort(told.signal, () => void following.leave());
        return new Subscription(following);
    }
    /** Asks once there is a connection; returns what gives it up, and has it cancelled. */
    #ask(action, route, params, asker) {
        let cancel = () => undefined;
        const stop = this.#line.whenOpen((link) => {
            try {
                const id = link.ask(action, route, { ...params }, asker);
                cancel = () => link.cancel(id);
            }
            catch (error) {
                asker.fail(error);
            }
        }, asker.fail);
        return () => {
            stop();
            cancel();
        };
    }
    /** What `begin` settles, unless time or the signal does; whatever settles it, what `begin` returned is called. */
    #within(what, seconds, signal, begin) {
        return new Promise((resolve, reject) => {
            const stops = [];
            let isSettled = false;
            const settle = (how) => {
                if (isSettled)
                    return;
                isSettled = true;
                for (const stop of stops.splice(0))
                    stop();
                how();
            };
            const fail = (error) => settle(() => reject(error));
            if (seconds !== null) {
                stops.push(after(seconds, () => fail(new CallTimeout(what.trim(), seconds, this.#line.cause))));
            }
            stops.push(onAbort(signal, fail));
            if (isSettled)
                return;
            try {
                stops.push(begin((value) => settle(() => resolve(value)), fail));
            }
            catch (error) {
                fail(error);
            }
            if (isSettled)
                for (const stop of stops.splice(0))
                    stop(); // it was settled before it had begun
        });
    }
}
function onAbort(signal, then) {
    if (signal === undefined)
        return () => undefined;
    const abort = () => then(signal.reason);
    if (signal.aborted)
        abort();
    else
        signal.addEventListener("abort", abort, { once: true });
    return () => signal.removeEventListener("abort", abort);
}
// ---------------------------------------------------------------------------------------------------------- routes
const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
/** The text of a capture. Throws `InvalidRoute` for what the route's pattern would not match, or not whole. */
function written(name, value, capture) {
    const text = String(value);
    const isRight = capture.kind === "int"
        ? /^[0-9]+$/.test(text)
        : (typeof value === "string" || typeof value === "number") &&
            !/[?\n]/.test(text) &&
            text !== "" &&
            new RegExp(capture.kind === "uuid" ? `^${UUID}$` : (capture.pattern ?? "")).test(text);
    if (isRight)
        return capture.kind === "int" ? text.replace(/^0+(?=.)/, "") : text; // as the server writes it
    const wanted = capture.kind ?? (capture.pattern === undefined ? 'text without "?"' : `what ${capture.pattern} matches`);
    throw new InvalidRoute(`${name}: expected ${wanted}, got ${JSON.stringify(value) ?? text}`);
}
/** The route with its captures written in, in the form that takes just these. Routes are never percent-encoded. */
function routeOf(route, captures) {
    if (route.forms.length === 0)
        return written("route", captures["route"], {});
    const given = Object.keys(route.captures).filter((name) => captures[name] !== undefined);
    const form = route.forms.find((one) => Object.keys(route.captures).every((name) => one.includes(`{${name}}`) === given.includes(name)));
    if (form === undefined)
        throw new InvalidRoute(`${route.forms[0] ?? ""}: no form of it takes just ${given.join(", ") || "nothing"}`);
    return form.replace(/\{([^{}]+)\}/g, (whole, name) => {
        const capture = Object.hasOwn(route.captures, name) ? route.captures[name] : undefined;
        return capture === undefined ? whole : written(name, captures[name], capture);
    });
}
/** A connection's address, whose captures are percent-encoded. */
function addressOf(server, route, given) {
    const told = routeOf(route, given);
    return `${server.replace(/\/+$/, "")}/${encodeURI(told).replace(/#/g, "%23")}`;
}
/** A route with its query, which is percent-encoded as in URLs. */
function withQuery(route, query) {
    const pairs = Object.entries(query ?? {}).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, one]));
    const told = pairs.filter(([, value]) => value !== undefined && value !== null);
    const text = told.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`).join("&");
    return text === "" ? route : `${route}${route.includes("?") ? "&" : "?"}${text}`;
}
/** Puts methods, and objects with methods, onto an object. */
function bind(client, members, onto) {
    for (const [name, member] of Object.entries(members)) {
        const value = isPlans(member) ? (...given) => run(client, chosen(member, given[0]), given) : bind(client, member, {});
        Object.defineProperty(onto, name, { value, enumerable: true });
    }
    return onto;
}
function isPlans(member) {
    return Array.isArray(member);
}
/** Of the routes that a method is of, the first whose captures were given. */
function chosen(plans, first) {
    const given = isObject(first) ? first : {};
    const last = plans[plans.length - 1];
    return plans.find((plan) => plan.at.required.every((name) => given[name] !== undefined)) ?? last;
}
function run(client, plan, given) {
    const hasCaptures = Object.keys(plan.at.captures).length > 0;
    const captures = hasCaptures ? (given.shift() ?? {}) : {};
    const params = { ...(plan.takes === true ? (given.shift() ?? {}) : {}), ...plan.fixed };
    const options = (given.shift() ?? {});
    const ask = () => {
        const route = routeOf(plan.at, captures);
        if (plan.kind === "subscribe")
            return client.$subscribe(route, options);
        return client[`$${plan.kind}`](plan.action, route, params, options);
    };
    if (plan.kind === "stream")
        return ask();
    try {
        return ask();
    }
    catch (error) {
        return Promise.reject(error);
    }
}
/**
 * The root of a connection: signing in, and the way to the boards.
 * The client of /ws/.
 */
export class Client extends BaseClient {
    constructor(url, options = {}) {
        super(url, options);
        bind(this, PLANS, this);
    }
    /** The address to connect to at a server: of "wss://example.com", `wss://example.com/ws/`. */
    static address(server) {
        return addressOf(server, { forms: ["ws/"], captures: {}, required: [] }, {});
    }
}
const ROUTE_1 = { forms: ["users/{user}/boards/"], captures: { user: { kind: "int" } }, required: ["user"] };
const ROUTE_2 = { forms: ["boards/{board}/columns/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_3 = { forms: ["boards/{board}/columns/{pk}/"], captures: { board: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "pk"] };
const ROUTE_4 = { forms: ["boards/{board}/cards/{card}/comments/"], captures: { board: { kind: "int" }, card: { kind: "int" } }, required: ["board", "card"] };
const ROUTE_5 = { forms: ["boards/{board}/cards/{card}/comments/{pk}/"], captures: { board: { kind: "int" }, card: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "card", "pk"] };
const ROUTE_6 = { forms: ["boards/{board}/cards/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_7 = { forms: ["boards/{board}/cards/{pk}/"], captures: { board: { kind: "int" }, pk: { kind: "int" } }, required: ["board", "pk"] };
const ROUTE_8 = { forms: ["boards/{board}/"], captures: { board: { kind: "int" } }, required: ["board"] };
const ROUTE_9 = { forms: [""], captures: {}, required: [] };
const PLANS = {
    users: {
        boards: {
            create: [{ kind: "call", action: "create", at: ROUTE_1, takes: true }],
            list: [{ kind: "call", action: "list", at: ROUTE_1 }],
            listStream: [{ kind: "stream", action: "list", at: ROUTE_1, fixed: { stream: true } }],
            subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_1 }],
        },
    },
    boards: {
        columns: {
            create: [{ kind: "call", action: "create", at: ROUTE_2, takes: true }],
            list: [{ kind: "call", action: "list", at: ROUTE_2 }],
            listStream: [{ kind: "stream", action: "list", at: ROUTE_2, fixed: { stream: true } }],
            subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_3 }, { kind: "subscribe", action: "subscribe", at: ROUTE_2 }],
            destroy: [{ kind: "call", action: "destroy", at: ROUTE_3 }],
            update: [{ kind: "call", action: "update", at: ROUTE_3, takes: true }],
            partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_3, takes: true }],
            retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_3 }],
        },
        cards: {
            comments: {
                create: [{ kind: "call", action: "create", at: ROUTE_4, takes: true }],
                list: [{ kind: "call", action: "list", at: ROUTE_4 }],
                listStream: [{ kind: "stream", action: "list", at: ROUTE_4, fixed: { stream: true } }],
                subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_5 }, { kind: "subscribe", action: "subscribe", at: ROUTE_4 }],
                destroy: [{ kind: "call", action: "destroy", at: ROUTE_5 }],
                update: [{ kind: "call", action: "update", at: ROUTE_5, takes: true }],
                partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_5, takes: true }],
                retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_5 }],
            },
            create: [{ kind: "call", action: "create", at: ROUTE_6, takes: true }],
            list: [{ kind: "call", action: "list", at: ROUTE_6 }],
            listStream: [{ kind: "stream", action: "list", at: ROUTE_6, fixed: { stream: true } }],
            subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_7 }, { kind: "subscribe", action: "subscribe", at: ROUTE_6 }],
            destroy: [{ kind: "call", action: "destroy", at: ROUTE_7 }],
            update: [{ kind: "call", action: "update", at: ROUTE_7, takes: true }],
            partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_7, takes: true }],
            retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_7 }],
            move: [{ kind: "call", action: "move", at: ROUTE_7, takes: true }],
        },
        destroy: [{ kind: "call", action: "destroy", at: ROUTE_8 }],
        update: [{ kind: "call", action: "update", at: ROUTE_8, takes: true }],
        partialUpdate: [{ kind: "call", action: "partial_update", at: ROUTE_8, takes: true }],
        retrieve: [{ kind: "call", action: "retrieve", at: ROUTE_8 }],
        subscribe: [{ kind: "subscribe", action: "subscribe", at: ROUTE_8 }],
        presence: [{ kind: "call", action: "presence", at: ROUTE_8 }],
        invite: [{ kind: "call", action: "invite", at: ROUTE_8, takes: true }],
        dismiss: [{ kind: "call", action: "dismiss", at: ROUTE_8, takes: true }],
    },
    signIn: [{ kind: "call", action: "sign_in", at: ROUTE_9, takes: true }],
    whoami: [{ kind: "call", action: "whoami", at: ROUTE_9 }],
};
