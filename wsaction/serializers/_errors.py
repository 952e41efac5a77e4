"""Errors as JSON: an error reply, and the items of its ``errors``."""

from pydantic_core import to_json

from wsaction._protocol.frames import Frame, encode_reply, tail_of
from wsaction.exceptions import APIError
from wsaction.serializers._write_only import strip_write_only


def encode_error(frame: Frame, error: APIError) -> str:
    """The reply to ``frame`` with ``error``; its ``data`` is null."""
    return encode_reply(tail_of(frame), "null", error.status, frame.request_id, encode_errors(error))


def encode_errors(error: APIError) -> str:
    """An error's items of ``errors`` as JSON."""
    try:
        return to_json(strip_write_only(error.errors), inf_nan_mode="null", fallback=str).decode()
    except Exception:  # the ctx cannot be written as JSON: send the error without it
        item = {"type": error.type, "msg": error.msg}
        return to_json([{key: str(text).encode(errors="replace") for key, text in item.items()}]).decode()
