"""A record of the states of a client's connection."""

import asyncio

from tests.support.scripted import WAIT


class States:
    """Records the calls of ``on_state``."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.causes: list[Exception | None] = []
        self._changed = asyncio.Event()

    def __call__(self, state: str, cause: Exception | None) -> None:
        self.all.append(state)
        self.causes.append(cause)
        self._changed.set()

    async def reach(self, state: str, times: int = 1) -> None:
        """Waits until the client is in this state, and has been in it so many times."""
        async with asyncio.timeout(WAIT):
            while self.all[-1] != state or self.all.count(state) < times:
                self._changed.clear()
                await self._changed.wait()
