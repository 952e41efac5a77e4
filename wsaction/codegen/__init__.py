"""Code generation: typed TypeScript and JavaScript clients, generated from an app's AsyncAPI document.

::

    from wsaction.codegen import erase_types, typescript

    client = typescript(app.asyncapi(), "ws")  # client.ts
    script = erase_types(client)  # client.js
"""

from wsaction.codegen._javascript import erase_types
from wsaction.codegen._typescript import typescript

__all__ = ("erase_types", "typescript")
