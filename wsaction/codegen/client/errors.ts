// ---------------------------------------------------------------------------------------------------------- errors

/** Base class of all errors that the client throws. */
export class ClientError extends Error {
  override name = "ClientError";

  constructor(message?: string, cause?: unknown) {
    super(message); // a second argument, for the cause, needs ES2022
    if (cause !== undefined) Object.defineProperty(this, "cause", { value: cause, configurable: true, writable: true });
  }
}

/**
 * There is no connection. If `isFinal`, the server or the options rule out a new one. `code` is the close code, if the
 * connection was closed.
 */
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

/** The connection was lost before the final reply. The action may or may not have run; the client does not send it again. */
export class ConnectionLost extends ClientError {
  override name = "ConnectionLost";
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason = "") {
    const detail = reason ? `, ${JSON.stringify(reason)}` : "";
    super(`the connection was lost (code ${code}${detail}); actions in progress may have run`);
    this.code = code;
    this.reason = reason;
  }
}

/** No reply within the timeout. The client asks the server to cancel the action. `cause`: why there was no connection. */
export class CallTimeout extends ClientError {
  override name = "CallTimeout";
  readonly seconds: number;

  constructor(what: string, seconds: number, cause?: unknown) {
    const detail = cause instanceof Error ? `: ${cause.message}` : "";
    super(`${what}: no reply within ${seconds} s${detail}`, cause);
    this.seconds = seconds;
  }
}

/** Too much is waiting: items of a stream for their consumer, requests to be sent, or callers for a connection. */
export class Overflow extends ClientError {
  override name = "Overflow";
}

/** The server's reply does not fit the request, such as a stream for a call. */
export class UnexpectedReply extends ClientError {
  override name = "UnexpectedReply";
}

/** A capture that the pattern of its route does not match. Nothing was sent. */
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

/** The server replied with an error. `type`, `msg` and `ctx` are those of the first item of `errors`. */
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

/** 400: the frame, its data or its parameters are invalid. `errors` has an item with `loc` for each fault. */
export class InvalidRequest extends ActionError {
  override name = "InvalidRequest";
}

/** 401: the credential was refused, or `$auth` is required first. */
export class NotAuthenticated extends ActionError {
  override name = "NotAuthenticated";
}

/** 403: a permission denied the action. */
export class PermissionDenied extends ActionError {
  override name = "PermissionDenied";
}

/** 404: the object or page does not exist. */
export class NotFound extends ActionError {
  override name = "NotFound";
}

/** 404: the server has no pattern that matches the route. */
export class RouteNotFound extends NotFound {
  override name = "RouteNotFound";
}

/** 405: the route does not have this action. */
export class ActionNotAllowed extends ActionError {
  override name = "ActionNotAllowed";
}

/** 408: the action took too long, and the server cancelled it. */
export class ActionTimeout extends ActionError {
  override name = "ActionTimeout";
}

/** 409: the action conflicts with existing data. */
export class Conflict extends ActionError {
  override name = "Conflict";
}

/** 429: too many requests. */
export class Throttled extends ActionError {
  override name = "Throttled";

  /** Seconds to wait before the next attempt; undefined if the server does not say. */
  get retryAfter(): number | undefined {
    const seconds = this.ctx["retry_after"];
    return typeof seconds === "number" ? seconds : undefined;
  }
}

/** 499: cancelled by a `$cancel` frame that the client did not send on its own. */
export class Cancelled extends ActionError {
  override name = "Cancelled";
}

/** 500: the server failed. */
export class ServerError extends ActionError {
  override name = "ServerError";

  /** The id of the error in the server's log. */
  get errorId(): string | undefined {
    const id = this.ctx["error_id"];
    return typeof id === "string" ? id : undefined;
  }
}

/** 503: the server is busy or shutting down, or a part of it is unavailable. Nothing was done; try again later. */
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

