"""The Origin policy: which pages may open a WebSocket."""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsaction._server.origins import OriginPolicy
from wsaction.exceptions import ImproperlyConfigured


def handshake(origin: str | None, host: str | None = "example.com", scheme: str = "ws") -> dict[str, Any]:
    headers = [(b"host", host), (b"origin", origin)]
    return {
        "type": "websocket",
        "scheme": scheme,
        "headers": [(name, value.encode("latin-1")) for name, value in headers if value is not None],
    }


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        pytest.param(None, "example.com", "ws", True, id="absent: not a browser"),
        pytest.param("null", "example.com", "ws", False, id="null"),
        pytest.param("NULL", "example.com", "ws", False, id="null in capitals"),
        pytest.param("http://example.com", "example.com", "ws", True, id="same host"),
        pytest.param("https://example.com", "example.com", "ws", True, id="TLS ends at a proxy"),
        pytest.param("https://example.com", "example.com", "wss", True, id="TLS ends here"),
        pytest.param("http://example.com", "example.com", "wss", False, id="plain page, TLS here"),
        pytest.param("HTTP://Example.COM", "eXample.com", "ws", True, id="case"),
        pytest.param("http://example.com:8000", "example.com:8000", "ws", True, id="same port"),
        pytest.param("https://example.com:8000", "example.com:8000", "ws", True, id="same port, TLS at a proxy"),
        pytest.param("http://example.com:8001", "example.com:8000", "ws", False, id="another port"),
        pytest.param("http://example.com:8000", "example.com", "ws", False, id="port only in the Origin"),
        pytest.param("http://example.com", "example.com:8000", "ws", False, id="port only in the Host"),
        pytest.param("http://example.com", "example.com:80", "ws", True, id="default port written in the Host"),
        pytest.param("http://example.com:80", "example.com", "ws", True, id="default port written in the Origin"),
        pytest.param("https://example.com", "example.com:443", "wss", True, id="443 written in the Host"),
        pytest.param("https://example.com", "example.com:80", "ws", False, id="443 is not 80"),
        pytest.param("https://example.com.evil.com", "example.com", "ws", False, id="look-alike: suffix added"),
        pytest.param("https://evilexample.com", "example.com", "ws", False, id="look-alike: prefix added"),
        pytest.param("https://a.example.com", "example.com", "ws", False, id="sub-domain"),
        pytest.param("https://example.com", "a.example.com", "ws", False, id="parent domain"),
        pytest.param("http://[::1]:8000", "[::1]:8000", "ws", True, id="IPv6"),
        pytest.param("http://[0:0::1]:8000", "[::1]:8000", "ws", True, id="IPv6 in another spelling"),
        pytest.param("http://[::2]:8000", "[::1]:8000", "ws", False, id="another IPv6"),
        pytest.param("http://[::1", "[::1", "ws", False, id="IPv6 without its end"),
        pytest.param("http://[1::2::3]", "[1::2::3]", "ws", False, id="no IPv6"),
        pytest.param("http://127.0.0.1:8000", "127.0.0.1:8000", "ws", True, id="IPv4"),
        pytest.param("http://127.0.0.1:8000", "localhost:8000", "ws", False, id="address and name"),
        pytest.param("http://xn--bcher-kva.example", "xn--bcher-kva.example", "ws", True, id="punycode"),
        pytest.param("http://bücher.example", "bücher.example", "ws", False, id="other letters, raw"),
        pytest.param("app://example.com", "example.com", "ws", False, id="another scheme is never the same origin"),
        pytest.param("chrome-extension://abc", "abc", "ws", False, id="an extension"),
        pytest.param("", "example.com", "ws", False, id="empty"),
        pytest.param("example.com", "example.com", "ws", False, id="no scheme"),
        pytest.param("http://", "example.com", "ws", False, id="no host"),
        pytest.param("http://example.com/", "example.com", "ws", False, id="slash"),
        pytest.param("http://example.com/x", "example.com", "ws", False, id="path"),
        pytest.param("http://example.com?x", "example.com", "ws", False, id="query"),
        pytest.param("http://user@example.com", "example.com", "ws", False, id="user"),
        pytest.param("http://example.com@evil.com", "example.com", "ws", False, id="user that looks like the host"),
        pytest.param("http://example.com ", "example.com", "ws", False, id="space"),
        pytest.param("http://example.com\n", "example.com", "ws", False, id="newline at the end"),
        pytest.param("http://exam\x00ple.com", "example.com", "ws", False, id="control character"),
        pytest.param("http://example.com.", "example.com", "ws", False, id="trailing dot"),
        pytest.param("http://example.com.", "example.com.", "ws", False, id="trailing dots"),
        pytest.param("http://a..example.com", "a..example.com", "ws", False, id="empty label"),
        pytest.param("http://example.com:", "example.com", "ws", False, id="empty port"),
        pytest.param("http://example.com:0", "example.com:0", "ws", False, id="port 0"),
        pytest.param("http://example.com:080", "example.com:80", "ws", False, id="port with a zero in front"),
        pytest.param("http://example.com:65536", "example.com:65536", "ws", False, id="port too large"),
        pytest.param("http://example.com", None, "ws", False, id="no Host"),
        pytest.param("http://example.com", "", "ws", False, id="empty Host"),
        pytest.param("http://example.com", "example.com/x", "ws", False, id="malformed Host"),
        pytest.param("http://example.com", "example.com, example.com", "ws", False, id="two Hosts in one"),
    ],
)
def test_the_own_origin_is_allowed(origin: str | None, host: str | None, scheme: str, allowed: bool) -> None:
    assert OriginPolicy().allows(handshake(origin, host, scheme)) is allowed


@pytest.mark.parametrize(
    ("entry", "origin", "allowed"),
    [
        ("https://example.com", "https://example.com", True),
        ("https://example.com", "https://EXAMPLE.com:443", True),
        ("HTTPS://Example.com:443", "https://example.com", True),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "https://example.com:8443", False),
        ("https://example.com", "https://example.com.evil.com", False),
        ("https://example.com", "https://evilexample.com", False),
        ("https://example.com", "https://a.example.com", False),
        ("https://example.com", "https://example.com.", False),
        ("https://example.com", "null", False),
        ("https://example.com:8443", "https://example.com:8443", True),
        ("https://example.com:8443", "https://example.com", False),
        ("http://[::1]:8000", "http://[0::1]:8000", True),
        ("http://[::1]:8000", "http://[::1]", False),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://a.b.Example.com:443", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://a.example.com.evil.com", False),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com", "https://*.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://bücher.example", "https://xn--bcher-kva.example", True),
        ("https://Bücher.example:8443", "https://xn--bcher-kva.example:8443", True),
        ("https://*.bücher.example", "https://a.xn--bcher-kva.example", True),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("chrome-extension://abc", "chrome-extension://abd", False),
        ("chrome-extension://abc", "chrome-extension://abc/", False),
        ("app://x", "http://x", False),
        ("*", "https://any.example", True),
        ("*", "app://x", True),
        ("*", "null", True),
    ],
)
def test_an_entry_lets_in_what_it_says_and_no_more(entry: str, origin: str, allowed: bool) -> None:
    policy = OriginPolicy(["https://unrelated.example", entry])

    assert policy.allows(handshake(origin, host="testserver")) is allowed


@pytest.mark.parametrize(
    ("entry", "cure"),
    [
        ("https://example.com/", "leave out path"),
        ("https://example.com/ws", "leave out path"),
        ("https://user@example.com", "leave out path"),
        ("example.com", "leave out path"),
        ("", "leave out path"),
        (".example.com", "leave out path"),
        ("https://example.com:99999", "leave out path"),
        ("https://*", "leave out path"),
        ("https://*example.com", "leave out path"),
        ("https://a.*.example.com", "leave out path"),
        ("https://*.*.example.com", "leave out path"),
        ("https://*.127.0.0.1", "leave out path"),
        ("https://*.[::1]", "leave out path"),
        ("https://straße.example", "xn-- form"),  # its two IDNA versions are two hosts
        ("https://" + "ü" * 70 + ".example", "xn-- form"),
        ("wss://example.com", "write https://"),
        ("ws://*.example.com", "write http://"),
        ("null", "so only '*' allows it"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused_at_once(entry: str, cure: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"expected .* got {re.escape(repr(entry))}; .*{re.escape(cure)}"):
        OriginPolicy(["https://example.com", entry])


@pytest.mark.parametrize("entries", ["https://example.com", [b"https://example.com"], [None]])
def test_entries_are_a_list_of_strings(entries: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="allowed_origins: expected a list of strings"):
        OriginPolicy(entries)


@pytest.mark.parametrize("policy", [OriginPolicy(), OriginPolicy(["*"]), OriginPolicy(["http://example.com"])])
def test_two_origin_headers_are_refused(policy: OriginPolicy) -> None:
    scope = handshake("http://example.com")
    scope["headers"].append((b"Origin", b"http://example.com"))

    assert policy.refusal(scope) == "The handshake has 2 Origin headers, but a browser sends one."


def test_two_host_headers_are_no_host() -> None:
    scope = handshake("http://example.com")
    scope["headers"].append((b"host", b"example.com"))

    assert not OriginPolicy().allows(scope)
    assert OriginPolicy(["http://example.com"]).allows(scope)


@pytest.mark.parametrize("entries", [(), ("*",), ("https://example.com",)])
def test_a_required_origin_may_not_be_absent(entries: tuple[str, ...]) -> None:
    policy = OriginPolicy(entries, require_origin=True)

    assert policy.refusal(handshake(None)) == "The handshake has no Origin header, and require_origin is set."
    assert policy.allows(handshake("https://example.com"))


def test_the_server_address_and_a_missing_scheme_play_no_part() -> None:
    scope = {"type": "websocket", "headers": [(b"origin", b"http://a.example")], "server": ("a.example", 80)}
    assert not OriginPolicy().allows(scope)
    assert OriginPolicy().allows(scope | {"headers": [*scope["headers"], (b"host", b"a.example")]})
    assert OriginPolicy().allows({"type": "websocket"})


def test_a_refusal_says_what_came_in_one_bounded_line() -> None:
    policy = OriginPolicy()

    assert policy.refusal(handshake("https://evil.com")) == (
        "Origin 'https://evil.com' is neither in allowed_origins nor the origin of the request's Host, 'example.com'."
    )
    assert "'null'" in str(policy.refusal(handshake("null")))
    malformed = policy.refusal(handshake("x\ny" * 10_000, host="h" * 10_000))
    assert malformed is not None
    assert len(malformed) < 500
    assert "\n" not in malformed


def test_policies_are_frozen_and_share_nothing() -> None:
    entries = ["https://a.example"]
    first, second = OriginPolicy(entries), OriginPolicy(["https://b.example"])
    entries.append("https://c.example")

    assert [p.allows(handshake("https://a.example")) for p in (first, second)] == [True, False]
    assert [p.allows(handshake("https://b.example")) for p in (first, second)] == [False, True]
    assert not first.allows(handshake("https://c.example"))
    assert first == OriginPolicy(("https://a.example",))
    assert first != second
    assert len({first, OriginPolicy(("https://a.example",))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.require_origin = True  # type: ignore[misc]


_TEXT = st.text(alphabet=string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%\\ \t\r\n\x00é", min_size=1)
_POLICIES = [OriginPolicy(), OriginPolicy(["https://example.com", "http://[::1]:8000", "app://x"])]


@given(added=_TEXT, after=st.booleans(), policy=st.sampled_from(_POLICIES))
def test_nothing_can_be_added_to_an_allowed_host(added: str, after: bool, policy: OriginPolicy) -> None:
    host = f"example.com{added}" if after else f"{added}example.com"
    same = host.lower() in ("example.com:443", "example.com:80")

    assert same or not policy.allows(handshake(f"https://{host}"))


@given(added=_TEXT)
def test_a_parent_lets_in_sub_domains_only(added: str) -> None:
    policy = OriginPolicy(["https://*.example.com"])
    labels = re.fullmatch(r"([\w-]+\.)+", added, re.ASCII)

    assert policy.allows(handshake(f"https://{added}example.com", host=None)) is bool(labels)


@given(
    headers=st.lists(st.tuples(st.sampled_from([b"origin", b"host", b"Origin", b"x"]), st.binary())),
    policy=st.sampled_from([*_POLICIES, OriginPolicy(["*"], require_origin=True)]),
)
def test_no_bytes_make_it_raise(headers: list[tuple[bytes, bytes]], policy: OriginPolicy) -> None:
    scope = {"type": "websocket", "scheme": "ws", "headers": headers}

    assert policy.allows(scope) is (policy.refusal(scope) is None)
