"""The topics of one process: what a layer brings for a topic reaches its subscriptions here.

`hub` holds the topics; read it first. An `event` is what the layer brings, a `topic` orders what comes, a
`subscription` is one connection's, `join` is how it begins, `reconcile` finds what was lost, `fanout` sends to many.
"""
