"""Integrations with other libraries, one package for each; the library must be installed."""
