"""A frame to its reply: `session` finds its handler, asks permissions, runs the action and writes the reply.

`middleware` runs around the action. `broadcasts` sends the replies of `mode="broadcast"` to the consumer's group.
"""
