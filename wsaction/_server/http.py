"""HTTP responses of an app: its AsyncAPI document, the explorer, its root, and 426 for every other path.

The explorer is a static page. It derives the addresses of the document and of the socket from its own address, so it
works wherever the app is mounted. Its content security policy allows only its own script and style, and connections to
its own origin.

At the root, a browser gets a page that links the explorer and lists the addresses in the AsyncAPI document. It exists
only where the explorer does, so it tells nothing that is not public. Programs get 426 there, as elsewhere.
"""

import base64
import hashlib
import html
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from wsaction._protocol.close_codes import MEANINGS
from wsaction._server.lifecycle import upgrade_required
from wsaction._utils.asgi import Send
from wsaction.exceptions import ImproperlyConfigured

Page = tuple[bytes, list[tuple[bytes, bytes]]]  # body, headers

_POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TOOLS = ("schemas", "elements", "markdown", "fields", "snippets", "faults")
_SCRIPTS = (*_TOOLS, "socket", "views", "recovery", "sign_in", "memory", "tree", "form", "page")
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


class Pages:
    """The pages of an app, each rendered at its first request.

    ``document`` returns the AsyncAPI document. Both paths begin with a slash and are relative to the app's root path;
    None disables the page. The explorer needs the document. Raises `ImproperlyConfigured` if a path does not begin with
    a slash, or if both paths are the same.
    """

    def __init__(
        self, document: Callable[[], Mapping[str, Any]], *, asyncapi_url: str | None, docs_url: str | None
    ) -> None:
        self._pages: dict[str, Callable[[], Page]] = {}
        self._root: Callable[[str], Page] | None = None
        if asyncapi_url is not None:
            self._add("asyncapi_url", asyncapi_url, lambda: _as_json(document()))
        if asyncapi_url is not None and docs_url is not None:
            self._add("docs_url", docs_url, lambda: _explorer(docs_url, asyncapi_url))
            self._root = lambda way: _root(document(), docs_url, way)

    async def serve(self, scope: Any, path: str, send: Send) -> None:
        """Answers an HTTP request for ``path``, which is relative to the app's root path."""
        page = self._pages.get(path)
        if page is None and path == "/" and self._root is not None and _is_from_browser(scope):
            body, headers = self._root(_way_to_root(scope["path"]))
            await _answer(send, 200, body, [*headers, *_ALWAYS], tells_body=scope["method"] == "GET")
        elif page is None:
            await upgrade_required(send)
        elif scope["method"] in ("GET", "HEAD"):
            body, headers = page()
            await _answer(send, 200, body, [*headers, *_ALWAYS], tells_body=scope["method"] == "GET")
        else:
            await _answer(send, 405, b"Only GET and HEAD.\n", [(b"allow", b"GET, HEAD"), *_TEXT])

    def _add(self, name: str, path: Any, page: Callable[[], Page]) -> None:
        if not isinstance(path, str) or not path.startswith("/"):
            raise ImproperlyConfigured(f"{name}: expected a path that begins with a slash, as in '/docs', got {path!r}")
        if path in self._pages:
            raise ImproperlyConfigured(f"{name} and asyncapi_url are both {path!r}; give each a path of its own")
        self._pages[path] = page


_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


async def _answer(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, tells_body: bool = True
) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if tells_body else b""})


def _as_json(document: Mapping[str, Any]) -> Page:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return body, [(b"content-type", b"application/json")]


@lru_cache(maxsize=16)
def _explorer(at: str, document: str) -> Page:
    """The explorer's page; it gets the paths of the document and of the root relative to its own."""
    script = f"const CLOSE_CODES = {json.dumps(MEANINGS)};\n" + "".join(_file(f"{name}.js") for name in _SCRIPTS)
    here = posixpath.dirname(at)
    ways = {"asyncapi": posixpath.relpath(document, here), "root": posixpath.relpath("/", here) + "/"}
    return _page("page.html", script, {name: html.escape(way) for name, way in ways.items()})


def _root(document: Mapping[str, Any], docs_url: str, way: str) -> Page:
    """The page of ``GET /``; ``way`` leads from its address to the app's root."""
    channels = document.get("channels", {}).values()
    addresses = [channel.get("address") for channel in channels if "x-wsaction" in channel]
    items = "".join(
        f'<li><code data-path="{html.escape(address.removeprefix("/"))}">{html.escape(address)}</code></li>'
        for address in addresses
        if address is not None  # a regular expression has none
    )
    texts = {
        "title": html.escape(str(document.get("info", {}).get("title", "wsaction"))),
        "root": html.escape(way),
        "docs": html.escape(quote(docs_url.removeprefix("/"))),
        "addresses": f"<h2>Addresses</h2><ul>{items}</ul>" if items else "",
    }
    body, headers = _page("root.html", _file("root.js"), texts)
    return body, [*headers, (b"vary", b"accept")]


def _is_from_browser(scope: Any) -> bool:
    """Whether it is a GET or HEAD request that accepts HTML by name; programs send ``*/*`` or no Accept at all."""
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1").lower()
    ranges = ["".join(one.split()).split(";") for one in accepted.split(",")]
    return scope["method"] in ("GET", "HEAD") and any(
        kind == "text/html" and not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
        for kind, *parameters in ranges
    )


def _way_to_root(path: str) -> str:
    """The relative address of the app's root from ``path``, which is the root with or without its last slash."""
    return "./" if path.endswith("/") else quote(posixpath.basename(path)) + "/"


@lru_cache(maxsize=32)
def _file(name: str) -> str:
    from importlib.resources import files  # imported here: it takes 1 ms, and only these pages need it

    return (files("wsaction") / "_server" / "explorer" / name).read_text("utf-8")


def _page(name: str, script: str, texts: Mapping[str, str]) -> Page:
    """A page of the folder with its texts, the script and the style, and the policy that allows only these two."""
    texts = {**texts, "style": _file("style.css"), "script": script}
    body = re.sub(r"\{(\w+)\}", lambda found: texts[found[1]], _file(name))
    policy = _POLICY.format(script=_digest(script), style=_digest(texts["style"]))
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"x-frame-options", b"DENY"),
    ]
    return body.encode(), headers


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
