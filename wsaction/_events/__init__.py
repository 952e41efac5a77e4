"""From a handler to its topic: what is published, and who may see it.

`publish` takes an event of a handler or of the app; read it first. `event_types` has the types that a handler declares,
`crud` publishes what generic actions change, `access` decides what each subscriber may see, `grants` asks again what a
subscription was allowed, `users` reaches all connections of a user.
"""
