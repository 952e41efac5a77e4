"""Close codes and HTTP statuses: after which of them a client may connect again.

=====================  ==========================================================================================
1008                   refused: connecting again as it is will not help
4400 to 4499           what HTTP 400 to 499 would say: refused, except 4408, 4425 and 4429
4401, once let in      the credential has expired: connect again with a fresh one, at once
anything else          connect again, after a wait
=====================  ==========================================================================================

A client that has a function for its credential may try once more after a refusal, since that may give another one. The
TypeScript client (``codegen/client/reconnect.ts``) and the explorer (``_server/explorer/socket.js``) have the same
rule; a test compares.
"""

__all__ = ("NOT_AUTHENTICATED", "PASSING_STATUSES", "POLICY", "refuses", "status_refuses")

POLICY = 1008
NOT_AUTHENTICATED = 4401
PASSING_STATUSES = frozenset({408, 425, 429})  # and all from 500 on: the same request may be answered otherwise later


def status_refuses(status: int) -> bool:
    """Whether an HTTP status, or that of a reply to ``$auth``, says that asking again as it is will not help."""
    return status < 500 and status not in PASSING_STATUSES


def refuses(code: int) -> bool:
    """Whether a close code says that connecting again as it is will not help."""
    return code == POLICY or (4400 <= code < 4500 and status_refuses(code - 4000))
