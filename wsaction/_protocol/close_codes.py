"""Close codes of wsaction.v1, and after which of them, or of HTTP statuses, a client may connect again.

=====================  ==========================================================================================
1008                   refused: connecting again as it is will not help
4400 to 4499           what HTTP 400 to 499 would say: refused, except 4408, 4425 and 4429
4401, once let in      the credential has expired: connect again with a fresh one, at once
anything else          connect again, after a wait
=====================  ==========================================================================================

A client that has a function for its credential may try once more after a refusal, since that may give another one. To
add a code, name it here and in `MEANINGS`, which the explorer shows. The TypeScript client has the rule of `refuses`
in ``codegen/client/reconnect.ts``, the explorer in ``_server/explorer/socket.js``; a test compares them.
"""

__all__ = (
    "FORBIDDEN",
    "IDLE",
    "INTERNAL_ERROR",
    "MEANINGS",
    "NORMAL",
    "NOT_AUTHENTICATED",
    "NOT_FOUND",
    "NO_CLOSE_FRAME",
    "NO_STATUS",
    "PASSING_STATUSES",
    "POLICY_VIOLATION",
    "SERVICE_RESTART",
    "TRY_AGAIN_LATER",
    "code_for_status",
    "refuses",
    "status_refuses",
)

# RFC 6455 section 7.4.1, and IANA's registry of WebSocket close codes
NORMAL = 1000
NO_STATUS = 1005  # never sent: the peer's close frame had no code
NO_CLOSE_FRAME = 1006  # never sent: the peer is gone without a close frame
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

# our own: 4000 and the HTTP status that says the same
NOT_AUTHENTICATED = 4401
FORBIDDEN = 4403
NOT_FOUND = 4404
IDLE = 4408

MEANINGS = {
    NORMAL: "normal",
    NO_CLOSE_FRAME: "no closing handshake",
    POLICY_VIOLATION: "refused",
    INTERNAL_ERROR: "server fault",
    SERVICE_RESTART: "restart",
    TRY_AGAIN_LATER: "too slow",
    NOT_AUTHENTICATED: "not authenticated",
    FORBIDDEN: "forbidden",
    NOT_FOUND: "not found",
    IDLE: "idle",
}

PASSING_STATUSES = frozenset({408, 425, 429})  # and all from 500 on: the same request may be answered otherwise later


def code_for_status(status: int) -> int:
    """The close code that says what an HTTP status from 400 to 499 says: 4404 for 404."""
    return 4000 + status


def status_refuses(status: int) -> bool:
    """Whether an HTTP status, or that of a reply to ``$auth``, says that asking again as it is will not help."""
    return status < 500 and status not in PASSING_STATUSES


def refuses(code: int) -> bool:
    """Whether a close code says that connecting again as it is will not help."""
    return code == POLICY_VIOLATION or (4400 <= code < 4500 and status_refuses(code - 4000))
