"""What chapters 11 to 13 say beyond the frames that `test_guide.py` sends."""

import re

from tests.support.documents import GUIDE, blocks, load
from wsaction.testing import connect

SOCKETIO = GUIDE / "13-from-socketio-and-channels"


async def test_the_consumer_of_channels_sends_to_its_room() -> None:
    app = load(SOCKETIO / "app.py").app
    async with (
        connect(app, "/ws/chat/tea/") as ada,
        connect(app, "/ws/chat/tea/") as grace,
        connect(app, "/ws/chat/coffee/") as other,
    ):
        await ada.send_json({"action": "say", "message": "hello"})
        for ws in (ada, grace):
            assert await ws.receive_json() == {"message": "hello"}
        assert (await other.call("$ping"))["status"] == 200
        await other.nothing()


def test_both_sides_of_a_port_are_shown() -> None:
    for folder in GUIDE.glob("1[123]-*"):
        page = folder / "README.md"
        assert blocks(page, "py")
        assert blocks(page, "python")
        assert "Before" in page.read_text()
        assert re.search(r"not\s+need|neither package", page.read_text())
