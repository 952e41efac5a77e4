"""Your first app: one consumer with actions of every kind."""

from collections.abc import AsyncIterator

from wsaction import APIError, AsyncAPIConsumer, WSAction, async_action, path


class Calculator(AsyncAPIConsumer):
    """One instance serves one connection, from its handshake to its end."""

    total: int = 0

    @async_action
    async def echo(self, text: str) -> str:
        """Returns the text."""
        return text

    @async_action
    async def add(self, number: int) -> int:
        """Adds a number to this connection's total."""
        self.total += number
        return self.total

    @async_action
    def divide(self, by: int) -> float:
        """Divides the total. A `def` runs in a thread."""
        if by == 0:
            raise APIError(422, "division_by_zero", "A number cannot be divided by 0.")
        return self.total / by

    @async_action
    async def count(self, to: int) -> AsyncIterator[int]:
        """Streams the numbers from 1."""
        for number in range(1, to + 1):
            yield number

    @async_action(mode="none")
    async def clear(self) -> None:
        """Sets the total to 0 and sends no reply."""
        self.total = 0


app = WSAction([path("ws/", Calculator.as_asgi())], title="Calculator", debug=True)
