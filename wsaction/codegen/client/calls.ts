// ----------------------------------------------------------------------------------------------------------- calls

/** How to call an action. */
export interface CallOptions<QueryName extends string = string> {
  readonly query?: Query<QueryName> | undefined;
  /** Seconds; null: as long as it takes. */
  readonly timeout?: number | null | undefined;
  /** Aborting it has the server cancel the action; the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What a route's pattern takes in its braces. */
interface Capture {
  readonly kind?: "int" | "uuid";
  readonly pattern?: string;
}

interface Route {
  readonly forms: readonly string[]; // the route and, without what may be missing, its other forms; none: any route
  readonly captures: { readonly [name: string]: Capture };
  readonly required: readonly string[]; // of the captures
}

interface Plan {
  readonly kind: "call" | "send" | "stream" | "subscribe";
  readonly action: string;
  readonly at: Route;
  readonly takes?: true; // parameters
  readonly fixed?: Frame; // that is sent with them
}

type Members = { readonly [name: string]: Members | readonly Plan[] };

/** What every generated client is built on: one address, one connection at a time, made again when it is lost. */
export class BaseClient {
  readonly #audience = new Audience();
  readonly #line: Line;

  constructor(url: string, options: ClientOptions = {}) {
    this.#line = this.#audience.line = new Line(url, options, this.#audience);
  }

  /** How it stands with the connection. */
  get state(): State {
    return this.#line.state;
  }

  /**
   * Connects now, not at the first call. Resolves once there is a connection; rejects with `ConnectionFailed` where there
   * will be none, because the server says no or the client is closed.
   */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#line.whenOpen(() => resolve(), reject);
    });
  }

  /** Calls a function with each new state and what led to it; returns what ends that. */
  onState(tell: (state: State, cause: Error | undefined) => void): () => void {
    return this.#line.watch(tell);
  }

  /** Closes it for good: what is under way fails with `ConnectionLost`, iterations end. `$flush()` first waits for sends. */
  close(): void {
    this.#line.close();
  }

  /** What the server pushes of no subscription, from now on. */
  $events(): Events {
    const events = this.#audience.listen(this.#line.buffer);
    this.#line.whenOpen(() => undefined, (error) => events.end(error));
    return events;
  }

  /** Runs an action by its name, of which the generated methods do not know; `params` are keys of its frame. */
  $call(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<unknown> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const fullRoute = withQuery(route, options.query);
    return this.#within(`${action} ${fullRoute}`, seconds, options.signal, (resolve, reject) => {
      const reply = (answer: Reply): void => {
        if (answer.status === 206) reject(new UnexpectedReply(`${action} ${fullRoute} is a stream; iterate over client.$stream(...)`));
        else if (answer.status >= 400) reject(actionError(answer));
        else resolve(answer.data);
      };
      return this.#ask(action, fullRoute, params, { reply, lost: reject, fail: reject });
    });
  }

  /**
   * Runs an action that answers nothing. Resolves once it is on its way; errors are logged. While `maxInFlight` requests
   * are under way it waits for its turn. What the server refuses for lack of room is sent again.
   */
  $send(action: string, route = "", params: object = {}, options: CallOptions = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    const fullRoute = withQuery(route, options.query);
    return this.#within(`${action} ${fullRoute}`, seconds, options.signal, (resolve, reject) => {
      return this.#line.submit(new OutgoingRequest(action, fullRoute, params, undefined, { resolve, reject }));
    });
  }

  /**
   * Resolves once every `$send` so far has run, or was refused by an error, which is logged. Rejects with
   * `ConnectionLost` if the connection was lost meanwhile: what was under way may have been carried out or not.
   */
  $flush(options: Pick<CallOptions, "timeout" | "signal"> = {}): Promise<void> {
    const seconds = options.timeout === undefined ? this.#line.timeout : options.timeout;
    return this.#within("flush", seconds, options.signal, (resolve, reject) => this.#line.flush({ resolve, reject }));
  }

  /** The items of an action that is a stream. */
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
        settle(); // a timeout bounds the first item
        asker.reply(answer);
      };
      stops.push(onAbort(options.signal, fail), () => settle());
      stops.push(this.#ask(action, fullRoute, params, { reply, lost: fail, fail }));
      return () => stops.forEach((stop) => stop());
    }, this.#line.buffer);
  }

  /** The events of a route, which is told in the form in which the server writes it. */
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
        const stop = this.#line.whenOpen((link) => joining.shared.look(link), reject);
        const stopLeaving = onAbort(settings.signal, () => joining.leave()); // at once, for whoever subscribes right after
        return () => {
          stop();
          stopLeaving();
        };
      });
    } catch (error) {
      follower?.leave();
      throw error;
    }
    const following = follower as Follower | undefined;
    if (following !== undefined) following.onEnd = onAbort(settings.signal, () => following.leave());
    return new Subscription(following);
  }

  /** Asks in its turn; returns what gives it up, and has it cancelled. */
  #ask(action: string, route: string, params: object, asker: StreamAsker): () => void {
    try {
      return this.#line.submit(new OutgoingRequest(action, route, params, asker));
    } catch (error) {
      asker.fail(error as Error);
      return () => undefined;
    }
  }

  /** What `begin` settles, unless time or the signal does; whatever settles it, what `begin` returned is called. */
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
      if (isSettled) for (const stop of stops.splice(0)) stop(); // it was settled before it had begun
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

/** The text of a capture. Throws `InvalidRoute` for what the route's pattern would not match, or not whole. */
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

/** The route with its captures written in, in the form that takes just these. Routes are never percent-encoded. */
function routeOf(route: Route, captures: { readonly [name: string]: unknown }): string {
  if (route.forms.length === 0) return captureText("route", captures["route"], {});
  const used = Object.keys(route.captures).filter((name) => captures[name] !== undefined);
  const form = route.forms.find((one) => Object.keys(route.captures).every((name) => one.includes(`{${name}}`) === used.includes(name)));
  if (form === undefined) throw new InvalidRoute(`${route.forms[0] ?? ""}: no form of it takes just ${used.join(", ") || "nothing"}`);
  return form.replace(/\{([^{}]+)\}/g, (match, name: string) => {
    const capture = hasOwn(route.captures, name) ? route.captures[name] : undefined;
    return capture === undefined ? match : captureText(name, captures[name], capture);
  });
}

/** A connection's address, whose captures are percent-encoded. */
function addressOf(server: string, route: Route, captures: object): string {
  const path = routeOf(route, captures as { readonly [name: string]: unknown });
  return `${server.replace(/\/+$/, "")}/${encodeURI(path).replace(/#/g, "%23")}`;
}

/** A route with its query, which is percent-encoded as in URLs. */
function withQuery(route: string, query: Query | undefined): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? (value as readonly QueryValue[]) : [value as QueryValue]).map((one) => [name, one] as const),
  );
  const present = pairs.filter(([, value]) => value !== undefined && value !== null);
  const text = present.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`).join("&");
  return text === "" ? route : `${route}${route.includes("?") ? "&" : "?"}${text}`;
}

/** Puts methods, and objects with methods, onto an object. */
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

/** Of the routes that a method is of, the first whose captures were given. */
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

