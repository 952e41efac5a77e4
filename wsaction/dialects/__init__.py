"""Dialects translate the protocol of another framework to `wsaction.v1` and back, so that its clients can connect.

`dcrf` speaks the protocol of djangochannelsrestframework. To write your own dialect, implement the protocols in `base`.
"""
