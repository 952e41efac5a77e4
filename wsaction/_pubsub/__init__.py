"""The topics of one process: the layer delivers events to a topic, and the topic sends them to its subscriptions.

Read `hub` first: it holds the topics. `event` is one event, `topic` orders the events of a topic, `subscription` is one
connection's subscription, `join` starts it, `reconcile` finds lost events, `fanout` sends to many subscriptions.
"""
