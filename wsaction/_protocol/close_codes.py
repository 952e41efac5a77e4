"""The close codes of wsaction.v1, and after which close codes and HTTP statuses a client should reconnect.

=====================  ==========================================================================================
1008                   refused: do not reconnect with the same request
4400 to 4499           the meaning of HTTP 400 to 499: refused, except 4408, 4425 and 4429
4401, once connected   the credential has expired: reconnect at once with a fresh one
any other              reconnect after a wait
=====================  ==========================================================================================

A client with a function for its credential may try once more after a refusal, because the function may return another
one. To add a code, name it here and in `MEANINGS`, which the explorer shows. The rule of `refuses` stands again in
``codegen/client/reconnect.ts`` for the TypeScript client and in ``_server/explorer/socket.js`` for the explorer; a test
compares them.
"""

# RFC 6455, section 7.4.1, and IANA's registry of close codes
NORMAL = 1000
PROTOCOL_ERROR = 1002
NO_STATUS = 1005  # never sent; the peer's close frame had no code
NO_CLOSE_FRAME = 1006  # never sent; the connection ended without a close frame
INVALID_TEXT = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

# wsaction's own: 4000 plus the HTTP status of the same meaning
NOT_AUTHENTICATED = 4401
FORBIDDEN = 4403
NOT_FOUND = 4404
IDLE = 4408

MEANINGS = {
    NORMAL: "normal",
    PROTOCOL_ERROR: "protocol error",
    NO_CLOSE_FRAME: "no closing handshake",
    INVALID_TEXT: "not UTF-8",
    POLICY_VIOLATION: "refused",
    MESSAGE_TOO_BIG: "message too big",
    INTERNAL_ERROR: "server fault",
    SERVICE_RESTART: "restart",
    TRY_AGAIN_LATER: "too slow",
    NOT_AUTHENTICATED: "not authenticated",
    FORBIDDEN: "forbidden",
    NOT_FOUND: "not found",
    IDLE: "idle",
}

PASSING_STATUSES = frozenset({408, 425, 429})  # as are all from 500: the same request may succeed later


def code_for_status(status: int) -> int:
    """The close code with the meaning of an HTTP status from 400 to 499: 4404 for 404."""
    return 4000 + status


def status_refuses(status: int) -> bool:
    """Whether an HTTP status, or the status of a reply to ``$auth``, means that the same request will fail again."""
    return status < 500 and status not in PASSING_STATUSES


def refuses(code: int) -> bool:
    """Whether a close code means that the same connection will be refused again."""
    return code == POLICY_VIOLATION or (4400 <= code < 4500 and status_refuses(code - 4000))
