"""Code generation: typed TypeScript and JavaScript clients, generated from an app's AsyncAPI document.

::

    from wsaction.codegen import erase_types, react_hooks, typescript

    client = typescript(app.asyncapi(), "ws")  # client.ts
    hooks = react_hooks("client")  # client.react.ts
    script = erase_types(client)  # client.js
"""

from wsaction.codegen._javascript import erase_types
from wsaction.codegen._typescript import react_hooks, typescript

__all__ = ("erase_types", "react_hooks", "typescript")
