"""Authentication by password, and the tokens that users get for it. Uses only the standard library."""

import asyncio
import hashlib
import hmac
import secrets
import time

from examples.boards.tables import USERS, User
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.exceptions import NotAuthenticated, PermissionDenied

LIFETIME = 30 * 24 * 3_600  # seconds that a token is valid


def hash_password(password: str, salt: str = "") -> str:
    """Hashes a password for storage: ``"salt:hash"``. Takes some 50 ms, on purpose."""
    salt = salt or secrets.token_hex(16)
    key = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1)
    return f"{salt}:{key.hex()}"


def is_password(password: str, stored: str) -> bool:
    """Whether the password belongs to a stored hash."""
    return hmac.compare_digest(hash_password(password, stored.partition(":")[0]), stored)


async def authenticate(name: str, password: str) -> User:
    """Returns the user with this name and password.

    Raises `PermissionDenied`. An unknown name takes as long as a wrong password, so that names cannot be found out.
    """
    user = await USERS.filter(name=name).first()
    stored = f"{'00' * 16}:" if user is None else user.password
    if not await asyncio.to_thread(is_password, password, stored) or user is None:
        raise PermissionDenied("The name or the password is wrong.")
    return user


def create_token(user: User, lifetime: int = LIFETIME) -> str:
    """Creates a token such as ``"3.1790000000.9f..."``: user id, time of expiry, and a signature of both.

    The key is the user's stored password, so that a new password ends all their tokens.
    """
    claims = f"{user.id}.{int(time.time()) + lifetime}"
    return f"{claims}.{_signature(user, claims)}"


def _signature(user: User, claims: str) -> str:
    return hmac.new(user.password.encode(), claims.encode(), "sha256").hexdigest()


class TokenAuthentication(BearerAuthentication):
    """Accepts the tokens of `create_token`, in a subprotocol, a header or an ``$auth`` frame."""

    async def verify(self, token: str) -> Credential:
        claims, _, signature = token.rpartition(".")
        user_id, _, until = claims.partition(".")
        user = await USERS.filter(pk=int(user_id)).first() if user_id.isdecimal() and until.isdecimal() else None
        if user is None or not hmac.compare_digest(signature.encode(), _signature(user, claims).encode()):
            raise NotAuthenticated("This token is not valid.")
        if int(until) <= time.time():
            raise NotAuthenticated("This token has expired. Sign in again.")
        return Credential(user, expires_at=int(until))
