"""Code generation: typed TypeScript, JavaScript and Python clients, generated from an app's AsyncAPI document.

::

    from wsaction.codegen import erase_types, python, react_hooks, typescript

    client = typescript(app.asyncapi(), "ws")  # client.ts
    hooks = react_hooks("client")  # client.react.ts
    script = erase_types(client)  # client.js
    module = python(app.asyncapi(), "ws")  # client.py
"""

from wsaction.codegen._javascript import erase_types
from wsaction.codegen._python import python
from wsaction.codegen._typescript import react_hooks, typescript

__all__ = ("erase_types", "python", "react_hooks", "typescript")
