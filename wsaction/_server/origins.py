"""Checks of the Host and Origin headers: which web pages may open a WebSocket.

A browser sends a site's cookies with every handshake to that site, no matter which page opens the socket, and CORS does
not apply to WebSockets. The server can rely on the Origin header, which a page cannot forge. An app's own origin is
derived from the Host header, so the Host is checked first: an attacker may point a domain of their own at this server
(DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any

from wsaction.routing.exceptions import ImproperlyConfigured

_NAME = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
_HOST = rf"{_NAME}(?::(?P<port>[1-9][0-9]{{0,4}}))?"
_SERVED = rf"{_NAME}\.?(?::[0-9]{{0,5}})?"  # any port
_ORIGIN = rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}"
_FLAGS = re.ASCII | re.IGNORECASE
_EXPECTED = "'*', 'scheme://host[:port]' or 'scheme://*.name[:port]'"
_PORTS = {"http": 80, "https": 443}

# Scheme, host in lower case, port. The port is None if the origin has none and the scheme has no default.
_Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Decides from a request's scope whether its Host header names this server.

    ``allowed_hosts`` are compared without regard to case, port and a trailing dot:

    - ``"example.com"``, ``"10.0.0.5"``, ``"[::1]"``: this host;
    - ``"*.example.com"``: its subdomains at any depth; ``".example.com"``: its subdomains and ``example.com`` itself;
    - ``"*"``: every host.

    If ``allowed_hosts`` is set, a request with no Host, several Hosts or a malformed Host is refused. If it is empty,
    the address decides that ``scope["server"]`` says the request arrived on. On a loopback address, the Host must be a
    loopback name (``localhost`` and its subdomains, 127.0.0.0/8, ``[::1]``) or absent; every browser sends one. On
    other addresses and on UNIX sockets every Host is accepted.

    Raises `ImproperlyConfigured` for an entry that can never match, and for a value that is not a list of strings.
    """

    allowed_hosts: Sequence[str] = ()
    _listed: frozenset[str] = field(init=False, repr=False, compare=False)
    _parents: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.allowed_hosts
        if isinstance(entries, str) or not all(isinstance(entry, str) for entry in entries):
            raise ImproperlyConfigured(
                f"allowed_hosts: expected a list of strings such as ['example.com'], got {entries!r}"
            )
        named = [entry for entry in entries if entry != "*"]
        parents = [entry for entry in named if entry.startswith(("*.", "."))]
        listed = [entry.removeprefix(".") for entry in named if not entry.startswith("*.")]
        object.__setattr__(self, "allowed_hosts", tuple(entries))  # the class is frozen
        object.__setattr__(self, "_listed", frozenset(map(_host_entry, listed)))
        object.__setattr__(self, "_parents", frozenset(_host_entry(e.removeprefix("*")[1:]) for e in parents))

    def refusal(self, scope: Mapping[str, Any]) -> str | None:
        """The reason for refusing the request, as a sentence for the log with the cure; None if it is allowed."""
        if "*" in self.allowed_hosts or not (self.allowed_hosts or _is_loopback(scope)):
            return None
        hosts = _values(scope, b"host")
        host = _served(hosts[0], _SERVED) if len(hosts) == 1 else None
        found = "no Host header" if not hosts else f"the Host {', '.join(hosts)[:200]!r}"
        if self.allowed_hosts:
            if host is not None and (host in self._listed or any(one in self._parents for one in _above(host))):
                return None
            return f"The request has {found}, which is not in allowed_hosts."
        if not hosts or (host is not None and _is_loopback_name(host)):
            return None
        cure = "If a proxy serves the app by that name, list it: WSAction([...], allowed_hosts=['example.com'])."
        return f"The request has {found}, but on a loopback address only loopback names are allowed. {cure}"


def _host_entry(entry: str) -> str:
    """An entry of ``allowed_hosts`` in canonical form; ``entry`` has no ``*.`` or ``.`` before it."""
    text = _to_ascii(entry)
    if (host := _served(f"[{text}]" if ":" in text and "[" not in text else text, rf"{_NAME}\.?")) is None:
        expected = "'example.com', '*.example.com', '.example.com', an address or '*'"
        cure = "leave out scheme, port and path, and write an internationalized host in its xn-- form"
        raise ImproperlyConfigured(f"expected {expected} in allowed_hosts, got {entry!r}; {cure}")
    return host


def _served(text: str, pattern: str) -> str | None:
    """The host of a Host header or an entry in canonical form; None if it is malformed."""
    match = re.fullmatch(pattern, text, _FLAGS)
    return None if match is None else _canonical(match["host"])


def _above(host: str) -> Iterator[str]:
    """The parent domains of a host: ``b.com`` and ``com`` for ``a.b.com``."""
    labels = host.split(".")
    return (".".join(labels[n:]) for n in range(1, len(labels)))


def _is_loopback(scope: Mapping[str, Any]) -> bool:
    """Whether the request arrived on a loopback address; False if the address is unknown, as on a UNIX socket."""
    server: Any = scope.get("server") or ("",)
    return _is_loopback_address(str(server[0]))


def _is_loopback_name(host: str) -> bool:
    """Whether a host names the client's own machine; 0.0.0.0 and [::] do, and no DNS record can redirect them."""
    name = host.rpartition(".")[2]
    return name == "localhost" or host in ("0.0.0.0", "[::]") or _is_loopback_address(host.strip("[]"))  # noqa: S104


def _is_loopback_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return text == "localhost"
    mapped: IPv4Address | IPv6Address = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """Decides from a handshake's scope whether the page that opens the socket may do so.

    ``allowed_origins`` lists the origins that are allowed besides the app's own. They are compared without regard to
    case, and default ports may be left out:

    - ``"https://example.com"``, ``"http://localhost:3000"``, ``"http://[::1]:8000"``, ``"app://desktop"``: this origin;
    - ``"https://*.example.com"``: its subdomains at any depth, but not ``https://example.com``;
    - ``"*"``: every page, ``null`` included. Use it only if the app trusts no cookie.

    The rules, in this order:

    1. Several Origin headers are refused.
    2. No Origin header (the client is not a browser) is allowed unless ``require_origin`` is set.
    3. Every origin is allowed if ``"*"`` is listed.
    4. ``null`` (a sandboxed frame or a file) is refused.
    5. A listed origin is allowed.
    6. An origin with the host and port of the request's Host header is allowed. If the Host has no port, that is 443
       for ``wss``, and 80 or 443 for ``ws``, since a proxy may have terminated TLS.
    7. Everything else is refused, malformed values included. No header value raises an exception.

    Raises `ImproperlyConfigured` for an entry of ``allowed_origins`` that can never match or could match more than it
    seems to, and for a value that is not a list of strings.

    >>> policy = OriginPolicy(["https://example.com"])
    >>> policy.allows({"type": "websocket", "headers": [(b"origin", b"https://example.com.evil.com")]})
    False
    """

    allowed_origins: Sequence[str] = ()
    require_origin: bool = False
    _listed: frozenset[_Origin] = field(init=False, repr=False, compare=False)
    _parents: frozenset[_Origin] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.allowed_origins
        if isinstance(entries, str) or not all(isinstance(entry, str) for entry in entries):
            raise ImproperlyConfigured(
                f"allowed_origins: expected a list of strings such as ['https://a.example'], got {entries!r}"
            )
        named = [entry for entry in entries if entry != "*"]
        wildcards = {entry: entry.replace("://*.", "://", 1) for entry in named if "://*." in entry}
        # the class is frozen, so the compiled values are set by object.__setattr__
        object.__setattr__(self, "allowed_origins", tuple(entries))
        object.__setattr__(self, "_listed", frozenset(_entry(e, e) for e in named if e not in wildcards))
        object.__setattr__(self, "_parents", frozenset(_entry(e, rest) for e, rest in wildcards.items()))

    def allows(self, scope: Mapping[str, Any]) -> bool:
        """Whether the handshake with this ASGI scope may go on."""
        return self.refusal(scope) is None

    def refusal(self, scope: Mapping[str, Any]) -> str | None:
        """The reason for refusing the handshake, as a sentence for the log; None if it is allowed."""
        origins = _values(scope, b"origin")
        if len(origins) > 1:
            return f"The handshake has {len(origins)} Origin headers, but a browser sends one."
        if not origins:
            return "The handshake has no Origin header, and require_origin is set." if self.require_origin else None
        if "*" in self.allowed_origins:
            return None
        return self._refusal_of(origins[0], scope)

    def _refusal_of(self, value: str, scope: Mapping[str, Any]) -> str | None:
        if value == "null":
            return "Origin 'null' (a sandboxed frame or a file) is refused; only allowed_origins=['*'] allows it."
        origin = _parse(value)
        if origin is None:
            return f"Origin {value[:200]!r} is malformed."
        if origin in self._listed or self._is_below_a_parent(origin) or _is_own(origin, scope):
            return None
        host = ", ".join(_values(scope, b"host"))[:200]
        return f"Origin {value[:200]!r} is neither in allowed_origins nor the origin of the request's Host, {host!r}."

    def _is_below_a_parent(self, origin: _Origin) -> bool:
        scheme, host, port = origin
        labels = host.split(".")
        return any((scheme, ".".join(labels[n:]), port) in self._parents for n in range(1, len(labels)))


def _entry(entry: str, text: str) -> _Origin:
    """An entry of ``allowed_origins``, parsed; ``text`` is the entry without ``*.``."""
    scheme, separator, authority = text.partition("://")
    origin = _parse(f"{scheme}{separator}{_to_ascii(authority)}")
    if origin is None or origin[0] in ("ws", "wss") or (text != entry and _is_address(origin[1])):
        raise ImproperlyConfigured(f"expected {_EXPECTED} in allowed_origins, got {entry!r}; {_cure(scheme.lower())}")
    return origin


def _cure(scheme: str) -> str:
    if scheme in ("ws", "wss"):
        return f"browsers send the origin of the page, so write http{scheme[2:]}://"
    if scheme == "null":
        return "any page can open a sandboxed frame, whose origin is null, so only '*' allows it"
    return "leave out path, trailing slash and user, and write an internationalized host in its xn-- form"


def _is_address(host: str) -> bool:
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


def _to_ascii(authority: str) -> str:
    """An internationalized host in its xn-- form, if Python's IDNA 2003 rules are sure to agree with the browser's."""
    if authority.isascii():
        return authority
    host, colon, port = authority.lower().partition(":")
    try:
        encoded = host.encode("idna")
        return encoded.decode("ascii") + colon + port if encoded.decode("idna") == host else authority
    except UnicodeError:
        return authority


def _parse(value: str) -> _Origin | None:
    match = re.fullmatch(_ORIGIN, value, _FLAGS)
    host = _host(match) if match else None
    if match is None or host is None:
        return None
    scheme = match["scheme"].lower()
    return scheme, host, int(match["port"]) if match["port"] else _PORTS.get(scheme)


def _host(match: re.Match[str]) -> str | None:
    """The host in canonical form; None if the host is malformed or the port is out of range."""
    return None if int(match["port"] or 0) > 65_535 else _canonical(match["host"])


def _canonical(host: str) -> str | None:
    """A host in lower case, an IPv6 address in its shortest form; None for a malformed IPv6 address."""
    if not host.startswith("["):
        return host.lower()
    try:
        return f"[{IPv6Address(host[1:-1])}]"
    except AddressValueError:
        return None


def _is_own(origin: _Origin, scope: Mapping[str, Any]) -> bool:
    """Whether the origin has the host and port of the request's Host header; False if there are several headers."""
    scheme, host, port = origin
    hosts = _values(scope, b"host")
    match = re.fullmatch(_HOST, hosts[0], _FLAGS) if len(hosts) == 1 else None
    if match is None or scheme not in _PORTS or _host(match) != host:
        return False
    if match["port"]:
        return port == int(match["port"])
    return port == 443 or (port == 80 and scope.get("scheme", "ws") in ("ws", "http"))


def _values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == name]
