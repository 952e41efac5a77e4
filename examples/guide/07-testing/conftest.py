"""What the tests share: the event loop, users, and notes that no other test has seen."""

from collections.abc import AsyncIterator

import pytest
from app import NoteHandler


class User:
    is_authenticated = True

    def __init__(self, id: int) -> None:
        self.id = id


ada, grace = User(1), User(2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # wsaction does not run on trio


@pytest.fixture(autouse=True)
async def no_notes() -> AsyncIterator[None]:
    """Leaves no notes behind."""
    yield
    async for note in NoteHandler.queryset:
        await NoteHandler.queryset.delete(note)
