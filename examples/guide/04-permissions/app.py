"""Permissions and sign-in: support tickets of their owners, and what staff may do."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from wsaction import (
    AsyncAPIConsumer,
    BasePermission,
    BearerAuthentication,
    Credential,
    IsAuthenticated,
    IsOwner,
    MemoryQuerySet,
    ModelAPIActionHandler,
    SimpleRouter,
    WSAction,
    async_action,
)
from wsaction.exceptions import Conflict, NotAuthenticated
from wsaction.routing import path
from wsaction.throttling import ConnectionRateThrottle, UserRateThrottle


@dataclass
class User:
    """A user of this app. wsaction asks for `is_authenticated`, and for `id` (or `pk`, or `identity`)."""

    id: int
    name: str
    is_staff: bool = False
    is_authenticated: bool = True


TOKENS = {
    "token-of-ada": User(1, "ada"),
    "token-of-grace": User(2, "grace"),
    "token-of-tim": User(3, "tim", is_staff=True),
}


class TokenAuthentication(BearerAuthentication):
    """Looks tokens up. A real app would verify a signature: see the page."""

    def verify(self, token: str) -> Credential:
        if token not in TOKENS:
            raise NotAuthenticated("This token is not valid, or no longer.")
        return Credential(TOKENS[token])


class Ticket(BaseModel):
    id: int
    owner_id: int
    text: str
    open: bool = True


class TicketClosed(Conflict):
    """Its status, its type, and what it says unless it is raised with other words."""

    code = 409, "ticket_closed", "This ticket is closed."


class IsStaff(BasePermission):
    """Asked before the action is looked for."""

    message = "Only staff may do this."

    def has_permission(self, scope: Mapping[str, object], handler: object, action: str) -> bool:
        user = scope["user"]
        return isinstance(user, User) and user.is_staff


class IsMine(IsOwner):
    """Asked in `get_object()`: the object's `owner_id` is the user's id."""

    lookup_field = "owner_id"


class TicketHandler(ModelAPIActionHandler[Ticket]):
    """Tickets of their owners. Staff sees all of them."""

    user: User
    queryset = MemoryQuerySet(Ticket, rows=[Ticket(id=1, owner_id=1, text="It is slow.")])
    serializer_class = Ticket
    permission_classes = (IsAuthenticated, IsMine | IsStaff)
    throttle_classes = (ConnectionRateThrottle("50/s"), UserRateThrottle("1000/hour"))

    @async_action(name="close", detail=True)  # a method called close would hide the handler's own, and is refused
    async def close_ticket(self) -> None:
        ticket = await self.get_object()  # 404 if there is none, 403 if it is another's
        if not ticket.open:
            raise TicketClosed
        await self.perform_update(ticket, {"open": False})

    @async_action(permission_classes=(IsAuthenticated, IsStaff), detail=True)  # instead of the handler's own
    async def reopen(self) -> None:
        await self.perform_update(await self.get_object(), {"open": True})

    @async_action(throttle_classes=(UserRateThrottle("2/min", scope="invite"),), detail=False)
    async def invite(self, name: str) -> str:
        return f"{self.user.name} invites {name}."


class Desk(AsyncAPIConsumer):
    """The consumer."""

    router = SimpleRouter()
    router.register("tickets", TicketHandler)
    routepatterns = router.urls


app = WSAction([path("ws/", Desk.as_asgi())], authentication_classes=[TokenAuthentication], title="Desk")
