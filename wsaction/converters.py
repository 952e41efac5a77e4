"""Converters of captures, `<int:pk>`, and `register_converter` for your own: a door of `wsaction.routing`."""

from wsaction.routing.converters import Converter, get_converter, register_converter
from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("Converter", "ImproperlyConfigured", "get_converter", "register_converter")
