"""`wsaction.permissions`: built-in permissions, and expressions compared with Python's own logic."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Awaitable, Generator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsaction._protocol.frames import new_frame
from wsaction._protocol.scope import USER_ID_KEY
from wsaction.exceptions import ImproperlyConfigured
from wsaction.permissions import (
    AllowAny,
    BasePermission,
    Composition,
    DenyAll,
    IsAuthenticated,
    IsAuthenticatedStrictly,
    IsOwner,
)
from wsaction.permissions._classes import Permissions, Refusal, compile_permissions
from wsaction.permissions._expressions import Operators

QUESTIONS = ("can_connect", "has_permission", "has_object_permission")
OWNER = "CardHandler.permission_classes"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def user(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"is_authenticated": True, "is_admin": False, **attributes})


class IsAdmin(BasePermission):
    message = "Admins only."
    code = "admins"

    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return bool(scope["user"].is_admin)


class Suspending:
    """An awaitable that suspends once, so that its caller must be resumed."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __await__(self) -> Generator[None, None, Any]:
        yield
        return self.answer


def settled(verdict: Any) -> Refusal | None:
    """The verdict of an awaitable, driven without an event loop, as the Hypothesis tests ask thousands."""
    if verdict is None or isinstance(verdict, Refusal):
        return verdict
    steps = verdict.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return settled(end.value)


def compiled(*classes: Any) -> Permissions:
    return compile_permissions(classes, owner=OWNER)


def stages(permissions: Permissions, scope: Any, obj: Any = None, action: str = "retrieve") -> tuple[bool, bool, bool]:
    """Whether the connection, the action, and (if the action is allowed) the object are allowed."""
    connect = settled(permissions.connect_refusal(scope, None)) is None
    act = settled(permissions.action_refusal(scope, None, action)) is None
    return connect, act, act and settled(permissions.object_refusal(scope, None, action, obj)) is None


# -- expressions compared with logic ----------------------------------------------------------------------------------


@dataclass
class Leaf:
    """One permission of a random expression: its answers by method, and its form (class, instance or callable)."""

    answers: dict[str, bool]
    form: str
    is_async: frozenset[str]
    log: list[Leaf] = field(default_factory=list)

    def build(self) -> Any:
        if self.form == "callable":
            return self.method("has_permission", bound=False)
        methods: dict[str, Any] = {name: self.method(name, bound=True) for name in self.answers}
        kind = type("Random", (BasePermission,), methods)
        return kind() if self.form == "instance" else kind

    def method(self, name: str, bound: bool) -> Any:
        answer: Any = self.answers[name]

        def sync(*args: Any) -> Any:
            self.log.append(self)
            return "yes" if answer else None  # any true or false value is an answer

        async def coroutine(*args: Any) -> Any:
            self.log.append(self)
            return await Suspending(answer)

        return coroutine if name in self.is_async else sync

    def value(self, *names: str) -> bool | None:
        """The answer in Kleene's logic: None if it has none of the methods."""
        values = [self.answers[name] for name in names if name in self.answers]
        return all(values) if values else None


def leaves(every_question: bool = False) -> st.SearchStrategy[Leaf]:
    booleans = dict.fromkeys(QUESTIONS, st.booleans())
    some = st.fixed_dictionaries({}, optional=booleans).filter(bool)  # a permission without methods is refused
    classes = st.fixed_dictionaries(booleans) if every_question else some
    asynchronous = st.frozensets(st.sampled_from(QUESTIONS))
    kinds = st.builds(Leaf, classes, st.sampled_from(["class", "instance"]), asynchronous)
    if every_question:
        return kinds
    callables = st.fixed_dictionaries({"has_permission": st.booleans()})
    return kinds | st.builds(Leaf, callables, st.just("callable"), asynchronous)


def expressions(leaf: st.SearchStrategy[Leaf]) -> st.SearchStrategy[Any]:
    """Trees ``("~", x)``, ``("&", x, y)``, ``("|", x, y)`` over leaves."""
    return st.recursive(
        leaf,
        lambda inner: st.tuples(st.just("~"), inner) | st.tuples(st.sampled_from(["&", "|"]), inner, inner),
        max_leaves=8,
    )


def built(tree: Any) -> Any:
    """The expression. Callables have no operators, so if no operand has one, the first is wrapped."""
    if isinstance(tree, Leaf):
        return tree.build()
    operator, *parts = tree
    first, *others = map(built, parts)
    if operator == "~" or not any(isinstance(one, Operators) for one in (first, *others)):
        first = first if isinstance(first, Operators) else Composition("&", (first,))
    if operator == "~":
        return ~first
    return first & others[0] if operator == "&" else first | others[0]


def leaves_of(tree: Any) -> Iterator[Leaf]:
    if isinstance(tree, Leaf):
        yield tree
    else:
        yield from itertools.chain.from_iterable(map(leaves_of, tree[1:]))


def kleene(tree: Any, *names: str) -> bool | None:
    """Kleene's tables: not None is None; False decides an "and", True an "or", and otherwise None does."""
    if isinstance(tree, Leaf):
        return tree.value(*names)
    values = [kleene(part, *names) for part in tree[1:]]
    if tree[0] == "~":
        return None if values[0] is None else not values[0]
    decisive = tree[0] == "|"
    return decisive if decisive in values else None if None in values else not decisive


def python(tree: Any, *names: str) -> bool:
    """The tree as a Python expression, evaluated."""
    known = list(leaves_of(tree))
    keywords_of = {"&": "and", "|": "or"}

    def source(part: Any) -> str:
        if isinstance(part, Leaf):
            return f"leaf({next(i for i, one in enumerate(known) if one is part)})"
        operator, *parts = part
        return (
            f"(not {source(parts[0])})"
            if operator == "~"
            else f"({f' {keywords_of[operator]} '.join(map(source, parts))})"
        )

    return bool(eval(source(tree), {"leaf": lambda index: all(known[index].answers[name] for name in names)}))


@settings(max_examples=60, deadline=None)
@given(st.lists(expressions(leaves(every_question=True)), min_size=1, max_size=3))
def test_full_permissions_combine_as_in_python_logic(trees: list[Any]) -> None:
    permissions = compiled(*map(built, trees))
    connect, act, touch = stages(permissions, {})
    assert connect is all(python(tree, "can_connect") for tree in trees)
    assert act is all(python(tree, "has_permission") for tree in trees)
    assert touch is (act and all(python(tree, "has_permission", "has_object_permission") for tree in trees))


@settings(max_examples=100, deadline=None)
@given(st.lists(expressions(leaves()), min_size=1, max_size=3))
def test_partial_permissions_combine_as_in_kleene_logic(trees: list[Any]) -> None:
    connect, act, touch = stages(compiled(*map(built, trees)), {})
    assert connect is all(kleene(tree, "can_connect") is not False for tree in trees)
    assert act is all(kleene(tree, "has_permission") is not False for tree in trees)
    objects = all(kleene(tree, "has_permission", "has_object_permission") is not False for tree in trees)
    assert touch is (act and objects)


@settings(max_examples=40, deadline=None)
@given(expressions(leaves()), expressions(leaves()))
def test_de_morgan_and_double_negation(one: Any, other: Any) -> None:
    def verdicts(tree: Any) -> tuple[bool, bool, bool]:
        return stages(compiled(built(tree)), {})

    assert verdicts(("~", ("&", one, other))) == verdicts(("|", ("~", one), ("~", other)))
    assert verdicts(("~", ("|", one, other))) == verdicts(("&", ("~", one), ("~", other)))
    assert verdicts(("~", ("~", one))) == verdicts(one)


@settings(max_examples=40, deadline=None)
@given(expressions(leaves(every_question=True)))
def test_permissions_are_asked_left_to_right_and_short_circuit(tree: Any) -> None:
    asked: list[int] = []
    expected: list[int] = []
    known = list(leaves_of(tree))
    for number, leaf in enumerate(known):
        leaf.log = SimpleNamespace(append=lambda _, number=number: asked.append(number))  # type: ignore[assignment]

    def value(part: Any) -> bool:
        if isinstance(part, Leaf):
            expected.append(next(i for i, one in enumerate(known) if one is part))
            return part.answers["has_permission"]
        if part[0] == "~":
            return not value(part[1])
        return (value(part[1]) and value(part[2])) if part[0] == "&" else (value(part[1]) or value(part[2]))

    value(tree)
    settled(compiled(built(tree)).action_refusal({}, None, "list"))
    assert asked == expected


STRANGER, OWNING, ADMIN, ANONYMOUS = (
    user(), user(owns=True), user(is_admin=True), user(is_authenticated=False)
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "connecting", "acting", "touching"),
    [
        (IsOwner | IsAdmin, "soax", "soax", "oa"),
        (IsAdmin | IsOwner, "soax", "soax", "oa"),
        (IsOwner & IsAdmin, "soax", "a", ""),
        (~IsOwner, "soax", "soax", "sax"),
        (~(IsOwner | IsAdmin), "soax", "sox", "sx"),
        (~(IsOwner & IsAdmin), "soax", "soax", "soax"),
        (~IsAuthenticated, "soax", "x", "x"),
        (~IsAuthenticatedStrictly, "x", "x", "x"),
        (IsAuthenticatedStrictly | IsOwner, "soax", "soax", "soa"),
        (AllowAny, "soax", "soax", "soax"),
        (~DenyAll, "soax", "soax", "soax"),
        (AllowAny | IsAdmin, "soax", "soax", "soax"),
        (DenyAll | IsAdmin, "soax", "a", "a"),
        (~AllowAny, "", "", ""),
        (DenyAll, "", "", ""),
        (IsAdmin & (lambda scope, handler, action: False), "soax", "", ""),
        ((lambda scope, handler, action: True) & IsAdmin, "soax", "a", "a"),
        (~((lambda scope, handler, action: True) | IsAdmin), "soax", "", ""),
    ],
    ids=str,
)
def test_worked_examples(expression: Any, connecting: str, acting: str, touching: str) -> None:
    users = {"s": STRANGER, "o": OWNING, "a": ADMIN, "x": ANONYMOUS}
    permissions = compiled(expression)
    passed = {letter: stages(permissions, {"user": one}, SimpleNamespace(user=OWNING)) for letter, one in users.items()}
    through = ["".join(letter for letter in users if passed[letter][stage]) for stage in range(3)]
    assert through == [connecting, acting, touching]


def test_or_needs_one_side_to_allow_both_action_and_object() -> None:
    class Half(BasePermission):
        def __init__(self, act: bool, touch: bool) -> None:
            self.act, self.touch = act, touch

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return self.act

        def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
            return self.touch

    assert stages(compiled(Half(True, False) | Half(False, True)), {}) == (True, True, False)
    assert stages(compiled(Half(True, False) | Half(True, True)), {}) == (True, True, True)


def test_long_chains_and_many_negations() -> None:
    expression: Any = AllowAny
    for _ in range(2_000):
        expression = ~~expression & AllowAny
    assert stages(compiled(expression & IsAdmin), {"user": ADMIN}) == (True, True, True)
    assert stages(compiled(functools.reduce(lambda a, b: a | b, [IsAdmin] * 2_000)), {"user": STRANGER})[1] is False


# -- compiled permissions ---------------------------------------------------------------------------------------------


def test_questions_without_methods_are_never_asked() -> None:
    permissions = compiled(IsAuthenticated, lambda scope, handler, action: True, AllowAny)
    assert permissions.on_connect is None
    assert permissions.on_object is None
    assert permissions.connect_refusal({}, None) is None
    assert permissions.object_refusal({}, None, "list", None) is None
    assert compiled().on_action is None
    assert compiled(IsOwner).on_action is None
    assert compiled(IsOwner | IsAdmin).on_action is None
    assert compiled(IsAdmin | IsAuthenticated).on_object is None


def test_an_object_check_does_not_repeat_the_action_check() -> None:
    asked: list[str] = []

    class Both(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            asked.append("action")
            return True

        def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
            asked.append("object")
            return True

    permissions = compiled(Both & IsAdmin)
    assert permissions.object_refusal({}, None, "list", None) is None
    assert asked == ["object"]
    assert compiled(~Both).on_object is None


def test_only_async_permissions_return_an_awaitable() -> None:
    async def later(scope: Any, handler: Any, action: str) -> bool:
        return bool(scope["user"].is_admin)

    permissions = compiled(IsAuthenticated, later, IsAuthenticated)
    refused = permissions.action_refusal({"user": ANONYMOUS}, None, "list")
    assert refused == Refusal("IsAuthenticated")
    refused = permissions.action_refusal({"user": STRANGER}, None, "list")
    assert isinstance(refused, Awaitable)
    refusal = settled(refused)
    assert refusal is not None
    assert refusal.permission.endswith("later")
    assert settled(permissions.action_refusal({"user": ADMIN}, None, "list")) is None


async def test_an_async_verdict_is_awaited_in_a_loop() -> None:
    async def yes(scope: Any, handler: Any, action: str) -> bool:
        return True

    verdict = compiled(IsAdmin | yes, yes).action_refusal({"user": STRANGER}, None, "list")
    assert isinstance(verdict, Awaitable)
    assert await verdict is None


def test_a_class_is_instantiated_once() -> None:
    made: list[object] = []

    class Counted(BasePermission):
        def __init__(self) -> None:
            made.append(self)

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return self is made[0]

    permissions = compiled(Counted, Counted | IsOwner, ~Counted | Counted)
    assert [permissions.action_refusal({}, None, "list") for _ in range(3)] == [None] * 3
    assert len(made) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_exceptions_go_to_the_caller(is_async: bool) -> None:
    def broken(scope: Any, handler: Any, action: str) -> bool:
        raise LookupError("the database is away")

    async def broken_later(scope: Any, handler: Any, action: str) -> bool:
        raise LookupError("the database is away")

    with pytest.raises(LookupError, match="database is away"):
        settled(compiled(broken_later if is_async else broken).action_refusal({}, None, "list"))


def test_a_refusal_names_the_permission_and_has_its_message() -> None:
    scope = {"user": STRANGER}
    assert compiled(IsAdmin).action_refusal(scope, None, "list") == Refusal("IsAdmin", "Admins only.", "admins")
    assert compiled(IsAdmin()).action_refusal(scope, None, "list") == Refusal("IsAdmin", "Admins only.", "admins")
    assert compiled(IsAuthenticated & IsAdmin).action_refusal(scope, None, "list") == Refusal(
        "IsAdmin", "Admins only.", "admins"
    )
    assert compiled(DenyAll | IsAdmin).action_refusal(scope, None, "list") == Refusal("DenyAll | IsAdmin")
    assert compiled(~IsAdmin).action_refusal({"user": ADMIN}, None, "list") == Refusal("~IsAdmin")


# -- expressions ------------------------------------------------------------------------------------------------------


def test_operators_of_classes_instances_compositions_and_callables() -> None:
    def plain(scope: Any, handler: Any, action: str) -> bool:
        return True

    plain.__qualname__ = "plain"
    table = {
        IsAdmin & IsOwner: "IsAdmin & IsOwner",
        IsAdmin() | IsOwner: "IsAdmin | IsOwner",
        IsAdmin | IsOwner(): "IsAdmin | IsOwner",
        ~IsAdmin(): "~IsAdmin",
        plain & IsAdmin: "plain & IsAdmin",
        plain | IsAdmin(): "plain | IsAdmin",
        plain | (IsAdmin & IsOwner): "plain | (IsAdmin & IsOwner)",
        IsAdmin & plain: "IsAdmin & plain",
        ~(IsAdmin | plain) & ~IsOwner: "~(IsAdmin | plain) & ~IsOwner",
        IsAdmin & (IsOwner & plain) & IsAdmin: "IsAdmin & IsOwner & plain & IsAdmin",
        ~~(IsAdmin | IsOwner): "IsAdmin | IsOwner",
    }
    assert [str(expression) for expression in table] == list(table.values())
    assert ~~IsAdmin is IsAdmin
    assert str(~IsOwner & IsAdmin | AllowAny) == "(~IsOwner & IsAdmin) | AllowAny"


@pytest.mark.parametrize("other", [None, 1, "IsAdmin"])
@pytest.mark.parametrize("permission", [IsAdmin, IsAdmin(), IsAdmin | IsOwner])
def test_operators_refuse_other_objects(permission: Any, other: Any) -> None:
    for combine in (
        lambda: permission & other, lambda: permission | other, lambda: other & permission, lambda: other | permission
    ):  # fmt: skip
        with pytest.raises(TypeError, match="unsupported operand"):
            combine()


@pytest.mark.parametrize("permission", [IsAdmin(), IsAdmin | IsOwner, ~IsAdmin])
def test_python_keywords_cannot_drop_a_permission(permission: Any) -> None:
    for combine in (lambda: permission and IsOwner, lambda: permission or IsOwner, lambda: not permission):
        with pytest.raises(TypeError, match=r"IsAdmin.*expected '&', '\|' or '~', got 'and'.*is not None"):
            combine()


def test_permissions_work_with_dataclasses_and_help() -> None:
    @dataclass
    class HasRole(BasePermission):
        role: str

        def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
            return bool(scope["user"].role == self.role)

    expression = HasRole("editor") | HasRole("author")
    assert stages(compiled(expression), {"user": user(role="author")})[1] is True
    assert stages(compiled(expression), {"user": user(role="reader")})[1] is False
    with contextlib.redirect_stdout(io.StringIO()):
        help(IsOwner)


# -- misuse -----------------------------------------------------------------------------------------------------------


def two_parameters(scope: Any, handler: Any) -> bool:
    return True


def needs_more(scope: Any, handler: Any, action: str, board: int) -> bool:
    return True


def generator(scope: Any, handler: Any, action: str) -> Iterator[bool]:
    yield False


class Needy(BasePermission):
    def __init__(self, role: str) -> None:
        self.role = role


class NotCallable(BasePermission):
    has_permission: ClassVar[Any] = True


class TooFew(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str) -> bool:  # type: ignore[override]
        return True


class Unrelated:
    def __init__(self, *args: Any) -> None:
        """A class that, called as a permission, would always be true."""


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (IsAuthenticated, r"expected a tuple or list .*, got IsAuthenticated; did you forget the comma"),
        (IsOwner | IsAdmin, r"got IsOwner \| IsAdmin; did you forget the comma"),
        ("IsAdmin", r"expected a tuple or list .*, got str"),
        (None, r"expected a tuple or list .*, got NoneType"),
        ((one for one in [IsAdmin]), r"expected a tuple or list .*, got <genexpr>"),
        (("IsAdmin",), r"got 'IsAdmin'; name the class itself, without quotes"),
        ((None,), r"expected a BasePermission class, .*, got None"),
        ((False,), r"got False"),
        ((Unrelated,), r"got <class .*Unrelated'>; derive it from BasePermission"),
        ((Unrelated(),), r"got <.*Unrelated object.*; derive it from BasePermission"),
        ((IsAdmin | Unrelated,), r"got <class .*Unrelated'>; derive it from BasePermission"),
        (((IsAdmin, IsOwner),), r"got \(<class"),
        ((Needy,), r"expected a class that takes no arguments, .*'role'; put an instance there, Needy\(\.\.\.\)"),
        (
            (two_parameters,),
            r"two_parameters to be callable with \(scope, handler, action\) alone.*too many positional",
        ),
        ((~IsAdmin & needs_more,), r"missing a required argument: 'board'; give all other parameters defaults"),
        ((generator,), r"generator, which is always true"),
        ((NotCallable,), r"NotCallable.has_permission to be callable .*, got True"),
        ((TooFew,), r"TooFew.has_object_permission to be callable with \(scope, handler, action, obj\) alone"),
    ],
)
def test_misuse_is_refused_with_expectation_value_and_cure(classes: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"^CardHandler\.permission_classes: .*{message}"):
        compile_permissions(classes, owner=OWNER)


# -- keyword arguments ------------------------------------------------------------------------------------------------


def keywords(parameters: dict[str, Any], captures: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments for permissions, from a frame's parameters and its route's captures."""
    frame = new_frame(parameters, "list", "", None)
    frame.call = SimpleNamespace(name="list", args=(), captures=captures, query="")
    return frame.keywords()


def test_captures_win_and_reserved_names_are_left_out() -> None:
    hostile = {"self": 1, "scope": 2, "handler": 3, "obj": 4, "action": 5, "pk": "evil", "route": "r", "x": None}
    assert keywords(hostile, {"pk": "7"}) == {"pk": "7", "route": "r", "x": None}
    assert keywords({}, {"scope": "captured", "slug": "a"}) == {"slug": "a"}
    assert hostile["self"] == 1


def given_to(permission: Any, kwargs: dict[str, Any]) -> Any:
    """The arguments that a permission stored in ``received``."""
    received.clear()
    assert settled(compiled(permission).action_refusal({}, "handler", "list", lambda: kwargs)) is None
    return dict(received)


received: dict[str, Any] = {}


def everything(scope: Any, handler: Any, action: str, **kwargs: Any) -> bool:
    received.update(kwargs)
    return True


def named(scope: Any, handler: Any, action: str, pk: Any = None, *, board: Any = None) -> bool:
    received.update(pk=pk, board=board)
    return True


def odd_names(s: Any, h: Any, a: str, **rest: Any) -> bool:
    received.update(rest)
    return isinstance(a, str)


def for_role(role: str, scope: Any, handler: Any, action: str, level: int = 0, **kwargs: Any) -> bool:
    received.update(kwargs, role=role, level=level)
    return True


def positional(*args: Any) -> bool:
    received.update(count=len(args))
    return True


def starred(*args: Any, pk: Any = None) -> bool:
    received.update(pk=pk)
    return True


class Method(BasePermission):
    def has_permission(this, scope: Any, handler: Any, action: str, **kwargs: Any) -> bool:
        received.update(kwargs)
        return True


class Called:
    def __call__(this, scope: Any, handler: Any, action: str, **kwargs: Any) -> bool:
        received.update(kwargs)
        return True


@pytest.mark.parametrize(
    ("permission", "kwargs", "expected"),
    [
        (everything, {"pk": 1, "x": 2}, {"pk": 1, "x": 2}),
        (everything, {"not an identifier": 1}, {"not an identifier": 1}),
        (named, {"pk": 1, "board": 2, "x": 3}, {"pk": 1, "board": 2}),
        (named, {"x": 3}, {"pk": None, "board": None}),
        (odd_names, {"s": "evil", "a": 0, "x": 1}, {"x": 1}),
        (positional, {"pk": 1}, {"count": 3}),
        (starred, {"pk": 1}, {"pk": 1}),
        (functools.partial(for_role, "admin"), {"role": "reader", "x": 1}, {"role": "admin", "level": 0, "x": 1}),
        (functools.partial(for_role, "admin", level=3), {"level": 9}, {"role": "admin", "level": 3}),
        (Method, {"this": "evil", "x": 1}, {"x": 1}),
        (Called(), {"this": "evil", "x": 1}, {"x": 1}),
        (Method().has_permission, {"this": "evil", "x": 1}, {"x": 1}),
    ],
)
def test_a_permission_gets_what_its_signature_takes(permission: Any, kwargs: Any, expected: Any) -> None:
    assert given_to(permission, kwargs) == expected


def test_keyword_arguments_are_built_lazily_and_once() -> None:
    made: list[int] = []

    def kwargs() -> dict[str, Any]:
        made.append(1)
        return {"pk": 1}

    assert compiled(everything, named, everything).action_refusal({}, None, "list", kwargs) is None
    assert made == [1]
    assert compiled(everything, named).action_refusal({}, None, "list") is None
    assert compiled(positional, AllowAny).action_refusal({}, None, "list", kwargs) is None
    assert compiled(IsAuthenticated, everything).action_refusal({}, None, "list", kwargs) is not None
    assert made == [1]


def test_every_question_receives_keyword_arguments() -> None:
    seen: list[Any] = []

    class Curious(BasePermission):
        def can_connect(self, scope: Any, handler: Any, **kwargs: Any) -> bool:
            seen.append(("connect", scope, handler, kwargs))
            return True

        def has_permission(self, scope: Any, handler: Any, action: str, **kwargs: Any) -> bool:
            seen.append(("action", scope, handler, action, kwargs))
            return True

        async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any, **kwargs: Any) -> bool:
            seen.append(("object", scope, handler, action, obj, kwargs))
            return True

    permissions = compiled(Curious | IsAdmin)
    scope: dict[str, Any] = {"user": STRANGER}
    extra = {"pk": 1}
    assert settled(permissions.connect_refusal(scope, "h", lambda: extra)) is None
    assert settled(permissions.action_refusal(scope, "h", "list", lambda: extra)) is None
    assert settled(permissions.object_refusal(scope, "h", "list", "card", lambda: extra)) is None
    action = ("action", scope, "h", "list", extra)
    assert seen == [action, action, ("object", scope, "h", "list", "card", extra)]
    assert compiled(Curious).connect_refusal(scope, "h", lambda: extra) is None
    assert seen[-1] == ("connect", scope, "h", extra)


HOSTED = [
    compiled(one) for one in (everything, named, odd_names, functools.partial(for_role, "admin"), Method, Called())
]


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["self", "scope", "cls", "args", "s", "a"]), st.none()))
def test_no_key_of_a_frame_breaks_a_permission(parameters: dict[str, Any]) -> None:
    for permissions in HOSTED:
        assert permissions.action_refusal({}, None, "list", lambda: keywords(parameters, {})) is None


# -- built in ---------------------------------------------------------------------------------------------------------


class OldUser:
    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def is_authenticated(self) -> bool:
        return self.answer


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, False),
        ({"user": None}, False),
        ({"user": object()}, False),
        ({"user": user()}, True),
        ({"user": user(is_authenticated=False)}, False),
        ({"user": user(is_authenticated=1)}, True),
        ({"user": user(is_authenticated=None)}, False),
        ({"user": OldUser(True)}, True),
        ({"user": OldUser(False)}, False),
    ],
)
def test_authenticated_users(scope: Any, expected: bool) -> None:
    assert stages(compiled(IsAuthenticated), scope) == (True, expected, expected)
    assert stages(compiled(IsAuthenticatedStrictly), scope) == (expected, expected, expected)


def test_users_of_starlette() -> None:
    authentication = pytest.importorskip("starlette.authentication")
    assert stages(compiled(IsAuthenticated), {"user": authentication.SimpleUser("ada")})[1] is True
    assert stages(compiled(IsAuthenticated), {"user": authentication.UnauthenticatedUser()})[1] is False
    by_identity = compiled(type("Mine", (IsOwner,), {"lookup_field": "author_id"}))
    assert stages(by_identity, {"user": authentication.SimpleUser("ada")}, SimpleNamespace(author_id="ada"))[2] is True


def test_an_awaitable_is_authenticated_raises() -> None:
    class AsyncUser:
        def is_authenticated(self) -> Any:
            return Suspending(False)

    with pytest.raises(TypeError, match=r"AsyncUser.is_authenticated: expected True or False, got an awaitable"):
        compiled(IsAuthenticated).action_refusal({"user": AsyncUser()}, None, "list")


class ById(IsOwner):
    lookup_field = "owner_id"


class ForUpdates(IsOwner):
    check_actions = ("update",)


class ForLooking(IsOwner):
    check_actions = ("retrieve",)


ADA = user(pk=7)


def test_is_owner_uses_the_user_id_of_the_app() -> None:
    scope = {"user": user(pk=7, email="ada@example.com"), USER_ID_KEY: lambda one: one.email}
    refusal = compiled(ById).object_refusal
    assert refusal(scope, None, "update", SimpleNamespace(owner_id="ada@example.com")) is None
    assert refusal(scope, None, "update", SimpleNamespace(owner_id=7)) is not None


@pytest.mark.parametrize(
    ("permission", "requester", "obj", "action", "expected"),
    [
        (IsOwner, ADA, SimpleNamespace(user=ADA), "retrieve", True),
        (IsOwner, ADA, SimpleNamespace(user=user(pk=8)), "retrieve", False),
        (IsOwner, ADA, SimpleNamespace(user=None), "retrieve", False),
        (IsOwner, None, SimpleNamespace(user=None), "retrieve", False),
        (IsOwner, user(is_authenticated=False), SimpleNamespace(user=user(is_authenticated=False)), "retrieve", False),
        (ById, ADA, SimpleNamespace(owner_id=7), "retrieve", True),
        (ById, user(id=7), SimpleNamespace(owner_id=7), "retrieve", True),
        (ById, user(id=7), SimpleNamespace(owner_id=8), "retrieve", False),
        (ById, user(pk=None), SimpleNamespace(owner_id=None), "retrieve", False),
        (ById, user(pk=None, identity="ada"), SimpleNamespace(owner_id="ada"), "retrieve", False),  # not saved yet
        (ById, SimpleNamespace(pk=7), SimpleNamespace(owner_id=7), "retrieve", False),  # has no is_authenticated
        (ById, user(is_authenticated=False, pk=7), SimpleNamespace(owner_id=7), "retrieve", False),
        (ForUpdates, ADA, SimpleNamespace(user=None), "retrieve", True),
        (ForUpdates, ADA, SimpleNamespace(user=None), "update", False),
        (ForUpdates, ADA, SimpleNamespace(user=ADA), "update", True),
        (ForUpdates, ADA, SimpleNamespace(user=None), "partial_update", False),
        (ForUpdates, ADA, SimpleNamespace(user=None), "subscribe", True),
        (ForLooking, ADA, SimpleNamespace(user=None), "subscribe", False),
    ],
)
def test_owners(permission: Any, requester: Any, obj: Any, action: str, expected: bool) -> None:
    refused = compiled(permission).object_refusal({"user": requester}, None, action, obj)
    assert refused == (None if expected else Refusal(permission.__name__))


@pytest.mark.parametrize("requester", [ADA, None])
def test_an_object_without_the_lookup_field_raises(requester: Any) -> None:
    with pytest.raises(TypeError, match=r"IsOwner: expected the attribute user, got SimpleNamespace.*set lookup_field"):
        compiled(IsOwner).object_refusal({"user": requester}, None, "retrieve", SimpleNamespace(owner=ADA))


def test_a_user_without_an_id_raises() -> None:
    with pytest.raises(TypeError, match="expected SimpleNamespace to have a pk, id or identity"):
        compiled(ById).object_refusal({"user": user()}, None, "retrieve", SimpleNamespace(owner_id=7))


@pytest.mark.parametrize("actions", ["update", None, 1])
def test_check_actions_is_checked_when_declared(actions: Any) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"Wrong.check_actions: expected '__all__' or a tuple of action.*, got"
    ):
        type("Wrong", (IsOwner,), {"check_actions": actions})


@pytest.mark.parametrize(("permission", "expected"), [(AllowAny(), True), (DenyAll(), False), (BasePermission(), True)])
def test_methods_called_by_hand(permission: BasePermission, expected: bool) -> None:
    assert permission.can_connect({}, None) is expected
    assert permission.has_permission({}, None, "list") is expected
    assert permission.has_object_permission({}, None, "list", None) is expected


# ------------------------------------------------------------------------------------------------- missing returns
def test_none_from_a_permission_refuses_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(BasePermission):
        def has_permission(self, scope: Any, handler: Any, action: str) -> Any:
            """The ``return`` was forgotten."""

        async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> Any:
            """The same, awaited."""

    asked = compiled(Forgetful)
    for _ in range(2):
        assert isinstance(settled(asked.action_refusal({}, "handler", "list")), Refusal)
        assert isinstance(settled(asked.object_refusal({}, "handler", "list", "card")), Refusal)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition("Forgetful.")[2] for text in messages] == [
        "has_permission returned None, which refuses; return True or False",
        "has_object_permission returned None, which refuses; return True or False",
    ]


@pytest.mark.parametrize("answer", [True, False, 0, "", 1])
def test_other_results_of_a_permission_are_not_logged(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    settled(compiled(lambda scope, handler, action: answer).action_refusal({}, "handler", "list"))
    assert caplog.records == []
