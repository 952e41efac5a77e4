"""Code generation: typed clients, written from the same description as the AsyncAPI document."""
