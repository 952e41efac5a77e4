"""ASGI scopes of WebSocket handshakes, as a server builds them from the request line and the headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

Scope = MutableMapping[str, Any]
HeaderTypes = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

# Characters that stay as they are in a request target: those reserved by RFC 3986, and "%" of encoded ones.
_SAFE_IN_PATH = "/:@!$&'()*+,;=~%"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "?"
_HANDSHAKE = (
    (b"host", b"testserver"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"d3NhY3Rpb24udGVzdGluZw=="),
)


def websocket_scope(
    path: str,
    *,
    headers: HeaderTypes | None = None,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    client: tuple[str, int] | None = ("testclient", 50000),
    spec_version: str = "2.4",
) -> dict[str, Any]:
    """Return a new scope for ``GET path`` with ``Upgrade: websocket``.

    ``path`` may contain a query string and percent-encoding: ``"/caf%C3%A9/?x=1"`` gives the ``path`` ``"/café/"``, the
    ``raw_path`` ``b"/caf%C3%A9/"`` and the ``query_string`` ``b"x=1"``. ``headers`` replace the default headers of the
    same name, so ``{"host": "example.com"}`` gives one Host header. To repeat a name, pass a list of pairs.

    :raises ValueError: ``path`` does not begin with a slash, or contains a fragment, which clients never send.
    """
    if not path.startswith("/") or "#" in path:
        raise ValueError(f"expected a path such as '/ws/?x=1', with a leading slash and no '#', got {path!r}")
    raw_path, _, query = path.partition("?")
    raw_path = quote(raw_path, safe=_SAFE_IN_PATH)
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii"),
        "query_string": quote(query, safe=_SAFE_IN_QUERY).encode("ascii"),
        "root_path": "",
        "headers": _handshake_headers(encode_headers(headers), subprotocols, origin),
        "client": client,
        "server": ("testserver", 80),
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }


def _handshake_headers(
    headers: list[tuple[bytes, bytes]], subprotocols: Sequence[str], origin: str | None
) -> list[tuple[bytes, bytes]]:
    defaults = list(_HANDSHAKE)
    if subprotocols:
        defaults.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode("latin-1")))
    if origin is not None:
        defaults.append((b"origin", origin.encode("latin-1")))
    names = {name for name, _ in headers}
    return [(name, value) for name, value in defaults if name not in names] + headers


def encode_headers(headers: HeaderTypes | None) -> list[tuple[bytes, bytes]]:
    """Return headers in ASGI's form: pairs of bytes with lower-case names, in their order.

    >>> encode_headers({"X-Token": "a"})
    [(b'x-token', b'a')]
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return [(_encode(name).lower(), _encode(value)) for name, value in pairs]


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return ASGI headers as a dict with lower-case names. Values of repeated names are joined by ``", "``.

    >>> decode_headers([(b"vary", b"a"), (b"vary", b"b")])
    {'vary': 'a, b'}
    """
    decoded: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        decoded[name] = f"{decoded[name]}, {value}" if name in decoded else value
    return decoded


def _encode(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
