"""Marks for tests that need Redis, and a redis-server for tests; see `benchmarks.redis_server`."""

import os

import pytest

from benchmarks.redis_server import PROGRAM, RedisServer, redis_server

__all__ = ("PROGRAM", "URL", "RedisServer", "needs_redis", "needs_redis_server", "redis_server")

URL = os.environ.get("WSACTION_TEST_REDIS_URL")

needs_redis = pytest.mark.skipif(
    not (URL or PROGRAM), reason="no Redis: install redis-server, or set WSACTION_TEST_REDIS_URL"
)
needs_redis_server = pytest.mark.skipif(not PROGRAM, reason="no redis-server on PATH, which this test starts and kills")
