"""The rights that chapter 08 gives to the user of Redis: they are enough, and none can be left out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nginx import CHAPTER
from tests.support.redis_servers import RedisServer, needs_redis_server, redis_server
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers.redis import RedisLayer
from wsaction.testing.layers import LayerContract, Recorder

pytestmark = [pytest.mark.slow, needs_redis_server]

RULES = (CHAPTER / "redis-users.acl").read_text()
COMMANDS = [rule for rule in RULES.split() if rule.startswith("+")]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    directory = tmp_path_factory.mktemp("redis")
    (directory / "users.acl").write_text(RULES)
    with redis_server(directory, "--aclfile", str(directory / "users.acl")) as server:
        yield server


def url(redis: RedisServer) -> str:
    return f"redis://chat:change-me@127.0.0.1:{redis.port}/0"


class TestWithThem(LayerContract):
    """All that a layer has to do, with these rights."""

    shared = True

    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisServer) -> None:
        self.url = url(redis)

    def make(self) -> RedisLayer:
        return RedisLayer(self.url)


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_app_does_not_start_without_one_of_them(tmp_path: Path, command: str) -> None:
    (tmp_path / "users.acl").write_text(RULES.replace(f" {command} ", " ").replace(f" {command}\n", "\n"))
    with redis_server(tmp_path, "--aclfile", str(tmp_path / "users.acl")) as server:
        layer = RedisLayer(url(server))
        with pytest.raises(ImproperlyConfigured, match="refuses a command"):
            await layer.open(Recorder())
        await layer.close()
