"""Path converters, as in ``<int:pk>``, and `register_converter` for new ones. Names of `wsaction.routing`."""

from wsaction.routing.converters import Converter, get_converter, register_converter
from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("Converter", "ImproperlyConfigured", "get_converter", "register_converter")
