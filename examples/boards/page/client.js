// Written by `wsaction codegen typescript`: the client of Boards, connection /ws/. Do not edit.
/* eslint-disable */
// ---------------------------------------------------------------------------------------------------------- errors
/** Whatever this client raises of its own. */
export class ClientError extends Error {
    name = "ClientError";
    constructor(message, cause) {
        super(message); // which takes a cause from ES2022 on
        if (cause !== undefined)
            Object.defineProperty(this, "cause", { value: cause, configurable: true, writable: true });
    }
}
/** There is no connection, and the client does not try any more. `code` is that of a close which says no. */
export class ConnectionFailed extends ClientError {
    name = "ConnectionFailed";
    isFinal;
    code;
    constructor(message, isFinal = false, code, cause) {
        super(message, cause);
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
        super(`${what}: no reply in ${seconds} s${why}`, cause);
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
function hasOwn(value, name) {
    return Object.prototype.hasOwnProperty.call(value, name);
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
const RESERVED = ["action", "route", "request_id"];
const IN_FLIGHT = 128; // requests under way at once unless said otherwise; half of what a server keeps by default
const MOST_SIZE = 524_288; // characters under way at once
const MOST_WAITING = 10_000; // requests that wait for their turn, or for a connection
const BUSY_WAITS = [0.01, 1]; // seconds before a request that was refused as busy is sent again
const QUEUE_BOUNDS = ["max_queued_actions", "max_queued_bytes"]; // past them the server runs nothing
/** One request, until it is answered. Without an asker its success is silent; `sent` hears once it is on its way. */
class OutgoingRequest {
    action;
    route;
    text;
    asker;
    sent;
    number; // its turn; undefined: it does not wait for one
    link; // the connection that it is under way on
    id = ""; // on that connection
    isCounted = false;
    isWithdrawn = false;
    constructor(action, route, keys, asker, sent) {
        const taken = RESERVED.find((name) => hasOwn(keys, name));
        if (taken !== undefined)
            throw new TypeError(`${taken} is the protocol's own key, not a parameter of ${action}`);
        this.action = action;
        this.route = route;
        this.text = JSON.stringify({ action, ...(route === "" ? {} : { route }), ...keys });
        this.asker = asker;
        this.sent = sent;
    }
    withId() {
        return `${this.text.slice(0, -1)},"request_id":${JSON.stringify(this.id)}}`;
    }
}
/** Whether the server refused a request before anything ran: for lack of room, or since it is being stopped. */
function wasNotRun(reply) {
    const first = reply.errors[0];
    if (reply.status !== 503 || first === undefined)
        return false;
    return first.type === "shutting_down" || (first.type === "busy" && QUEUE_BOUNDS.includes(first.ctx?.["limit"]));
}
/**
 * Requests in the order in which they were made, each sent once there is a connection with room for it, so that a burst
 * waits here and is not refused by the server. What was refused for lack of room has not run: it is sent again, in turn.
 */
class Pacer {
    most;
    mostSize = MOST_SIZE;
    #log;
    #backoff = new Backoff(...BUSY_WAITS);
    #flushes = new Set();
    #link;
    #queue = []; // by number; withdrawn ones too
    #waiting = 0;
    #count = 0;
    #sends = 0; // that are not known to be done
    #resume; // while a refused request waits
    constructor(most, log) {
        if (!(most >= 1))
            throw new RangeError(`maxInFlight: expected at least 1, got ${most}`);
        this.most = most;
        this.#log = log;
    }
    /** Whether somebody waits until sends are done. */
    get wantsToKnow() {
        return this.#waiting > 0 || this.#flushes.size > 0;
    }
    /** Sends a request in its turn. */
    submit(request) {
        if (this.#waiting >= MOST_WAITING) {
            throw new Overflow(`${MOST_WAITING} requests wait to be sent; await some of them before asking more`);
        }
        request.number = this.#count++;
        if (request.asker === undefined)
            this.#sends++;
        this.#wait(request);
        this.pump();
    }
    /** Nobody waits for its reply any more. */
    withdraw(request) {
        if (request.link !== undefined)
            request.link.cancel(request);
        else if (request.number !== undefined && !request.isWithdrawn) {
            request.isWithdrawn = true;
            this.#waiting--;
            if (request.asker === undefined)
                this.settled();
            if (this.#queue.length > 2 * this.#waiting + 64)
                this.#queue = this.#queue.filter((one) => !one.isWithdrawn);
        }
    }
    /** Calls `resolve` once every send is known to be done; returns what gives that up. */
    flush(done) {
        if (this.#sends === 0)
            done.resolve();
        else {
            this.#flushes.add(done);
            this.#link?.probe();
        }
        return () => this.#flushes.delete(done);
    }
    #wait(request) {
        request.link = undefined;
        this.#waiting++;
        let at = this.#queue.length;
        while (at > 0 && (this.#queue[at - 1]?.number ?? 0) > (request.number ?? 0))
            at--;
        this.#queue.splice(at, 0, request);
    }
    /** Sends what may be sent now. */
    pump() {
        for (let request = this.#queue[0]; request !== undefined && this.#resume === undefined; request = this.#queue[0]) {
            const link = this.#link;
            if (link === undefined)
                return;
            if (!request.isWithdrawn && !link.hasRoom(request.text.length))
                return link.probe();
            this.#queue.shift();
            if (request.isWithdrawn)
                continue;
            this.#waiting--;
            link.put(request);
        }
    }
    attach(link) {
        this.#link = link;
        this.#backoff.reset();
        this.pump();
    }
    detach() {
        this.#link = undefined;
    }
    /** There will be no connection any more. */
    end(failure) {
        this.#link = undefined;
        this.#resume?.();
        const queue = this.#queue.filter((one) => !one.isWithdrawn);
        this.#queue = [];
        this.#waiting = this.#sends = 0;
        for (const request of queue) {
            request.isWithdrawn = true;
            if (request.asker !== undefined)
                request.asker.lost(again(failure));
            else if (request.sent !== undefined)
                request.sent.reject(again(failure));
            else
                this.#log(`${request.action} ${request.route}`.trim() + " was refused as busy and could not be sent again", failure);
        }
        for (const flush of [...this.#flushes])
            flush.reject(again(failure));
    }
    /** The server had no room for a request: it is sent again, in its turn, after a wait. */
    refused(request, reply) {
        const { limit, value } = reply.errors[0]?.ctx ?? {};
        if (typeof value === "number" && value >= 1) {
            if (limit === "max_queued_actions")
                this.most = Math.min(this.most, value);
            else
                this.mostSize = Math.min(this.mostSize, value);
        }
        this.#wait(request);
        if (reply.errors[0]?.type === "shutting_down")
            this.#link = undefined; // it is about to be closed, and would lose what is under way
        if (this.#link === undefined || this.#resume !== undefined)
            return;
        const stop = after(this.#backoff.seconds(), () => this.#resume?.());
        this.#resume = () => {
            stop();
            this.#resume = undefined;
            this.pump();
        };
    }
    /** The server had room for one. */
    answered() {
        this.#backoff.reset();
    }
    /** A send is done, or was refused by an error. */
    settled() {
        if (--this.#sends === 0)
            for (const flush of [...this.#flushes])
                flush.resolve();
    }
    /** The connection was lost with sends under way, of which nobody knows whether they were carried out. */
    lost(count, error) {
        if (count === 0)
            return;
        this.#log(`${count} sent without waiting for a reply`, error);
        this.#sends -= count;
        for (const flush of [...this.#flushes])
            flush.reject(new ConnectionLost(error.code, error.reason));
    }
}
const OPEN = 1;
const HARD = 16; // times `buffer` that may wait where nothing can be made to wait
const FIRST_PROBE = 0.001; // seconds between two questions whether a send is done, if somebody waits
const LONGEST_PROBE = 0.25;
const IDLE_PROBE = 1; // seconds until the question if nobody does
/**
 * One connection, from its handshake until it is lost.
 *
 * A send that succeeds is silent. Its `request_id` tells when it is done: as long as it is under way, the server refuses
 * another frame with that id (409), so a `$ping` with it asks without changing anything.
 */
class Link {
    opened;
    done;
    lost;
    heardAt = now();
    isLetIn = false; // whether the server has answered anything but 401
    #socket;
    #onEvent;
    #log;
    #pacer;
    #requests = new Map(); // by their ids, until the final reply
    #sends = new Map(); // not known to be done, by their routes
    #probes = new Set(); // ids that the server was asked about
    #prefix = `${Math.random().toString(36).slice(2, 10)}-`;
    #number = 0;
    #count = 0; // of requests that may wait in the server's queue
    #size = 0;
    #silent = 0; // sends that are not known to be done
    #probeWait = FIRST_PROBE;
    #stopProbing;
    #stopIdle;
    #finish = () => undefined;
    constructor(socket, onEvent, pacer, log) {
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
        this.#stopProbing?.();
        this.#stopIdle?.();
        const requests = [...this.#requests.values()];
        this.#requests.clear();
        this.#pacer.lost([...this.#sends.values()].flat().filter((one) => one.number !== undefined).length, lost);
        this.#sends.clear();
        for (const request of requests)
            request.asker?.lost(new ConnectionLost(lost.code, lost.reason));
        this.#finish(lost);
    }
    /** Closes it, and does not wait for the server's word. */
    close(code, reason) {
        this.#socket.close(1000);
        this.fail(new ConnectionLost(code, reason));
    }
    /** Sends a request out of turn. Throws where it cannot be sent. */
    ask(action, route, keys, asker) {
        if (this.lost !== undefined)
            throw new ConnectionLost(this.lost.code, this.lost.reason);
        const request = new OutgoingRequest(action, route, keys, asker);
        this.put(request);
        return request;
    }
    /** Whether one more request may be under way. One that is too large for any window goes alone. */
    hasRoom(size) {
        if (this.lost !== undefined)
            return false;
        return this.#count === 0 || (this.#count < this.#pacer.most && this.#size + size <= this.#pacer.mostSize);
    }
    put(request) {
        request.link = this;
        request.id = `${this.#prefix}${++this.#number}`;
        this.#requests.set(request.id, request);
        this.#count++;
        this.#size += request.text.length;
        request.isCounted = true;
        this.#send(request.withId());
        if (request.asker !== undefined)
            return;
        this.#awaitSilence(request);
        request.sent?.resolve();
        request.sent = undefined;
    }
    /** Has a request cancelled whose replies nobody waits for any more, if it is still under way. */
    cancel(request) {
        if (this.#requests.get(request.id) !== request || request.asker === undefined)
            return;
        this.#send(JSON.stringify({ action: "$cancel", data: request.id }));
        request.asker = request.number = undefined;
        if (request.isCounted)
            this.#awaitSilence(request); // its final reply may never come: it may succeed in silence
    }
    ping() {
        this.#send('{"action":"$ping"}');
    }
    #send(text) {
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
            this.#tell(message, String(text).length);
        else {
            this.isLetIn ||= message.status !== 401;
            this.#answer(message);
        }
    }
    #tell(event, size) {
        this.isLetIn = true;
        this.#onEvent(event, size);
    }
    #answer(reply) {
        const { requestId, status, action, route, data, size } = reply;
        if (typeof requestId === "string" && requestId.startsWith(this.#prefix)) {
            const request = this.#requests.get(requestId);
            if (action === "$ping" && this.#probes.has(requestId))
                this.#probed(requestId, status);
            else if (request !== undefined)
                this.#reply(request, reply);
        }
        else if (status < 400 && !action.startsWith("$")) {
            this.#tell({ event: action, route, data }, size); // broadcast to others than who asked
        }
    }
    #reply(request, reply) {
        if (reply.status !== 206) {
            this.#requests.delete(request.id);
            if (request.asker === undefined)
                this.#forgetSend(request);
        }
        this.#uncount(request);
        if (request.number !== undefined && wasNotRun(reply))
            return this.#pacer.refused(request, reply);
        this.#pacer.answered();
        if (request.asker !== undefined)
            request.asker.reply(reply);
        else if (request.number !== undefined) {
            if (reply.status >= 400)
                this.#log("nobody waits for this reply", actionError(reply));
            this.#pacer.settled();
        }
        this.#pacer.pump();
    }
    #uncount(request) {
        if (!request.isCounted)
            return;
        request.isCounted = false;
        this.#count--;
        this.#size -= request.text.length;
    }
    // silent success
    #awaitSilence(request) {
        const sends = this.#sends.get(request.route);
        if (sends === undefined)
            this.#sends.set(request.route, [request]);
        else
            sends.push(request);
        this.#silent++;
        if (this.#pacer.wantsToKnow || this.#silent * 2 >= this.#pacer.most)
            this.probe();
        else
            this.#probeLater();
    }
    #probeLater() {
        this.#stopIdle ??= after(IDLE_PROBE, () => {
            this.#stopIdle = undefined;
            this.probe();
        });
    }
    #forgetSend(request) {
        const sends = this.#sends.get(request.route) ?? [];
        const at = sends.indexOf(request);
        if (at < 0)
            return;
        sends.splice(at, 1);
        this.#silent--;
        if (sends.length === 0)
            this.#sends.delete(request.route);
    }
    /** Asks the server which sends are done, of each route that in the middle: its frames run in order. */
    probe() {
        if (this.#probes.size > 0 || this.#stopProbing !== undefined || this.lost !== undefined)
            return;
        for (const sends of this.#sends.values()) {
            const request = sends[(sends.length - 1) >> 1];
            if (request === undefined)
                continue;
            this.#probes.add(request.id);
            this.#send(JSON.stringify({ action: "$ping", request_id: request.id }));
        }
    }
    #probed(id, status) {
        this.#probes.delete(id);
        const request = this.#requests.get(id);
        if (request !== undefined && status < 400) {
            this.#probeWait = FIRST_PROBE;
            this.#settleUntil(request);
        }
        if (this.#probes.size > 0)
            return;
        this.#pacer.pump();
        if (this.#stopProbing !== undefined)
            return;
        if (!this.#pacer.wantsToKnow) {
            if (this.#silent > 0)
                this.#probeLater();
            return;
        }
        this.#stopProbing = after(this.#probeWait, () => {
            this.#stopProbing = undefined;
            this.probe();
        });
        this.#probeWait = Math.min(this.#probeWait * 2, LONGEST_PROBE);
    }
    /** Sends of a route are done up to this one. */
    #settleUntil(last) {
        const sends = this.#sends.get(last.route) ?? [];
        for (const request of sends.splice(0, sends.indexOf(last) + 1)) {
            this.#silent--;
            this.#requests.delete(request.id);
            this.#uncount(request);
            if (request.number !== undefined)
                this.#pacer.settled();
        }
        if (sends.length === 0)
            this.#sends.delete(last.route);
    }
}
const POLICY = 1008; // a close code that refuses, as 44xx do: they say what HTTP 4xx would
const NOT_AUTHENTICATED = 4401; // once the server has let the client in, its credential has expired
const PASSING_STATUSES = [408, 425, 429]; // and all from 500 on: they may be answered otherwise later
const AT_ONCE = 1; // seconds that a credential has to last to be renewed without a wait when it expires
const STABLE = 10; // seconds after which a connection counts as one that went well
const PATIENCE = 10; // seconds that the answer to a ping is waited for at most
const MIN_REFRESH = 0.5; // seconds between two $auth where the time is up already, as far as we know
const MAX_REFRESH = 30;
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
    #watchers = new Set();
    #pacer;
    #link;
    #dialing; // not open yet, or not introduced
    #isRunning = false;
    #refused = 0; // refusals in a row: between them no connection was let in that ended otherwise, or was stable
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
        this.#pacer = new Pacer(options.maxInFlight ?? IN_FLIGHT, this.log);
        if (options.onState !== undefined)
            this.watch(options.onState);
    }
    /** Tells it of each new state; returns what ends that. */
    watch(tell) {
        const watcher = { tell };
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
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
            fail(new Overflow(`${MOST_WAITING} wait for a connection`));
        else {
            const waiter = { go, fail };
            this.#waiters.add(waiter);
            this.#start();
            return () => this.#waiters.delete(waiter);
        }
        return () => undefined;
    }
    /** Sends a request in its turn; returns what gives it up. */
    submit(request) {
        if (this.#failure !== undefined)
            throw again(this.#failure);
        this.#pacer.submit(request);
        this.#start();
        return () => this.#pacer.withdraw(request);
    }
    /** Calls `resolve` once every send is known to be done; returns what gives that up. */
    flush(done) {
        if (this.#failure !== undefined)
            throw again(this.#failure);
        return this.#pacer.flush(done);
    }
    #start() {
        if (!this.#isRunning)
            void this.#run();
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
                const { failure, isExpired, isAtOnce } = await this.#live();
                if (this.#failure !== undefined)
                    break;
                if (isExpired)
                    this.#refused = 0;
                if (this.#options.reconnect === false || (!isExpired && this.#isFinal(failure)))
                    return this.#end(failure);
                if (isAtOnce)
                    continue;
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
    get #canRenew() {
        return typeof this.#options.token === "function" || typeof this.#options.auth === "function";
    }
    /** Whether it is not to be tried again. A function for the credential has one more try: it may give another. */
    #isFinal(failure) {
        return failure.isFinal && (++this.#refused > 1 || !this.#canRenew);
    }
    /** A connection's whole life; says why it ended. */
    async #live() {
        let link;
        try {
            link = await this.#dial();
            const expiresAt = await this.#introduce(link);
            if (link.lost !== undefined)
                throw refusal(this.#url, link.lost);
            return await this.#serve(link, expiresAt);
        }
        catch (error) {
            link?.close(1000, "closed by this client");
            const failure = error instanceof ConnectionFailed ? error : noCredential(error);
            this.#cause = failure;
            return { failure, isExpired: false, isAtOnce: false };
        }
    }
    /** `isExpired`: the server closed because the credential has expired, which is no refusal of the next one. */
    async #serve(link, expiresAt) {
        const began = now();
        this.#dialing = undefined;
        this.#link = link;
        this.#hearer.linked(link);
        this.#pacer.attach(link);
        const waiters = [...this.#waiters];
        this.#waiters.clear();
        for (const waiter of waiters)
            waiter.go(link);
        this.#tell("open", undefined);
        const stops = [this.#beat(link), this.#refresh(link, expiresAt), after(0, () => this.#hearer.release())];
        const lost = await link.done;
        for (const stop of stops)
            stop();
        this.#link = undefined;
        this.#pacer.detach();
        this.#cause = lost;
        if (this.#failure === undefined)
            this.#hearer.cut();
        const lasted = now() - began;
        if (lasted >= STABLE)
            this.#backoff.reset();
        if (lasted >= STABLE || (link.isLetIn && !refuses(lost.code)))
            this.#refused = 0;
        const isExpired = lost.code === NOT_AUTHENTICATED && link.isLetIn && this.#canRenew;
        return { failure: refusal(this.#url, lost), isExpired, isAtOnce: isExpired && lasted >= AT_ONCE };
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
        this.#hearer.hold(this.buffer); // until whoever waits for the connection can listen
        const link = new Link(socket, (event, size) => this.#hearer.event(event, size), this.#pacer, this.log);
        if (this.#failure !== undefined)
            link.close(1000, "closed by this client");
        this.#dialing = link;
        const seconds = this.#options.openTimeout ?? 10;
        const stop = after(seconds, () => link.close(1006, `no answer in ${seconds} s`));
        await link.opened;
        stop();
        if (link.lost === undefined)
            return link;
        if (refuses(link.lost.code))
            throw refusal(this.#url, link.lost);
        throw new ConnectionFailed(`cannot connect to ${this.#url} (code ${link.lost.code} ${link.lost.reason})`.replace(" )", ")"));
    }
    /**
     * Says who it is, before anything else is sent, or else `$ping`. So a server that accepts a handshake only to refuse it
     * by a close code is found out before anything is asked.
     */
    async #introduce(link) {
        try {
            if (this.#options.auth !== undefined)
                return await this.#authenticate(link);
            await this.#first(link, "$ping", {}).catch((error) => {
                if (!(error instanceof ActionError))
                    throw error; // 401: it waits for an $auth, which the caller may send
            });
            return null;
        }
        catch (error) {
            if (error instanceof ActionError) {
                const isFinal = statusRefuses(error.status);
                throw new ConnectionFailed(`${this.#url} refused $auth: ${error.message}`, isFinal, undefined, error);
            }
            throw error instanceof ConnectionLost ? refusal(this.#url, error) : error;
        }
    }
    async #authenticate(link) {
        const data = await current(this.#options.auth);
        const told = await this.#first(link, "$auth", { data });
        const at = isObject(told) ? told["expires_at"] : null;
        return typeof at === "number" ? at : null;
    }
    /** Asks what comes before anything else. */
    #first(link, action, keys) {
        const seconds = this.#options.openTimeout ?? 10;
        return new Promise((resolve, reject) => {
            let stop = () => undefined;
            const reply = (told) => {
                stop();
                if (told.status >= 400)
                    reject(actionError(told));
                else
                    resolve(told.data);
            };
            const lost = (error) => {
                stop();
                reject(error);
            };
            link.ask(action, "", keys, { reply, lost });
            stop = after(seconds, () => reject(new ConnectionFailed(`${this.#url} did not answer ${action} in ${seconds} s`)));
        });
    }
    /**
     * Authenticates again at half time, for as long as the server says that there is an end. Where that is up and the
     * server has not closed, its clock is behind ours, or it cannot be asked: it is asked less and less often.
     */
    #refresh(link, expiresAt) {
        let stop = () => undefined;
        let least = MIN_REFRESH;
        const wait = (until) => {
            if (until === null || typeof this.#options.auth !== "function" || link.lost !== undefined)
                return;
            const seconds = Math.max((until - Date.now() / 1000) / 2, least);
            least = seconds > least ? MIN_REFRESH : Math.min(least * 2, MAX_REFRESH);
            stop = after(seconds, () => {
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
        this.#pacer.end(this.#failure);
        this.#hearer.ended(failure);
        this.#tell("closed", failure);
    }
    #tell(state, cause) {
        this.state = state;
        for (const watcher of [...this.#watchers]) {
            try {
                watcher.tell(state, cause);
            }
            catch (error) {
                this.log(`onState(${JSON.stringify(state)}, ...) failed`, error);
            }
        }
    }
}
/** An address as WebSockets take it: of "/ws/" in a page of https://example.com, wss://example.com/ws/. */
function socketUrl(url) {
    const here = globalThis.location?.href;
    const whole = /^[a-z]+:/i.test(url) || here === undefined ? url : new URL(url, here).href;
    return whole.replace(/^http/i, "ws");
}
/** Whether an HTTP status, or that of a reply to `$auth`, says that asking again as it is will not help. */
function statusRefuses(status) {
    return status < 500 && !PASSING_STATUSES.includes(status);
}
/** The same of a close code. */
function refuses(code) {
    return code === POLICY || (code >= 4400 && code < 4500 && statusRefuses(code - 4000));
}
function refusal(url, lost) {
    const told = lost.reason ? `, ${JSON.stringify(lost.reason)}` : "";
    const message = `${url} closed the connection: code ${lost.code}${told}`;
    return new ConnectionFailed(message, refuses(lost.code), lost.code, lost);
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
/** One subscription; `Subscription` is what users see of it. */
class Follower {
    askedRoute;
    wantsSnapshot;
    timeout;
    items = new Buffer();
    state = "joining";
    position;
    received;
    recovered = null;
    snapshot = undefined;
    shared;
    hasEntered = false;
    isBehind = false; // more waits than may; what comes is dropped, and asked for again once there is room
    isLost = false; // whether something was lost that the next answer makes good
    onEnd = () => undefined;
    #line;
    #entered;
    #watchers = new Set();
    constructor(line, registry, route, options, entered) {
        this.#line = line;
        this.#entered = entered;
        this.askedRoute = route;
        this.wantsSnapshot = options.snapshot === true;
        this.timeout = options.timeout ?? 30;
        this.position = this.received = options.since ?? null;
        this.shared = registry.route(route.split("?", 1)[0] ?? "");
        this.shared.add(this);
    }
    async next() {
        const result = await this.items.next();
        if (result.done === true)
            return result;
        this.position = result.value.position;
        if (this.isBehind && this.items.length === 0)
            this.shared.look();
        return { value: result.value.item, done: false };
    }
    /** Ends it, at once: what waits and what comes is dropped. The last one of a route unsubscribes. */
    leave() {
        this.items.clear();
        this.#finish(undefined);
        this.shared.leave(this);
    }
    /** Nothing more comes: because of an error, or because the client is closed. */
    end(error) {
        this.#finish(error);
        if (!this.hasEntered)
            this.#entered.reject(error ?? new ConnectionFailed("the client is closed"));
    }
    #finish(error) {
        this.onEnd();
        this.items.end(error);
        this.tell("closed");
    }
    watch(tell) {
        const watcher = { tell };
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
    }
    tell(state) {
        if (state === this.state || this.state === "closed")
            return;
        this.state = state;
        for (const watcher of [...this.#watchers]) {
            try {
                watcher.tell(state);
            }
            catch (error) {
                this.#line.log(`onState(${JSON.stringify(state)}) of ${this.askedRoute} failed`, error);
            }
        }
    }
    /** Where it has to be told from; null: from now on. */
    get since() {
        return this.isLost ? null : this.received;
    }
    /** From here on what comes follows without a hole. */
    joined(told, recovered, snapshot, size) {
        const since = this.received;
        const isLost = this.isLost || (since !== null && recovered !== true);
        this.isLost = this.isBehind = false;
        // the position in the reply is the one before what follows
        const position = since === null || isLost ? told : { epoch: told.epoch, offset: Math.max(told.offset, since.offset) };
        this.received = position;
        if (isLost)
            this.#keepResync(position, snapshot, size);
        else
            this.#moved(position);
        if (!this.hasEntered) {
            this.hasEntered = true;
            this.recovered = recovered;
            this.snapshot = snapshot;
            this.#entered.resolve();
        }
        this.tell("live");
    }
    /** An event of its route came. */
    told(event, size) {
        if (this.isBehind)
            return;
        if (this.items.length > 0 && this.items.size + size > this.#line.buffer) {
            this.isBehind = true;
            this.tell("recovering");
        }
        else if (event.offset === undefined) {
            this.items.put({ item: event, position: this.received }, size);
        }
        else if (this.received === null || event.offset > this.received.offset) {
            this.received = { epoch: this.received?.epoch ?? "", offset: event.offset };
            this.items.put({ item: event, position: this.received }, size);
        } // else it is known
    }
    /** Its position is another, without an event. */
    moved(position) {
        if (this.isBehind)
            return;
        this.received = position;
        this.#moved(position);
    }
    /** Something was lost. */
    missed(position) {
        if (this.wantsSnapshot) {
            this.isLost = true; // what comes until there is a new snapshot is in it, or comes after it
            this.tell("recovering");
        }
        else if (!this.isBehind) {
            this.received = position;
            this.#keepResync(position, undefined, 1);
        }
    }
    /** It always fits: one right after another takes its place. */
    #keepResync(position, snapshot, size) {
        const item = { event: "$resync", route: this.shared.name, position, snapshot };
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
 * One route that this client is subscribed to, for all of its subscriptions there.
 *
 * The server has one subscription of a route for each connection, and a new `subscribe` replaces it. So one is asked for
 * at a time, for as many as it serves: those that are joining, or have to catch up. The others go on meanwhile, and drop
 * by its offset what comes to them twice. If the answer's position is later than what one of them had, that one catches
 * up next.
 */
class SharedRoute {
    name; // under which its events come
    #line;
    #registry;
    #backoff;
    #live = new Set();
    #waiting = new Set(); // to be asked for
    #asking;
    #isPausing = false; // until it is asked again after a refusal
    #askedRoute; // with which it is subscribed on this connection
    #leaving;
    #stop = () => undefined; // the timer
    constructor(name, line, registry) {
        this.name = name;
        this.#line = line;
        this.#registry = registry;
        this.#backoff = line.newBackoff();
    }
    get #isEmpty() {
        return this.#live.size === 0 && this.#waiting.size === 0;
    }
    add(follower) {
        this.#waiting.add(follower);
    }
    /** One fewer; the last one unsubscribes. Until the server has said that it is done, what comes is dropped. */
    leave(follower) {
        const wasLive = this.#live.delete(follower);
        if (!(this.#waiting.delete(follower) || wasLive) || !this.#isEmpty)
            return;
        this.#settle();
        this.#asking = undefined;
        const link = this.#line.link;
        const asked = this.#askedRoute;
        this.#askedRoute = undefined;
        if (link === undefined || asked === undefined)
            return this.#registry.remove(this); // the server does not know of it
        const left = () => {
            if (this.#leaving !== leaving)
                return;
            this.#leaving = undefined;
            if (this.#isEmpty)
                this.#registry.remove(this);
        };
        const reply = (told) => {
            if (told.status >= 500)
                this.#line.log(`unsubscribe ${asked}`, actionError(told)); // refused: there is none any more
            left();
        };
        const leaving = (this.#leaving = { reply, lost: left });
        link.ask("unsubscribe", asked, {}, leaving);
    }
    /** Takes over those of another one, which turned out to be the same route. */
    adopt(other) {
        for (const follower of [...other.#live, ...other.#waiting]) {
            follower.shared = this;
            this.#waiting.add(follower);
        }
        this.#askedRoute ??= other.#askedRoute;
        other.#live.clear();
        other.#waiting.clear();
        other.#settle();
        if (other.#leaving === undefined)
            return;
        this.cut(); // by its own name for it, which ends this one at the server too
        this.look();
    }
    // asking
    /** Asks for those that wait, one after the other, if nothing is being asked. */
    look(link = this.#line.link) {
        for (const one of [...this.#live]) {
            if (one.isLost || (one.isBehind && one.items.length === 0))
                this.#wait(one);
        }
        if (link === undefined || this.#asking !== undefined || this.#isPausing)
            return;
        for (const first of [...this.#waiting]) {
            if (!this.#joinsAtOnce(first))
                return this.#ask(link, first);
        }
    }
    #wait(follower) {
        this.#live.delete(follower);
        this.#waiting.add(follower);
    }
    /** One that wants no more than what comes from now on needs no word of the server's, once there is one live. */
    #joinsAtOnce(follower) {
        let received = null;
        for (const one of this.#live) {
            if (!one.isBehind && one.received !== null && (received === null || one.received.offset > received.offset))
                received = one.received;
        }
        if (received === null || follower.wantsSnapshot || follower.hasEntered)
            return false;
        const since = follower.received;
        if (since !== null && (since.epoch !== received.epoch || since.offset !== received.offset))
            return false;
        this.#waiting.delete(follower);
        this.#live.add(follower);
        follower.joined(received, since === null ? null : true, undefined, 1);
        return true;
    }
    /** Subscribes with what the first one needs, and all who need the same. */
    #ask(link, first) {
        const from = first.since;
        const concerned = [...this.#waiting].filter((one) => {
            if (one === first)
                return true;
            if (from !== null)
                return one.since?.epoch === from.epoch; // from the earliest of them, once for all
            return one.since === null && (!one.wantsSnapshot || (first.wantsSnapshot && one.askedRoute === first.askedRoute));
        });
        const withSnapshot = concerned.find((one) => one.wantsSnapshot);
        const asked = (withSnapshot ?? first).askedRoute;
        const offset = Math.min(...concerned.map((one) => one.since?.offset ?? 0));
        const keys = { ...(withSnapshot === undefined ? {} : { snapshot: true }), ...(from === null ? {} : { since: { epoch: from.epoch, offset } }) };
        const asking = { concerned, asked, wantsSnapshot: withSnapshot !== undefined };
        this.#asking = asking;
        this.#askedRoute = asked;
        this.#stop = after(Math.min(...concerned.map((one) => one.timeout)), () => {
            this.#asking = undefined; // no answer in time: it is asked again
            this.look();
        });
        link.ask("subscribe", asked, keys, { reply: (reply) => this.#answered(reply, asking), lost: () => undefined });
    }
    /** The connection was lost. */
    cut() {
        this.#settle();
        this.#asking = this.#askedRoute = this.#leaving = undefined;
        for (const one of [...this.#live])
            this.#wait(one);
        for (const one of this.#waiting)
            if (one.hasEntered)
                one.tell("recovering");
        if (this.#isEmpty)
            this.#registry.remove(this);
    }
    /** Nothing more comes. */
    end(failure) {
        this.#settle();
        const all = [...this.#live, ...this.#waiting];
        this.#live.clear();
        this.#waiting.clear();
        for (const one of all)
            one.end(failure);
    }
    #settle() {
        this.#stop();
        this.#isPausing = false;
    }
    // being answered
    #answered(reply, asking) {
        if (asking !== this.#asking) {
            if (this.#leaving !== undefined)
                this.#named(reply); // it was left
            return; // or has been asked again since
        }
        this.#settle();
        this.#asking = undefined;
        if (reply.status >= 400)
            return this.#refused(reply, asking);
        this.#backoff.reset();
        const position = positionIn(reply.data);
        if (position === null) {
            for (const one of asking.concerned) {
                one.end(new UnexpectedReply(`subscribe ${asking.asked}: no position in the reply`));
                this.leave(one);
            }
            return;
        }
        this.#named(reply).#joined(position, reply, asking);
    }
    /** The route under whose name its events come, as the server has said. */
    #named(reply) {
        const route = reply.data?.route;
        return typeof route === "string" && route !== this.name ? this.#registry.rename(this, route) : this;
    }
    #joined(position, reply, asking) {
        const { recovered, snapshot } = reply.data;
        for (const one of [...this.#live]) {
            if (asking.concerned.includes(one) || one.isBehind)
                continue;
            const isAhead = one.received === null || one.received.epoch !== position.epoch || one.received.offset < position.offset;
            if (isAhead)
                this.#wait(one); // what is between its position and this one may not come any more
        }
        for (const one of asking.concerned) {
            if (!this.#waiting.has(one))
                continue; // it has left
            const since = one.since;
            const needsSnapshot = one.wantsSnapshot && (since === null || recovered !== true);
            if (needsSnapshot && (!asking.wantsSnapshot || one.askedRoute !== asking.asked)) {
                one.isLost ||= since !== null; // that snapshot is another list's: its own is asked for next
                continue;
            }
            this.#waiting.delete(one);
            this.#live.add(one);
            one.joined(position, since === null ? null : recovered === true, one.wantsSnapshot ? snapshot : undefined, reply.size);
        }
        this.look();
    }
    /** Ends those for whom it was asked, unless they were there before and the server may think better of it. */
    #refused(reply, asking) {
        const error = actionError(reply);
        const mayPass = error instanceof Unavailable || error instanceof Throttled;
        for (const one of asking.concerned) {
            if (!wasNotRun(reply) && !(mayPass && one.hasEntered))
                this.#drop(one, actionError(reply));
        }
        if (!mayPass || this.#waiting.size === 0)
            return this.look();
        const wait = this.#backoff.seconds() + (error instanceof Throttled ? (error.retryAfter ?? 0) : 0);
        this.#isPausing = true;
        this.#stop = after(wait, () => {
            this.#isPausing = false;
            this.look();
        });
    }
    #drop(follower, error) {
        const wasLive = this.#live.delete(follower);
        if (this.#waiting.delete(follower) || wasLive)
            follower.end(error);
        if (this.#live.size === 0)
            this.#askedRoute = undefined;
        if (this.#isEmpty)
            this.#registry.remove(this);
    }
    // being told
    told(event, size) {
        if (event.event === "$unsubscribed") {
            if (this.#live.size === 0 && this.#asking !== undefined)
                return; // of what was before
            this.#asking = undefined;
            this.#settle();
            const lost = { type: "permission_denied", msg: "The right to this was lost after it was subscribed to." };
            for (const one of [...this.#live, ...this.#waiting])
                this.#drop(one, new PermissionDenied(403, [lost], "subscribe", one.askedRoute));
        }
        else if (event.event === "$position" || event.event === "$resync")
            this.#notice(event);
        else
            for (const one of [...this.#live])
                one.told(event, size);
    }
    #notice(event) {
        const position = positionIn(event.data);
        if (position === null)
            return this.#line.log(`${event.event} of ${event.route} without a position`, event.data);
        for (const one of [...this.#live]) {
            if (event.event === "$position")
                one.moved(position);
            else
                one.missed(position);
        }
        this.look();
    }
}
/**
 * The events of a route, each once and in order, through lost connections and slow consumers, and a `$resync` wherever
 * something was lost. Leaving the loop closes it; it ends when the client is closed, and throws the `ActionError` with
 * which the server refuses to go on. Events that wait for their consumer beyond `buffer` characters are asked for again
 * from the server's history. Subscriptions of one route share one of the server's; each has its own position and buffer.
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
        return this.#follower.shared.name;
    }
    /** How it stands with it. */
    get state() {
        return this.#follower.state;
    }
    /** Calls a function with each new state; returns what ends that. */
    onState(tell) {
        return this.#follower.watch(tell);
    }
    /** Ends it, at once. The last one of a route unsubscribes. */
    close() {
        this.#follower.leave();
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    next() {
        return this.#follower.next();
    }
    return() {
        this.close();
        return Promise.resolve({ value: undefined, done: true });
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
/** Hands each event to the subscriptions of its route or, where there are none, to all who listen. */
class Audience {
    line; // that it hears; set by whoever makes both
    #routes = new Map();
    #listeners = new Set();
    #wasCut = false;
    #held; // pushed before anybody could listen
    listen(buffer) {
        const events = new Events(buffer, (one) => this.#listeners.delete(one));
        this.#listeners.add(events);
        return events;
    }
    route(name) {
        const route = this.#routes.get(name) ?? new SharedRoute(name, this.line, this);
        this.#routes.set(name, route);
        return route;
    }
    /** Its events come under another name. Returns the one that has that name already, or the same. */
    rename(route, name) {
        this.remove(route);
        route.name = name;
        const known = this.#routes.get(name);
        if (known === undefined)
            this.#routes.set(name, route);
        else
            known.adopt(route);
        return known ?? route;
    }
    remove(route) {
        if (this.#routes.get(route.name) === route)
            this.#routes.delete(route.name);
    }
    event(event, size) {
        const route = this.#routes.get(event.route);
        if (route !== undefined)
            return route.told(event, size);
        if (this.#held === undefined)
            for (const listener of this.#listeners)
                listener.told(event, size);
        else if ((this.#held.room -= size) >= 0)
            this.#held.early.push([event, size]);
    }
    /** What is pushed is kept until `release`, at most so many characters of it. */
    hold(most) {
        this.#held ??= { early: [], room: most };
    }
    release() {
        const { early, room } = this.#held ?? { early: [], room: 0 };
        this.#held = undefined;
        for (const listener of this.#listeners) {
            for (const [event, size] of early)
                listener.told(event, size);
            if (room < 0)
                listener.miss();
        }
    }
    linked(link) {
        for (const route of [...this.#routes.values()])
            route.look(link);
        if (this.#wasCut)
            for (const listener of this.#listeners)
                listener.miss();
    }
    cut() {
        this.#wasCut = true;
        for (const route of [...this.#routes.values()])
            route.cut();
    }
    ended(failure) {
        const routes = [...this.#routes.values()];
        this.#routes.clear();
        for (const route of routes)
            route.end(failure);
        for (const listener of this.#listeners)
            listener.end(failure);
        this.#listeners.clear();
    }
}
/** What every generated client is built on: one address, one connection at a time, made again when it is lost. */
export class BaseClient {
    #audience = new Audience();
    #line;
    constructor(url, options = {}) {
        this.#line = this.#audience.line = new Line(url, options, this.#audience);
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
    /** Calls a function with each new state and what led to it; returns what ends that. */
    onState(tell) {
        return this.#line.watch(tell);
    }
    /** Closes it for good: what is under way fails with `ConnectionLost`, iterations end. `$flush()` first waits for sends. */
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
    /**
     * Runs an action that answers nothing. Resolves once it is on its way; errors are logged. While `maxInFlight` requests
     * are under way it waits for its turn. What the server refuses for lack of room is sent again.
     */
    $send(action, route = "", params = {}, options = {}) {
        const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
        const asked = withQuery(route, options.query);
        return this.#within(`${action} ${asked}`, seconds, options.signal, (resolve, reject) => {
            return this.#line.submit(new OutgoingRequest(action, asked, params, undefined, { resolve, reject }));
        });
    }
    /**
     * Resolves once every `$send` so far has run, or was refused by an error, which is logged. Rejects with
     * `ConnectionLost` if the connection was lost meanwhile: what was under way may have been carried out or not.
     */
    $flush(options = {}) {
        const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
        return this.#within("flush", seconds, options.signal, (resolve, reject) => this.#line.flush({ resolve, reject }));
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
                const stop = this.#line.whenOpen((link) => one.shared.look(link), reject);
                const stopLeaving = onAbort(told.signal, () => one.leave()); // at once, for whoever subscribes right after
                return () => {
                    stop();
                    stopLeaving();
                };
            });
        }
        catch (error) {
            follower?.leave();
            throw error;
        }
        const following = follower;
        if (following !== undefined)
            following.onEnd = onAbort(told.signal, () => following.leave());
        return new Subscription(following);
    }
    /** Asks in its turn; returns what gives it up, and has it cancelled. */
    #ask(action, route, params, asker) {
        try {
            return this.#line.submit(new OutgoingRequest(action, route, params, asker));
        }
        catch (error) {
            asker.fail(error);
            return () => undefined;
        }
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
        const capture = hasOwn(route.captures, name) ? route.captures[name] : undefined;
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
