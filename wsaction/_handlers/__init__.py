"""Handler classes, compiled once: what a class body declares becomes actions in a table of routes.

`declarations` reads the methods of a class, and `signatures` their dependencies. The result is an `Action`: it fills
its `parameters`, runs its `dependencies` and calls the method. `mounts` puts handlers at their places among the routes,
and `route_table` finds the handler for a frame. Read `action` first.
"""
