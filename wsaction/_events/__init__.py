"""From a handler to its topic: publishes events, and decides who may see them.

Read `publish` first: it takes an event of a handler or of the app. `plan` compiles a handler's event settings. `crud`
publishes the changes of generic actions. `access` decides what each subscriber sees. `subscribe` joins a topic.
`reauthorization` checks permissions again while a subscription lasts. `users` reaches all connections of a user.
"""
