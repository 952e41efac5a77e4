"""Handler classes, compiled once: what a class body declares becomes actions in a table of routes.

`declarations` reads a class and `signatures` what its dependencies take; both make an `action`, which fills its
`parameters` and runs its `dependencies`. `mounts` puts a handler at its place, `route_table` finds it for a frame.
"""
