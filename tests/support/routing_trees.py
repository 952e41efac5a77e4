"""Trees of patterns for the router's tests. Each is built twice: with wsaction, and with django.urls as the oracle."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import quote

import django.urls
from django.conf import settings
from django.urls import base, clear_url_caches, resolvers
from django.urls.converters import get_converters as django_converters
from django.utils.http import RFC3986_SUBDELIMS, escape_leading_slashes
from hypothesis import strategies as st

from wsaction import routing

if not settings.configured:
    settings.configure(USE_I18N=False)


def _view(name: str) -> Callable[..., Any]:
    def view(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a router never calls a view")

    view.__name__ = view.__qualname__ = name
    return view


VIEWS = [_view(f"view{number}") for number in range(4)]


class PairConverter:
    """Matches across a slash, and refuses some matches."""

    regex = "[0-9]+/[0-9]+"

    def to_python(self, value: str) -> tuple[int, ...]:
        first, second = map(int, value.split("/"))
        if first > second:
            raise ValueError("out of order")
        return first, second

    def to_url(self, value: object) -> str:
        if not isinstance(value, tuple):
            raise ValueError("not a pair")
        return "/".join(map(str, value))


class MaybeConverter:
    """Also matches the empty text, and has alternatives and groups."""

    regex = "(?:(a)|b|)"
    pure = True

    def to_python(self, value: str) -> str:
        return value.upper()

    def to_url(self, value: str) -> str:
        if value == "B":
            raise ValueError("not this one")
        return str(value).lower()


class AnythingConverter:
    """Matches newlines and slashes, unlike the others."""

    regex = r"(?s:.*)"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


for _name, _converter in {"pair": PairConverter, "maybe": MaybeConverter, "anything": AnythingConverter}.items():
    routing.register_converter(_converter, _name)
    if _name not in django_converters():
        django.urls.register_converter(_converter, _name)


@dataclass(frozen=True)
class Spec:
    """A pattern to declare in both libraries. ``kind`` is "path" or "re_path"; with children it is an include."""

    kind: str
    text: str
    samples: tuple[str, ...]
    kwargs: dict[str, Any] | None = None
    name: str | None = None
    view: int = 0
    children: "tuple[Spec, ...] | None" = None
    app_name: str | None = None
    namespace: str | None = None

    def build(self, library: Any) -> Any:
        declare = getattr(library, self.kind)
        if self.children is None:
            return declare(self.text, VIEWS[self.view], self.kwargs, self.name)
        below = build(self.children, library)
        source = (below, self.app_name) if self.app_name else below
        return declare(self.text, library.include(source, self.namespace), self.kwargs)


def build(specs: tuple[Spec, ...], library: Any) -> list[Any]:
    return [spec.build(library) for spec in specs]


# The pieces of patterns, each with texts that it probably matches. {} is a parameter's name.
LITERALS = ["a", "b", "ab", "/", "a/", "b/", "a/b/", "é", "\n", "-", ".", "$", "^", "x1", "(", "\\", "", "日本/"]
CAPTURES = {
    "<int:{}>": ["7", "07", "0", "x"],
    "<{}>": ["a", "b", "é", "\n", "a b", "7"],
    "<str:{}>": ["a", "ab", "$", "7", "a\n"],
    "<slug:{}>": ["a-b", "7", "é"],
    "<path:{}>": ["a", "a/b", "a/b/", "b/7", "\n"],
    "<uuid:{}>": ["075194d3-6885-417e-a8a8-6c931e272f00", "075194D3-6885-417E-A8A8-6C931E272F00"],
    "<pair:{}>": ["1/2", "2/1", "7/07"],
    "<maybe:{}>": ["", "a", "b", "c"],
    "<anything:{}>": ["", "a", "a/b", "\n/\n"],
}
REGEXES = {
    r"a": ["a"],
    r"b": ["b"],
    r"/": ["/"],
    r"a/": ["a/"],
    r"b/": ["b/"],
    r"a\-b": ["a-b"],
    r"\.": ["."],
    r"\/": ["/"],
    r"é": ["é"],
    r"\n": ["\n"],
    r"\x2f": ["/"],
    r"\057": ["/"],
    r"(?P<{}>[0-9]+)": ["7", "07", "a"],
    r"(?P<{}>[^/]+)": ["a", "a-b", "7", "\n"],
    r"(?P<{}>[-\w]+)": ["a", "a-b", "é"],
    r"(?P<{}>.*)": ["", "a", "a/b"],
    r"(?P<{}>a|b/)": ["a", "b/"],
    r"(?P<{}>\d)?": ["", "1", "12"],
    r"(?:(?P<{}>\w+)/)?": ["", "a/", "7/"],
    r"(?:/(?P<{}>\w+))?": ["", "/a", "/7"],
    r"(\w)": ["a", "7"],
    r"(\d+)": ["7", "12"],
    r"(a)?": ["", "a"],
    r"(?:x(\d))*": ["", "x1", "x1x2"],
    r"([^a])": ["/", "b"],
    r"(\057)": ["/"],
    r"[ab]": ["a", "b"],
    r"[^/]*": ["", "ab"],
    r"[]/]": ["]", "/"],
    r"a*": ["", "a", "aa"],
    r"b?": ["", "b"],
    r"b+?": ["b", "bb"],
    r"/?": ["", "/"],
    r"/*": ["", "//"],
    r"a{2}": ["aa", "a"],
    r"b{1,2}": ["b", "bb"],
    r"a{": ["a{"],
    r"(?:a|b)": ["a", "b"],
    r"(?:)": [""],
    r".": ["a", "/"],
    r".*": ["", "a/b"],
    r"\w+": ["a", "ab"],
    r"\S": ["/", "a"],
    r"\b": [""],
    r"\B": [""],
    r"(?=a)": [""],
    r"(?!b)": [""],
    r"(?<=/)": [""],
    r"|": ["", "a"],
    r"^": [""],
    r"$": [""],
    r"\$": ["$"],
    r"\Z": [""],
    r"a++": ["a", "aa"],
}
# The beginnings of regexes. If one pattern begins with flags, Django cannot reverse any pattern.
STARTS = ["^", "^", "^", "^", ""]
FLAGS = ["(?i)", "(?s)^"]
NAMES = ["x", "y", "z", "w"]


@st.composite
def texts(draw: st.DrawFn, is_endpoint: bool, starts: list[str]) -> tuple[str, str, tuple[str, ...]]:
    """The kind and the text of a pattern, and texts that it probably matches."""
    kind = draw(st.sampled_from(["path", "path", "re_path"]))
    names = list(draw(st.permutations(NAMES)))
    pieces: list[tuple[str, list[str]]] = []
    if kind == "path":
        chosen = draw(st.lists(st.sampled_from([*LITERALS, "a/", "b/", "/", *CAPTURES]), max_size=5))
        pieces = [(piece, CAPTURES.get(piece, [piece])) for piece in chosen]
    else:
        chosen = draw(st.lists(st.sampled_from([*REGEXES, "a", "b", "/", "a/"]), max_size=5))
        start = draw(st.sampled_from(starts))
        end = draw(st.sampled_from(["$", "$", "", r"\Z", r"\$"] if is_endpoint else ["", "", "", "/"]))
        pieces = [(start, [""]), *((piece, REGEXES[piece]) for piece in chosen), (end, ["/" if end == "/" else ""])]
    text = ""
    for piece, _ in pieces:
        text += piece.replace("{}", names.pop()) if "{}" in piece and names else piece.replace("{}", "v")
    likely = ["".join(draw(st.sampled_from(samples)) for _, samples in pieces) for _ in range(2)]
    return kind, text, tuple(likely)


defaults = st.none() | st.dictionaries(st.sampled_from([*NAMES, "k"]), st.sampled_from([0, 7, "a"]), max_size=2)


@st.composite
def specs(draw: st.DrawFn, starts: list[str], depth: int = 3) -> tuple[Spec, ...]:
    """A list of patterns, some of them with includes."""
    found = []
    for _ in range(draw(st.integers(0 if depth < 3 else 1, 4))):
        is_endpoint = depth == 0 or draw(st.booleans())
        kind, text, samples = draw(texts(is_endpoint, starts))
        kwargs = draw(defaults)
        if is_endpoint:
            name = draw(st.sampled_from([None, "one", "one", "two", "é"]))
            found.append(Spec(kind, text, samples, kwargs, name, draw(st.integers(0, 3))))
        else:
            app_name = draw(st.sampled_from([None, None, "app", "other"]))
            namespace = draw(st.sampled_from([None, "app", "first", "second"])) if app_name else None
            below = draw(specs(starts, depth - 1))
            found.append(Spec(kind, text, samples, kwargs, None, 0, below, app_name, namespace))
    return tuple(found)


def likely_routes(tree: tuple[Spec, ...], prefix: str = "") -> Iterator[str]:
    for spec in tree:
        for sample in spec.samples:
            if spec.children is None:
                yield prefix + sample
            else:
                yield from likely_routes(spec.children, prefix + sample)


def names(tree: tuple[Spec, ...]) -> Iterator[str]:
    """The names in a tree, with right and wrong namespaces."""
    for spec in tree:
        if spec.name:
            yield spec.name
        for below in set(names(spec.children or ())):
            yield below
            for space in filter(None, {spec.namespace, spec.app_name}):
                yield f"{space}:{below}"


SHOWN = "func args kwargs url_name app_names namespaces app_name namespace view_name route captured_kwargs extra_kwargs"


def seen(match: Any) -> dict[str, Any]:
    return {name: getattr(match, name) for name in SHOWN.split()}


@dataclass
class Oracle:
    """The results of Django for the same patterns."""

    patterns: list[Any]
    module: ModuleType = field(default_factory=lambda: ModuleType("oracle"))

    def __post_init__(self) -> None:
        self.module.urlpatterns = self.patterns  # type: ignore[attr-defined]
        self.resolver = resolvers.URLResolver(resolvers.RegexPattern(r""), self.patterns)

    def resolve(self, route: str) -> dict[str, Any] | None:
        try:
            return seen(self.resolver.resolve(route))
        except django.urls.Resolver404:
            return None

    def reverse(self, name: Any, args: Any = None, kwargs: Any = None) -> str | None:
        """The URL without its leading slash, or None for NoReverseMatch. Raises Django's other errors."""
        base._prefixes.value = ""  # routes have no leading slash, and a pattern may look for it: ^(?<=/)$
        try:
            return django.urls.reverse(name, self.module, args, kwargs)
        except django.urls.NoReverseMatch:
            return None
        finally:
            django.urls.clear_script_prefix()


def oracle(tree: tuple[Spec, ...]) -> Oracle:
    """An oracle with fresh caches."""
    clear_url_caches()
    return Oracle(build(tree, django.urls))


# Django adds the converters of an include to those of the patterns in it. Patterns with equal routes share them by this
# cache, so a pattern of one include would get the converters of another include. Without the cache, none are shared.
if hasattr(resolvers._route_to_regex, "__wrapped__"):
    resolvers._route_to_regex = resolvers._route_to_regex.__wrapped__


def as_url(route: str) -> str:
    """A route, quoted as Django would quote it."""
    return escape_leading_slashes(quote(route, safe=RFC3986_SUBDELIMS + "/~:@"))


def resolved(router: routing.Router, route: str) -> dict[str, Any] | None:
    try:
        return seen(router.resolve(route))
    except routing.Resolver404:
        return None


def reversed_url(router: routing.Router, name: Any, args: Any = None, kwargs: Any = None) -> str | None:
    try:
        return as_url(router.reverse(name, args, kwargs))
    except routing.NoReverseMatch:
        return None
