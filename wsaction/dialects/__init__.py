"""Dialects: other protocols that clients may speak, translated to `wsaction.v1` and back.

`base` has what a dialect of your own subclasses, `dcrf` speaks that of djangochannelsrestframework.
"""
