"""Authentication: who the user of a connection is, found in its handshake or in its first frame.

Subclass `BearerAuthentication`, `SessionAuthentication` or `FirstFrameAuthentication` and name it in
``WSAction(authentication_classes=[...])``. Starlette's ``AuthenticationMiddleware`` works unchanged beside them.
"""

from wsaction.authentication._classes import (
    BaseAuthentication,
    BearerAuthentication,
    Credential,
    FirstFrameAuthentication,
    SessionAuthentication,
)

__all__ = (
    "BaseAuthentication",
    "BearerAuthentication",
    "Credential",
    "FirstFrameAuthentication",
    "SessionAuthentication",
)
