"""Which web pages may open a WebSocket: the checks of the Host and the Origin header.

A browser sends the cookies of a site with any handshake to it, whichever page opens the socket, and no CORS applies.
The Origin header, which a page cannot forge, is what tells them apart. A page's own origin is that of the Host, so that
the Host is checked first: whoever owns a name may point it at a server of others (DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any

from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = ("HostPolicy", "OriginPolicy")

_NAME = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
_HOST = rf"{_NAME}(?::(?P<port>[1-9][0-9]{{0,4}}))?"
_SERVED = rf"{_NAME}\.?(?::[0-9]{{0,5}})?"  # a Host whose port does not matter
_ORIGIN = rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}"
_FLAGS = re.ASCII | re.IGNORECASE
_EXPECTED = "'*', 'scheme://host[:port]' or 'scheme://*.name[:port]'"
_PORTS = {"http": 80, "https": 443}

# Scheme, host in lower case, port (None: a scheme without a default one, and none was written).
_Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Decides from the scope of a request whether its Host header names this server.

    ``allowed_hosts`` are compared without regard to case, port and a trailing dot:

    - ``"example.com"``, ``"10.0.0.5"``, ``"[::1]"``: that one;
    - ``"*.example.com"``: its sub-domains at any depth; ``".example.com"``: these and ``example.com``;
    - ``"*"``: any.

    Where none are named, a server that is reached on a loopback address, by ``scope["server"]``, answers to loopback
    names alone: ``localhost`` and what is below it, 127.0.0.0/8, ``[::1]``; and where no Host was sent, which every
    browser does. On other addresses and on UNIX sockets, which no page reaches by a name of its own, all are answered.
    More than one Host, or a malformed one, names nothing; none names nothing that could be listed.

    Raises `ImproperlyConfigured` for an entry that can never match, and for what is no list of strings.
    """

    allowed_hosts: Sequence[str] = ()
    _listed: frozenset[str] = field(init=False, repr=False, compare=False)
    _parents: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.allowed_hosts
        if isinstance(entries, str) or not all(isinstance(entry, str) for entry in entries):
            raise ImproperlyConfigured(
                f"expected allowed_hosts as a list of strings, came {entries!r}; write ['example.com']"
            )
        named = [entry for entry in entries if entry != "*"]
        parents = [entry for entry in named if entry.startswith(("*.", "."))]
        listed = [entry.removeprefix(".") for entry in named if not entry.startswith("*.")]
        object.__setattr__(self, "allowed_hosts", tuple(entries))  # as in OriginPolicy
        object.__setattr__(self, "_listed", frozenset(map(_host_entry, listed)))
        object.__setattr__(self, "_parents", frozenset(_host_entry(e.removeprefix("*")[1:]) for e in parents))

    def refusal(self, scope: Mapping[str, Any]) -> str | None:
        """Why the request is refused, as a sentence for the log with the cure; None if it is not."""
        if "*" in self.allowed_hosts or not (self.allowed_hosts or _is_loopback(scope)):
            return None
        hosts = _values(scope, b"host")
        host = _served(hosts[0], _SERVED) if len(hosts) == 1 else None
        told = "no Host header" if not hosts else f"the Host {', '.join(hosts)[:200]!r}"
        if self.allowed_hosts:
            if host is not None and (host in self._listed or any(one in self._parents for one in _above(host))):
                return None
            return f"The request has {told}, which is not in allowed_hosts."
        if not hosts or (host is not None and _is_loopback_name(host)):
            return None
        cure = "if it is a name of yours that a proxy serves, list it: WSAction([...], allowed_hosts=['example.com'])"
        return f"The request has {told}, and on a loopback address only loopback names are answered; {cure}."


def _host_entry(entry: str) -> str:
    """An entry of ``allowed_hosts``, without what stands before a parent's name."""
    text = _to_ascii(entry)
    if (host := _served(f"[{text}]" if ":" in text and "[" not in text else text, rf"{_NAME}\.?")) is None:
        expected = "'example.com', '*.example.com', '.example.com', an address or '*'"
        cure = "leave out scheme, port and path, and write a host in other letters as its xn-- form"
        raise ImproperlyConfigured(f"expected {expected} in allowed_hosts, came {entry!r}; {cure}")
    return host


def _served(text: str, pattern: str) -> str | None:
    """The host of a Host header or an entry, in its one spelling; None if it is malformed."""
    match = re.fullmatch(pattern, text, _FLAGS)
    return None if match is None else _canonical(match["host"])


def _above(host: str) -> Iterator[str]:
    """The names that a host is below: of ``a.b.com``, ``b.com`` and ``com``."""
    labels = host.split(".")
    return (".".join(labels[n:]) for n in range(1, len(labels)))


def _is_loopback(scope: Mapping[str, Any]) -> bool:
    """Whether the server was reached on a loopback address; unknown, as on a UNIX socket, it was not."""
    server: Any = scope.get("server") or ("",)
    return _is_loopback_address(str(server[0]))


def _is_loopback_name(host: str) -> bool:
    """Whether a host means the machine of who asks: also 0.0.0.0 and [::], which nothing but itself resolves to."""
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
    """Decides from a handshake's scope whether the page that opens it may.

    ``allowed_origins`` are the origins beside the app's own, compared without regard to case; default ports may be left
    out:

    - ``"https://example.com"``, ``"http://localhost:3000"``, ``"http://[::1]:8000"``, ``"app://desktop"``: that one;
    - ``"https://*.example.com"``: its sub-domains at any depth, but not ``https://example.com``;
    - ``"*"``: any page at all, ``null`` included. Only for apps that trust no cookie.

    In this order: more than one Origin is refused. None (not a browser) is allowed unless ``require_origin``. ``null``
    (a sandboxed frame, a file) is refused. One that is listed is allowed, and so is one with the host and port of the
    request's own Host header; without a port that means 443 for ``wss`` and 80 or 443 for ``ws``, where a proxy may
    have ended TLS. All else is refused, malformed values included; no bytes in a header make it raise.

    Raises `ImproperlyConfigured` for an entry of ``allowed_origins`` that can never match, or may match more than it
    seems to, and for what is no list of strings.

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
                f"expected allowed_origins as a list of strings, came {entries!r}; write ['https://a.example']"
            )
        named = [entry for entry in entries if entry != "*"]
        wildcards = {entry: entry.replace("://*.", "://", 1) for entry in named if "://*." in entry}
        # frozen=True leaves object.__setattr__ as the way to keep what was compiled
        object.__setattr__(self, "allowed_origins", tuple(entries))
        object.__setattr__(self, "_listed", frozenset(_entry(e, e) for e in named if e not in wildcards))
        object.__setattr__(self, "_parents", frozenset(_entry(e, rest) for e, rest in wildcards.items()))

    def allows(self, scope: Mapping[str, Any]) -> bool:
        """Whether the handshake with this ASGI scope may go on."""
        return self.refusal(scope) is None

    def refusal(self, scope: Mapping[str, Any]) -> str | None:
        """Why the handshake is refused, as a sentence for the log; None if it is allowed."""
        origins = _values(scope, b"origin")
        if len(origins) > 1:
            return f"The handshake has {len(origins)} Origin headers; a browser sends one."
        if not origins:
            return "The handshake has no Origin header, and require_origin is set." if self.require_origin else None
        if "*" in self.allowed_origins:
            return None
        return self._refusal_of(origins[0], scope)

    def _refusal_of(self, value: str, scope: Mapping[str, Any]) -> str | None:
        if value == "null":
            return "Origin 'null' (a sandboxed frame or a file) is refused; only allowed_origins=['*'] lets it in."
        origin = _parse(value)
        if origin is None:
            return f"Origin {value[:200]!r} is malformed."
        if origin in self._listed or self._is_below_a_parent(origin) or _is_own(origin, scope):
            return None
        host = ", ".join(_values(scope, b"host"))[:200]
        return f"Origin {value[:200]!r} is neither in allowed_origins nor that of the request, whose Host is {host!r}."

    def _is_below_a_parent(self, origin: _Origin) -> bool:
        scheme, host, port = origin
        labels = host.split(".")
        return any((scheme, ".".join(labels[n:]), port) in self._parents for n in range(1, len(labels)))


def _entry(entry: str, text: str) -> _Origin:
    """An entry of ``allowed_origins``; ``text`` is it without a leading ``*.``."""
    scheme, separator, authority = text.partition("://")
    origin = _parse(f"{scheme}{separator}{_to_ascii(authority)}")
    if origin is None or origin[0] in ("ws", "wss") or (text != entry and _is_address(origin[1])):
        raise ImproperlyConfigured(f"expected {_EXPECTED} in allowed_origins, came {entry!r}; {_cure(scheme.lower())}")
    return origin


def _cure(scheme: str) -> str:
    if scheme in ("ws", "wss"):
        return f"browsers send the origin of the page, so write http{scheme[2:]}://"
    if scheme == "null":
        return "any page can make itself a sandboxed frame, so only '*' lets null in"
    return "leave out path, trailing slash and user, and write a host in other letters as its xn-- form"


def _is_address(host: str) -> bool:
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


def _to_ascii(authority: str) -> str:
    """A host in other letters as the browser sends it, where Python's older IDNA rules surely give the same."""
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
    """The host in its one spelling; None if it is none, or the port beside it is out of range."""
    return None if int(match["port"] or 0) > 65_535 else _canonical(match["host"])


def _canonical(host: str) -> str | None:
    """A host in lower case, and of IPv6 addresses the shortest form; None for what looks like one and is none."""
    if not host.startswith("["):
        return host.lower()
    try:
        return f"[{IPv6Address(host[1:-1])}]"
    except AddressValueError:
        return None


def _is_own(origin: _Origin, scope: Mapping[str, Any]) -> bool:
    """Whether the origin has the host and port that the request was made to. Several Hosts are as good as none."""
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
