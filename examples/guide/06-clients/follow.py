"""Prints the cards, adds one, and prints what changes: `python follow.py ws://127.0.0.1:8000/ws/ "A card"`."""

import asyncio
import sys
from typing import Generic, TypeVar

from pydantic import BaseModel

from wsaction.client import ActionError, Resync, connect

T = TypeVar("T")


class Card(BaseModel):
    id: int
    title: str
    done: bool


class Deleted(BaseModel):
    pk: int


class Page(BaseModel, Generic[T]):
    results: list[T]


EVENTS: dict[str, type[Card | Deleted]] = {"created": Card, "updated": Card, "deleted": Deleted}


async def follow(url: str, title: str, changes: int) -> None:
    async with (
        connect(url, on_state=lambda state, cause: print(state)) as client,
        client.subscribe("cards/", snapshot=Page[Card], events=EVENTS) as cards,
    ):
        print([card.title for card in cards.snapshot.results])
        card = await client.call("create", "cards/", data={"title": title}, returns=Card)
        try:
            await client.call("partial_update", f"cards/{card.id}/", data={"done": "perhaps"})
        except ActionError as error:
            print(error.status, error.type)
        await client.call("destroy", f"cards/{card.id}/")
        async for item in cards:
            if isinstance(item, Resync):
                print([card.title for card in item.snapshot.results])  # events were lost: this is the list now
            else:
                print(item.event, item.data)
            if (changes := changes - 1) == 0:
                break


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1], sys.argv[2], changes=2))
