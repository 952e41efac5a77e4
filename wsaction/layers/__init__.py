"""Layers carry events between the processes of an app and keep their history.

Use `wsaction.layers.memory.MemoryLayer` for one process and `wsaction.layers.redis.RedisLayer` for several. To write
your own, implement the protocol in `wsaction.layers.base` and test it with `wsaction.testing.layers`.
"""
