"""From a handler to its topic: what is published, and who may see it.

`publish` takes an event of a handler or of the app; read it first. `plan` has what a handler says of its events,
compiled. `crud` publishes what generic actions change, `access` decides what each subscriber may see, `subscribe` joins
a topic, `reauthorization` asks again what a subscription was allowed, `users` reaches all connections of a user.
"""
