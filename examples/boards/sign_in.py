"""Who somebody is: passwords, and the tokens that are had for them. The standard library is enough."""

import asyncio
import hashlib
import hmac
import secrets
import time

from examples.boards.tables import USERS, User
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.exceptions import NotAuthenticated, PermissionDenied

LIFETIME = 30 * 24 * 3_600  # seconds that a token is good for


def hash_password(password: str, salt: str = "") -> str:
    """A password as it is kept: ``"salt:hash"``. Takes some 50 ms, on purpose."""
    salt = salt or secrets.token_hex(16)
    key = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1)
    return f"{salt}:{key.hex()}"


def is_password(password: str, stored: str) -> bool:
    """Whether this is the password that is kept as ``stored``."""
    return hmac.compare_digest(hash_password(password, stored.partition(":")[0]), stored)


async def authenticate(name: str, password: str) -> User:
    """Who has this name and password. Raises `PermissionDenied`, as late for a name that there is not as for others."""
    user = await USERS.filter(name=name).first()
    stored = f"{'00' * 16}:" if user is None else user.password
    if not await asyncio.to_thread(is_password, password, stored) or user is None:
        raise PermissionDenied("This name and password do not belong together.")
    return user


def create_token(user: User, lifetime: int = LIFETIME) -> str:
    """A token: ``"3.1790000000.9f..."``, who, until when, and the signature of both.

    The key is the user's own password as it is kept, so that a new password ends all tokens.
    """
    claims = f"{user.id}.{int(time.time()) + lifetime}"
    return f"{claims}.{_signature(user, claims)}"


def _signature(user: User, claims: str) -> str:
    return hmac.new(user.password.encode(), claims.encode(), "sha256").hexdigest()


class TokenAuthentication(BearerAuthentication):
    """The tokens of `create_token`, however they come: by sub-protocol, header or ``$auth`` frame."""

    async def verify(self, token: str) -> Credential:
        claims, _, signature = token.rpartition(".")
        user_id, _, until = claims.partition(".")
        user = await USERS.filter(pk=int(user_id)).first() if user_id.isdecimal() and until.isdecimal() else None
        if user is None or not hmac.compare_digest(signature.encode(), _signature(user, claims).encode()):
            raise NotAuthenticated("This token is not valid.")
        if int(until) <= time.time():
            raise NotAuthenticated("This token has expired. Sign in again.")
        return Credential(user, expires_at=int(until))
