// ----------------------------------------------------------------------------------------------------------- calls

/** Options of a call. */
export interface CallOptions<QueryName extends string = string> {
  readonly query?: Query<QueryName> | undefined;
  /** Seconds until `CallTimeout`; null: no limit. Default: that of the client. */
  readonly timeout?: number | null | undefined;
  /** If it aborts, the server cancels the action, and the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The W3C trace context of the caller's span: the action, and the events that it publishes, go on with that trace. */
  readonly traceparent?: string | undefined;
}

function traced(params: object, { traceparent }: CallOptions): object {
  return traceparent === undefined ? params : { ...params, traceparent };
}

/** What a capture of a route's pattern matches. */
interface Capture {
  readonly kind?: "int" | "uuid";
  readonly pattern?: string;
}

interface Route {
  readonly forms: readonly string[]; // the route, and its forms without optional captures; empty: any route
  readonly captures: { readonly [name: string]: Capture };
  readonly required: readonly string[]; // names of captures
}

interface Plan {
  readonly kind: "call" | "send" | "stream" | "subscribe";
  readonly action: string;
  readonly at: Route;
  readonly takes?: true; // whether it has parameters
  readonly fixed?: Frame; // keys sent with every call
}

type Members = { readonly [name: string]: Members | readonly Plan[] };

/** Base class of generated clients. It keeps one connection to one URL, and reconnects when the connection is lost. */
export class BaseClient {
  readonly #audience = new Audience();
  readonly #line: Line;

  constructor(url: string, options: ClientOptions = {}) {
    this.#line = this.#audience.line = new Line(url, options, this.#audience);
  }

  /** The state of the connection. */
  get state(): State {
    return this.#line.state;
  }

  /** Why there is no connection; undefined while it is open, and before the first attempt. */
  get $cause(): Error | undefined {
    return this.#line.cause;
  }

  /**
   * Connects now instead of at the first call. Resolves once the connection is open. Rejects with `ConnectionFailed` if
   * there will be none, because the server refuses or the client is closed.
   */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#line.whenOpen(() => resolve(), reject);
    });
  }

  /** Calls `tell` with each new state and its cause; returns a function that stops it. */
  onState(tell: (state: State, cause: Error | undefined) => void): () => void {
    return this.#line.watch(tell);
  }

  /** Closes the client for good. Pending calls reject with `ConnectionLost`, iterations end. `$flush()` waits for sends. */
  close(): void {
    this.#line.close();
  }

  /** Events that belong to no subscription, from now on. */
  $events(): Events {
    const events = this.#audience.listen(this.#line.buffer);
    this.#line.whenOpen(() => undefined, (error) => events.end(error));
    return events;
  }

  /** Calls any action by its name. `params` are the keys of its frame. */
  $call(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<unknown> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const fullRoute = withQuery(route, options.query);
    return this.#within(`${action} ${fullRoute}`, seconds, options.signal, (resolve, reject) => {
      const reply = (answer: Reply): void => {
        if (answer.status === 206) reject(new UnexpectedReply(`${action} ${fullRoute} is a stream; iterate over client.$stream(...)`));
        else if (answer.status >= 400) reject(actionError(answer));
        else resolve(answer.data);
      };
      return this.#ask(action, fullRoute, traced(params, options), { reply, lost: reject, fail: reject });
    });
  }

  /**
   * Calls an action that has no reply. Resolves once the frame is sent; errors are logged. While `maxInFlight` requests
   * are in flight, it waits. A frame that the server refuses because its queue is full is sent again.
   */
  $send(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const fullRoute = withQuery(route, options.query);
    return this.#within(`${action} ${fullRoute}`, seconds, options.signal, (resolve, reject) => {
      return this.#line.submit(new OutgoingRequest(action, fullRoute, traced(params, options), undefined, { resolve, reject }));
    });
  }

  /**
   * Resolves once every `$send` so far has run or failed; errors are logged. Rejects with `ConnectionLost` if the
   * connection is lost meanwhile: sends in flight may or may not have run.
   */
  $flush(options: Pick<CallOptions, "timeout" | "signal"> = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    return this.#within("flush", seconds, options.signal, (resolve, reject) => this.#line.flush({ resolve, reject }));
  }

  /** Calls an action that is a stream, and returns its items. */
  $stream<Item = unknown>(action: string, route = "", params: object = {}, options: CallOptions = {}): Stream<Item> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const fullRoute = withQuery(route, options.query);
    return new Stream<Item>((asker) => {
      let settle = (): void => undefined;
      const stops: (() => void)[] = [];
      const fail = (error: Error): void => asker.fail(error);
      if (options.signal?.aborted === true) {
        fail(options.signal.reason as Error);
        return () => undefined;
      }
      const first = this.#within(`${action} ${fullRoute}`, seconds, undefined, (resolve) => {
        settle = () => resolve(undefined);
        return () => undefined;
      });
      first.catch(fail);
      const reply = (answer: Reply): void => {
        settle(); // the timeout applies to the first item only
        asker.reply(answer);
      };
      stops.push(onAbort(options.signal, fail), () => settle());
      stops.push(this.#ask(action, fullRoute, traced(params, options), { reply, lost: fail, fail }));
      return () => stops.forEach((stop) => stop());
    }, this.#line.buffer);
  }

  /** Subscribes to any route, written as the server writes it, such as "boards/7/". Resolves once the server has accepted. */
  async $subscribe<Asked extends boolean = false, Since extends Position | null = null>(
    route: string,
    options?: SubscribeOptions<string, Asked, Since>,
  ): Promise<Subscription<ServerEvent, SnapshotFor<Asked, unknown>, FirstFor<Asked, Since, unknown>>> {
    const settings: SubscribeOptions = options ?? {};
    const fullRoute = withQuery(route, settings.query);
    let follower: Follower | undefined;
    try {
      await this.#within<void>(`subscribe ${fullRoute}`, settings.timeout ?? 30, settings.signal, (resolve, reject) => {
        const joining = (follower = new Follower(this.#line, this.#audience, fullRoute, settings, { resolve, reject }));
        return this.#line.whenOpen((link) => joining.shared.look(link), reject);
      });
    } catch (error) {
      follower?.leave();
      throw error;
    }
    const following = follower as Follower | undefined;
    if (following !== undefined) following.onEnd = onAbort(settings.signal, () => following.leave());
    return new Subscription(following);
  }

  /** Queues a request with replies; returns a function that withdraws or cancels it. */
  #ask(action: string, route: string, params: object, asker: StreamAsker): () => void {
    try {
      return this.#line.submit(new OutgoingRequest(action, route, params, asker));
    } catch (error) {
      asker.fail(error as Error);
      return () => undefined;
    }
  }

  /** A promise that `begin`, the timeout or the signal settles. Then the function that `begin` returned is called. */
  #within<T>(
    what: string,
    seconds: number | null,
    signal: AbortSignal | undefined,
    begin: (resolve: (value: T) => void, reject: (error: Error) => void) => () => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const stops: (() => void)[] = [];
      let isSettled = false;
      const settle = (how: () => void): void => {
        if (isSettled) return;
        isSettled = true;
        for (const stop of stops.splice(0)) stop();
        how();
      };
      const fail = (error: Error): void => settle(() => reject(error));
      if (seconds !== null) {
        stops.push(after(seconds, () => fail(new CallTimeout(what.trim(), seconds, this.#line.cause))));
      }
      stops.push(onAbort(signal, fail));
      if (isSettled) return;
      try {
        stops.push(begin((value) => settle(() => resolve(value)), fail));
      } catch (error) {
        fail(error as Error);
      }
      if (isSettled) for (const stop of stops.splice(0)) stop(); // `begin` settled it before it returned
    });
  }
}

function onAbort(signal: AbortSignal | undefined, then: (reason: Error) => void): () => void {
  if (signal === undefined) return () => undefined;
  const abort = (): void => then(signal.reason as Error);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return () => signal.removeEventListener("abort", abort);
}

// ---------------------------------------------------------------------------------------------------------- routes

const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/** The text of a capture. Throws `InvalidRoute` if the route's pattern does not match all of it. */
function captureText(name: string, value: unknown, capture: Capture): string {
  const text = String(value);
  const isRight =
    capture.kind === "int"
      ? /^[0-9]+$/.test(text)
      : (typeof value === "string" || typeof value === "number") &&
        !/[?\n]/.test(text) &&
        text !== "" &&
        new RegExp(capture.kind === "uuid" ? `^${UUID}$` : (capture.pattern ?? "")).test(text);
  if (isRight) return capture.kind === "int" ? text.replace(/^0+(?=.)/, "") : text; // as the server writes it
  const wanted = capture.kind ?? (capture.pattern === undefined ? 'text without "?"' : `what ${capture.pattern} matches`);
  throw new InvalidRoute(`${name}: expected ${wanted}, got ${JSON.stringify(value) ?? text}`);
}

/** The route with its captures filled in, in the form that has exactly these. Routes are never percent-encoded. */
function routeOf(route: Route, captures: { readonly [name: string]: unknown }): string {
  if (route.forms.length === 0) return captureText("route", captures["route"], {});
  const used = Object.keys(route.captures).filter((name) => captures[name] !== undefined);
  const form = route.forms.find((one) => Object.keys(route.captures).every((name) => one.includes(`{${name}}`) === used.includes(name)));
  if (form === undefined) throw new InvalidRoute(`${route.forms[0] ?? ""} has no form with only ${used.join(", ") || "no captures"}`);
  return form.replace(/\{([^{}]+)\}/g, (match, name: string) => {
    const capture = hasOwn(route.captures, name) ? route.captures[name] : undefined;
    return capture === undefined ? match : captureText(name, captures[name], capture);
  });
}

/** The URL of a connection at a server, with percent-encoded captures. */
function addressOf(server: string, route: Route, captures: object): string {
  const path = routeOf(route, captures as { readonly [name: string]: unknown });
  return `${server.replace(/\/+$/, "")}/${encodeURI(path).replace(/#/g, "%23")}`;
}

/** A route with its query, percent-encoded as in URLs. */
function withQuery(route: string, query: Query | undefined): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? (value as readonly QueryValue[]) : [value as QueryValue]).map((one) => [name, one] as const),
  );
  const present = pairs.filter(([, value]) => value !== undefined && value !== null);
  const text = present.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`).join("&");
  return text === "" ? route : `${route}${route.includes("?") ? "&" : "?"}${text}`;
}

/** Defines the methods, and the objects with methods, on an object. */
function bind(client: BaseClient, members: Members, onto: object): object {
  for (const [name, member] of Object.entries(members)) {
    const value = isPlans(member) ? (...args: unknown[]) => run(client, choosePlan(member, args[0]), args) : bind(client, member, {});
    Object.defineProperty(onto, name, { value, enumerable: true });
  }
  return onto;
}

function isPlans(member: Members | readonly Plan[]): member is readonly Plan[] {
  return Array.isArray(member);
}

/** The first plan of a method whose required captures were given. */
function choosePlan(plans: readonly Plan[], first: unknown): Plan {
  const args = isObject(first) ? first : {};
  const last = plans[plans.length - 1] as Plan;
  return plans.find((plan) => plan.at.required.every((name) => args[name] !== undefined)) ?? last;
}

function run(client: BaseClient, plan: Plan, args: unknown[]): unknown {
  const hasCaptures = Object.keys(plan.at.captures).length > 0;
  const captures = hasCaptures ? (args.shift() ?? {}) : {};
  const params = { ...(plan.takes === true ? ((args.shift() ?? {}) as object) : {}), ...plan.fixed };
  const options = (args.shift() ?? {}) as CallOptions;
  const ask = (): unknown => {
    const route = routeOf(plan.at, captures as { readonly [name: string]: unknown });
    if (plan.kind === "subscribe") return client.$subscribe(route, options as SubscribeOptions);
    return client[`$${plan.kind}`](plan.action, route, params, options);
  };
  if (plan.kind === "stream") return ask();
  try {
    return ask();
  } catch (error) {
    return Promise.reject(error as Error);
  }
}

