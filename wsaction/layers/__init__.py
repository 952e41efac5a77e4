"""Layers carry events between the processes of an app and keep their history.

`wsaction.layers.memory.MemoryLayer` serves one process, `wsaction.layers.redis.RedisLayer` many. `base` has the
protocol that a layer of your own implements; `wsaction.testing.layers` tests it.
"""
