"""The action job on rest-framework-channels: routes by `django.urls`, a handler, a serializer, a permission."""

import logging
from typing import Any

from benchmarks.contestants.by_hand import PATTERNS, TARGET
from benchmarks.contestants.django_settings import set_up
from benchmarks.job import pause

set_up()

from django.urls import path  # noqa: E402  # Django comes first
from rest_framework import serializers  # noqa: E402
from rest_framework_channels.consumers import AsyncAPIConsumer  # noqa: E402
from rest_framework_channels.decorators import async_action  # noqa: E402
from rest_framework_channels.handlers import AsyncAPIActionHandler  # noqa: E402
from rest_framework_channels.permissions import IsAuthenticated  # noqa: E402

logging.getLogger("rest_framework_channels").setLevel(logging.WARNING)  # else it logs two lines per frame

UNTOLD = ("request_id",)
STATUSES = {"no such route": 405}  # an unmatched route goes to the consumer, which lacks the action


class CardSerializer(serializers.Serializer):
    title = serializers.CharField(min_length=1, max_length=200)
    position = serializers.IntegerField(min_value=0)
    tags = serializers.ListField(child=serializers.CharField())


class Others(AsyncAPIActionHandler):
    permission_classes = [IsAuthenticated]


class Cards(AsyncAPIActionHandler):
    permission_classes = [IsAuthenticated]
    waits = False

    @async_action()
    async def update(self, data: Any, **kwargs: Any) -> tuple[Any, int]:
        serializer = CardSerializer(data=data)
        serializer.is_valid(raise_exception=True)
        if self.waits:
            await pause()
        return {"id": self.kwargs["pk"], "board_id": self.kwargs["board_id"], **serializer.validated_data}, 200


class WaitingCards(Cards):
    waits = True


def patterns(handler: type[AsyncAPIActionHandler]) -> list[Any]:
    return [path(pattern, (handler if pattern == TARGET else Others).as_aaah()) for pattern in PATTERNS]


class Boards(AsyncAPIConsumer):
    routepatterns = patterns(Cards)


class WaitingBoards(AsyncAPIConsumer):
    routepatterns = patterns(WaitingCards)


app, waiting_app = Boards.as_asgi(), WaitingBoards.as_asgi()
