"""What mypy and pyright must know of the Python client. `test_python_types` checks this file with both, strictly."""

from typing import Any, assert_type

from pydantic import BaseModel, TypeAdapter

from wsaction.client import Client, Event, Position, Resync, Subscription


class Card(BaseModel):
    id: int
    title: str


class Deleted(BaseModel):
    pk: int


class Other(BaseModel):
    pass


async def calls(client: Client) -> None:
    assert_type(await client.call("retrieve", "cards/1/", returns=Card), Card)
    assert_type(await client.call("list", "cards/", returns=list[Card]), list[Card])
    maybe: TypeAdapter[Card | None] = TypeAdapter(Card | None)
    assert_type(await client.call("find", "cards/", returns=maybe), Card | None)
    assert_type(await client.call("retrieve", "cards/1/"), Any)
    async for line in client.stream("tail", "logs/7/", returns=str):
        assert_type(line, str)


async def subscriptions(client: Client, saved: Position | None) -> None:
    async with client.subscribe("cards/", snapshot=list[Card], events={"created": Card}) as cards:
        assert_type(cards, Subscription[list[Card], Card])
        assert_type(cards.snapshot, list[Card])
        async for item in cards:
            if isinstance(item, Resync):
                assert_type(item, Resync[list[Card]])
                assert_type(item.snapshot, list[Card])
            else:
                assert_type(item, Event[Card])
                assert_type(item.data, Card)
    async with client.subscribe("cards/", snapshot=list[Card], since=saved) as again:
        assert_type(again.snapshot, list[Card] | None)
    kinds: dict[str, type[Card | Deleted]] = {"created": Card, "deleted": Deleted}
    async with client.subscribe("cards/", events=kinds) as two:
        assert_type(two, Subscription[None, Card | Deleted])
        assert_type(two.snapshot, None)
        async for told in two:
            if isinstance(told, Event) and isinstance(told.data, Card):
                assert_type(told.data.title, str)
    async with client.subscribe("cards/", snapshot=True) as plain:
        assert_type(plain.snapshot, Any)


async def mistakes(client: Client) -> None:
    async with client.subscribe("cards/", snapshot=list[Card], events={"created": Card}) as cards:
        others: list[Other] = cards.snapshot  # an error
        print(others, cards.snapshot.title)  # an error
        async for item in cards:
            if isinstance(item, Event):
                print(item.data.name)  # an error
    number: int = await client.call("retrieve", "cards/1/", returns=Card)  # an error
    print(number)
    await client.call("retrieve", "cards/1/", returns="Card")  # an error
    client.subscribe("cards/", snapshot="yes")  # an error
