"""Converters of captures, `<int:pk>`, and `register_converter` for your own: a door of `wsaction.routing`."""

from wsaction.routing.converters import Converter, ImproperlyConfigured, get_converter, register_converter

__all__ = ("Converter", "ImproperlyConfigured", "get_converter", "register_converter")
