"""The action job on djangochannelsrestframework: an action, a serializer and a permission. The route is by hand, since
its frames have none."""

from typing import Any

from benchmarks.contestants.by_hand import PATTERNS, TARGET, compile_pattern
from benchmarks.contestants.django_settings import set_up
from benchmarks.job import pause

set_up()

from djangochannelsrestframework.consumers import AsyncAPIConsumer  # noqa: E402  # Django comes first
from djangochannelsrestframework.decorators import action  # noqa: E402
from djangochannelsrestframework.permissions import IsAuthenticated  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.exceptions import MethodNotAllowed, NotFound  # noqa: E402

ROUTES = [(compile_pattern(pattern), pattern == TARGET) for pattern in PATTERNS]
UNTOLD = ("route",)


class CardSerializer(serializers.Serializer):
    title = serializers.CharField(min_length=1, max_length=200)
    position = serializers.IntegerField(min_value=0)
    tags = serializers.ListField(child=serializers.CharField())


class Cards(AsyncAPIConsumer):
    permission_classes = [IsAuthenticated]
    waits = False

    @action()
    async def update(self, route: str, data: Any, **kwargs: Any) -> tuple[Any, int]:
        for matches, can_update in ROUTES:  # noqa: B007  # used after the break
            if match := matches(route):
                break
        else:
            raise NotFound()
        if not can_update:
            raise MethodNotAllowed("update")
        serializer = CardSerializer(data=data)
        serializer.is_valid(raise_exception=True)
        if self.waits:
            await pause()
        return {"id": int(match["pk"]), "board_id": int(match["board_id"]), **serializer.validated_data}, 200


class WaitingCards(Cards):
    waits = True


app, waiting_app = Cards.as_asgi(), WaitingCards.as_asgi()
