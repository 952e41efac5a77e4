// ---------------------------------------------------------------------------------------------------------- errors

/** Whatever this client raises of its own. */
export class ClientError extends Error {
  override name = "ClientError";

  constructor(message?: string, cause?: unknown) {
    super(message); // which takes a cause from ES2022 on
    if (cause !== undefined) Object.defineProperty(this, "cause", { value: cause, configurable: true, writable: true });
  }
}

/** There is no connection, and the client does not try any more. `code` is that of a close which says no. */
export class ConnectionFailed extends ClientError {
  override name = "ConnectionFailed";
  readonly isFinal: boolean;
  readonly code: number | undefined;

  constructor(message: string, isFinal = false, code?: number, cause?: unknown) {
    super(message, cause);
    this.isFinal = isFinal;
    this.code = code;
  }
}

/** The connection was lost before the final reply. The action may have been carried out or not: it is never sent again. */
export class ConnectionLost extends ClientError {
  override name = "ConnectionLost";
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason = "") {
    const detail = reason ? `, ${JSON.stringify(reason)}` : "";
    super(`the connection was lost (code ${code}${detail}); what was under way may have been carried out`);
    this.code = code;
    this.reason = reason;
  }
}

/** No reply in time; the server is told to cancel what was asked. `cause` says why there was no connection, if so. */
export class CallTimeout extends ClientError {
  override name = "CallTimeout";
  readonly seconds: number;

  constructor(what: string, seconds: number, cause?: unknown) {
    const detail = cause instanceof Error ? `: ${cause.message}` : "";
    super(`${what}: no reply in ${seconds} s${detail}`, cause);
    this.seconds = seconds;
  }
}

/** More waits than may: items of a stream for their consumer, or frames to be sent. */
export class Overflow extends ClientError {
  override name = "Overflow";
}

/** The server answered something else than what was asked for. */
export class UnexpectedReply extends ClientError {
  override name = "UnexpectedReply";
}

/** A route that cannot be: a capture that its pattern does not take. Nothing was sent. */
export class InvalidRoute extends ClientError {
  override name = "InvalidRoute";
}

/** One item of an error reply. */
export interface ErrorItem {
  readonly type: string;
  readonly msg: string;
  readonly loc?: ReadonlyArray<string | number>;
  readonly ctx?: { readonly [key: string]: unknown };
}

/** The server answered with an error. `type`, `msg` and `ctx` are those of the first of `errors`. */
export class ActionError extends ClientError {
  override name = "ActionError";
  readonly status: number;
  readonly errors: readonly ErrorItem[];
  readonly action: string;
  readonly route: string;
  readonly type: string;
  readonly msg: string;
  readonly ctx: { readonly [key: string]: unknown };

  constructor(status: number, errors: readonly ErrorItem[], action: string, route: string) {
    const items = errors.slice(0, 5).map((one) => `${one.type}: ${one.msg}${one.loc ? ` [${one.loc.join(".")}]` : ""}`);
    super(`${status} ${items.join("; ")} (${`${action} ${route}`.trim()})`);
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
  override name = "InvalidRequest";
}

/** 401: `$auth` was refused, or has to come first. */
export class NotAuthenticated extends ActionError {
  override name = "NotAuthenticated";
}

/** 403: a permission said no. */
export class PermissionDenied extends ActionError {
  override name = "PermissionDenied";
}

/** 404: no such object or page. */
export class NotFound extends ActionError {
  override name = "NotFound";
}

/** 404: no pattern of the server's matches the route. */
export class RouteNotFound extends NotFound {
  override name = "RouteNotFound";
}

/** 405: the route has no such action. */
export class ActionNotAllowed extends ActionError {
  override name = "ActionNotAllowed";
}

/** 408: it took the server too long, which cancelled it. */
export class ActionTimeout extends ActionError {
  override name = "ActionTimeout";
}

/** 409: with what is already there. */
export class Conflict extends ActionError {
  override name = "Conflict";
}

/** 429: too often. */
export class Throttled extends ActionError {
  override name = "Throttled";

  /** Seconds until the same may be asked again; undefined where the server does not say. */
  get retryAfter(): number | undefined {
    const seconds = this.ctx["retry_after"];
    return typeof seconds === "number" ? seconds : undefined;
  }
}

/** 499: cancelled, by another `$cancel` than the client's own. */
export class Cancelled extends ActionError {
  override name = "Cancelled";
}

/** 500: a bug of the server's. */
export class ServerError extends ActionError {
  override name = "ServerError";

  /** What finds it in the server's log. */
  get errorId(): string | undefined {
    const id = this.ctx["error_id"];
    return typeof id === "string" ? id : undefined;
  }
}

/** 503: busy, shutting down, or a part is away. Nothing was done: the same may be asked again later. */
export class Unavailable extends ActionError {
  override name = "Unavailable";
}

const BY_STATUS: { readonly [status: number]: typeof ActionError } = {
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

function actionError(reply: Reply): ActionError {
  const { status, errors, action, route } = reply;
  const isRoute = status === 404 && errors[0]?.type === "route_not_found";
  const kind = isRoute ? RouteNotFound : (BY_STATUS[status] ?? ActionError);
  return new kind(status, errors, action, route);
}

