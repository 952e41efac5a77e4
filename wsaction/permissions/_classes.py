"""Who may connect, act, and touch an object: permission classes and their algebra.

A permission has a say in the questions whose method it defines: *connect* (``can_connect``), *action*
(``has_permission``), *object* (``has_object_permission``); a plain callable in actions only. ``permission_classes`` is
one "and"; ``&``, ``|`` and ``~`` combine permissions to any depth. Each question is Python's own logic over the
permissions that have a say in it:

* connect and action: a permission's value is its method's answer;
* object: it is ``has_permission and has_object_permission``, of which it may define one or both. So nobody gets
  through ``IsOwner | IsAdmin`` by half of the one and half of the other;
* a permission without a say refuses nobody, negated or not: it leaves the decision to the other questions. (Kleene's
  logic, "unknown" let through at the end: ``~(a | b)`` is ``~a & ~b``, and ``~~a`` is ``a``.)

A refusal at one question is final: an object is asked about once its action was allowed, and an action that has no
object (``list``) is decided by the action alone. With ``IsAdmin`` defining ``has_permission`` alone, as
``IsAuthenticated`` does, and ``IsOwner`` ``has_object_permission`` alone, these get through:

=====================  =========  ===============  =======================
expression             connect    action           object
=====================  =========  ===============  =======================
``IsOwner | IsAdmin``  everyone   everyone         the owner, admins
``IsOwner & IsAdmin``  everyone   admins           admins who own it
``~IsOwner``           everyone   everyone         everyone but the owner
``~IsAuthenticated``   everyone   anonymous users  (whoever may act)
``~AllowAny``          nobody     nobody           nobody
=====================  =========  ===============  =======================

The negation of a permission that defines both is refused at the action if ``has_permission`` is true, since no object
may follow to say more. Answers count by truthiness, None refuses, awaitables are awaited, exceptions go to the caller.
What cannot change the verdict any more is not asked; the order is from left to right.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Collection, Coroutine, Generator, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

from wsaction._protocol.frames import Frame, NotAwaited, current_frame
from wsaction._utils.misspellings import refuse_misspelt
from wsaction.authentication._identity import is_authenticated, owner_id
from wsaction.exceptions import PermissionDenied
from wsaction.permissions._expressions import (
    Ask,
    Composition,
    Kwargs,
    Method,
    Operators,
    Refusal,
    Verdict,
    is_group,
    keywords_of,
    name_of,
    normal_form,
    once,
    series,
    single,
)
from wsaction.routing.exceptions import ImproperlyConfigured

__all__ = (
    "AllowAny",
    "BasePermission",
    "Composition",
    "DenyAll",
    "IsAuthenticated",
    "IsAuthenticatedStrictly",
    "IsOwner",
    "Permissions",
    "Refusal",
    "compile_permissions",
    "raise_refusal",
    "refusing",
    "require",
)

Scope: TypeAlias = MutableMapping[str, Any]
Answer: TypeAlias = bool | Awaitable[bool]

_ABSENT = object()
_ARGUMENTS = ("scope", "handler", "action", "obj")
_ARITY = {"can_connect": 2, "has_permission": 3, "has_object_permission": 4}


class _PermissionType(Operators, type):  # type: ignore[misc]  # `A | B` is not typing's union here, but "or"
    """Gives permission classes their operators."""

    def __bool__(cls) -> bool:
        return True  # only instances and expressions refuse: `help()` and other tools ask classes for their truth


class BasePermission(Operators, metaclass=_PermissionType):
    """Answers nothing by itself; a subclass defines the methods of the questions that it has a say in, at least one.

    They may be sync or async, and take more parameters (with defaults) or ``**kwargs``, which are filled by name from
    the route's captures and the frame. Methods that are not overridden are never asked. One instance serves all frames
    of all connections: keep no state of a request on it. ``message`` and ``code`` go into the `Refusal`.
    These and the built-in methods are sync: call ``super()``'s without ``await``. Raises `ImproperlyConfigured` where
    a method's name is misspelt. To let everyone through on purpose is `AllowAny`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    # `*args: Any, **kwargs: Any` is the typing specification's word for "an override may take fewer or more".

    def can_connect(self, scope: Scope, handler: Any, *args: Any, **kwargs: Any) -> Answer:
        """Whether the connection may be opened."""
        return True

    def has_permission(self, scope: Scope, handler: Any, action: str, *args: Any, **kwargs: Any) -> Answer:
        """Whether the action may be called."""
        return True

    def has_object_permission(
        self, scope: Scope, handler: Any, action: str, obj: Any, *args: Any, **kwargs: Any
    ) -> Answer:
        """Whether the action may touch the object."""
        return True


class AllowAny(BasePermission):
    """Lets everyone through, on purpose; ``~AllowAny`` refuses as `DenyAll` does."""

    def can_connect(self, scope: Scope, handler: Any) -> bool:
        return True

    def has_permission(self, scope: Scope, handler: Any, action: str) -> bool:
        return True

    def has_object_permission(self, scope: Scope, handler: Any, action: str, obj: Any) -> bool:
        return True


class DenyAll(BasePermission):
    """Refuses everything, connections too."""

    def can_connect(self, scope: Scope, handler: Any) -> bool:
        return False

    def has_permission(self, scope: Scope, handler: Any, action: str) -> bool:
        return False

    def has_object_permission(self, scope: Scope, handler: Any, action: str, obj: Any) -> bool:
        return False


class IsAuthenticated(BasePermission):
    """Only a ``scope["user"]`` whose ``is_authenticated`` is true may act; anonymous users may connect."""

    def has_permission(self, scope: Scope, handler: Any, action: str) -> bool:
        try:  # the short way, once a frame
            if scope["user"].is_authenticated is True:
                return True
        except (AttributeError, KeyError):
            pass  # there is no such user, which is said below
        return is_authenticated(scope.get("user"))


class IsAuthenticatedStrictly(IsAuthenticated):
    """`IsAuthenticated` for connections too."""

    def can_connect(self, scope: Scope, handler: Any) -> bool:
        return is_authenticated(scope.get("user"))


class IsOwner(BasePermission):
    """The object's ``lookup_field`` is the user; subclass it to set the attributes.

    A ``lookup_field`` that ends in ``_id`` is compared with what ``WSAction(user_id=...)`` says of the user, by default
    its ``pk``, else ``id``, else ``identity``. Nobody owns an object whose owner is None. Where ``check_actions`` names
    actions, the answer to all others is yes; ``update`` includes ``partial_update``, and ``retrieve`` ``subscribe``.
    Raises `TypeError` where an object or user has no such attribute, `ImproperlyConfigured` for ``check_actions`` that
    are none, or that a handler where it is mounted calls otherwise.
    """

    lookup_field: str = "user"
    check_actions: Collection[str] = "__all__"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_actions(cls.__qualname__, cls.check_actions, {})

    def has_object_permission(self, scope: Scope, handler: Any, action: str, obj: Any) -> bool:
        checked = self.check_actions
        if checked != "__all__" and action not in checked and _INCLUDED_IN.get(action) not in checked:
            return True
        owner, user = getattr(obj, self.lookup_field, _ABSENT), scope.get("user")
        if owner is _ABSENT:
            raise TypeError(
                f"{name_of(self)}: expected the attribute {self.lookup_field}, got {name_of(obj)}, which has none; set "
                f"lookup_field (here {self.lookup_field!r}; '..._id' means the user's pk) in a subclass of IsOwner"
            )
        if owner is None or not is_authenticated(user):
            return False
        return bool(owner == (owner_id(scope) if self.lookup_field.endswith("_id") else user))


_INCLUDED_IN = {"partial_update": "update", "subscribe": "retrieve"}
_BY_HTTP = {"get": "retrieve", "post": "create", "put": "update", "patch": "partial_update", "delete": "destroy"}


def _check_actions(name: str, actions: Any, names: Mapping[str, str]) -> None:
    """Raises `ImproperlyConfigured` for ``check_actions`` that would guard nothing.

    ``names`` are the names that a handler's actions may be mistaken to have, and the actions'. Any other name may be an
    action of another handler.
    """
    if actions == "__all__":
        return
    if isinstance(actions, str) or not isinstance(actions, Collection):
        expected = "'__all__' or a tuple of action names (of one: ('update',))"
        raise ImproperlyConfigured(f"{name}.check_actions: expected {expected}, got {actions!r}")
    declared = set(names.values())
    for action in set(actions) - declared:
        meant = names.get(str(action))  # it has another name
        if meant is None and action not in _GENERIC:
            candidates = (_BY_HTTP.get(str(action)), *get_close_matches(str(action), declared, 1, cutoff=0.8))
            meant = next((name for name in candidates if name in declared), None)
        if meant is not None:
            raise ImproperlyConfigured(
                f"{name}.check_actions: {action!r} is no action of the handler, so that it would guard nothing; did "
                f"you mean {meant!r}?"
            )


_GENERIC = frozenset({"list", *_BY_HTTP.values()})  # a handler may well be without them


@dataclass(frozen=True, slots=True, eq=False)
class Permissions:
    """What `compile_permissions` makes of ``permission_classes``; each question is answered by a verdict.

    That is None (allowed), a `Refusal`, or, only where something awaitable was met, an awaitable of these::

        refused = permissions.action_refusal(scope, handler, action, kwargs)
        if refused is not None and not isinstance(refused, Refusal):
            refused = await refused

    ``kwargs`` makes the keyword arguments (see `wsaction._protocol.frames.Frame.keywords`). It is called at most once,
    and only when a permission that takes some is asked. ``on_connect``, ``on_action`` and ``on_object`` are None where
    nothing needs to be asked.
    """

    on_connect: Ask | None
    on_action: Ask | None
    on_object: Ask | None
    takes_keywords: bool  # whether any of them asks for the keyword arguments

    def connect_refusal(self, scope: Scope, handler: Any, kwargs: Kwargs = dict) -> Verdict:
        """The verdict on opening this connection."""
        return None if self.on_connect is None else self.on_connect((scope, handler), kwargs)

    def action_refusal(self, scope: Scope, handler: Any, action: str | None, kwargs: Kwargs = dict) -> Verdict:
        """The verdict on calling this action."""
        return None if self.on_action is None else self.on_action((scope, handler, action), kwargs)

    def object_refusal(
        self, scope: Scope, handler: Any, action: str | None, obj: Any, kwargs: Kwargs = dict
    ) -> Verdict:
        """The verdict on this object, for an action that was allowed: what that settled is not asked again."""
        return None if self.on_object is None else self.on_object((scope, handler, action, obj), kwargs)


_NO_ACTIONS: Mapping[str, str] = {}


async def raise_refusal(verdict: Verdict) -> None:
    """Raises `PermissionDenied`, with the permission's message, if the verdict is a refusal."""
    if not isinstance(verdict, Refusal | None):
        verdict = await verdict
    if verdict is not None:
        raise _denied(verdict)


def refusing(method: str, verdict: Verdict) -> Coroutine[Any, Any, None]:
    """The same. A verdict that is known raises at once; one that has to be awaited fails the frame until it is."""
    if verdict is None:
        return _ALLOWED
    if isinstance(verdict, Refusal):
        raise _denied(verdict)
    if (frame := current_frame.get()) is None:
        return raise_refusal(verdict)
    frame.begin_check(method)
    return _check(frame, method, verdict)


async def _check(frame: Frame, method: str, verdict: Verdict) -> None:
    frame.end_check(method)
    await raise_refusal(verdict)


def _denied(refusal: Refusal) -> PermissionDenied:
    return PermissionDenied(refusal.message, {"code": refusal.code} if refusal.code else None)


class _Allowed(Coroutine[Any, Any, None]):
    """A check that is done. It has no state, so that there is one for all."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        super().throw(*error)

    def close(self) -> None:
        """Nothing is under way."""


_ALLOWED = _Allowed()


async def require(handler: Any, method: str, *args: Any) -> None:
    """Calls a method that refuses by raising. Raises ``TypeError`` if it returned a refusal, or did not await a check:
    no mistake lets a client in."""
    answer = await getattr(handler, method)(*args)
    frame = current_frame.get()
    if frame is not None and isinstance(frame.error, NotAwaited):
        raise frame.error
    where = f"{type(handler).__name__}.{method}()"
    reason = answer[0] if type(answer) is tuple and answer else answer  # (False, "why")
    is_error = isinstance(reason, BaseException) or (isinstance(reason, type) and issubclass(reason, BaseException))
    if reason is False or is_error:
        raise TypeError(f"{where} returned {answer!r}; raise PermissionDenied to refuse")
    if answer is not None and inspect.isawaitable(answer):
        raise TypeError(f"{where} returned {name_of(type(answer))}, which nobody awaits; did you forget `await`?")


def compile_permissions(
    classes: Any, *, owner: str, connects: bool = True, actions: Mapping[str, str] = _NO_ACTIONS
) -> Permissions:
    """Reads ``permission_classes`` once, so that a frame pays for the permissions that have a say, and for no others.

    ``owner`` names them in errors ("CardHandler.permission_classes"). Each class is instantiated once. ``connects``:
    whether they are asked of connections too. ``actions`` are those of the handler, see `IsOwner`. Raises
    `ImproperlyConfigured` for an entry that is no permission, that would never be asked, or that cannot be called with
    its question's arguments alone.
    ``compile_permissions((IsAuthenticated,), owner="H.permission_classes").on_object is None``.
    """
    if not isinstance(classes, list | tuple):
        cure = "did you forget the comma? (IsAuthenticated,) is a tuple"
        raise ImproperlyConfigured(f"{owner}: expected a tuple or list of permissions, got {name_of(classes)}; {cure}")
    compiler = _Compiler(owner, connects, actions)
    conjuncts = normal_form(Composition("&", tuple(classes))).operands
    asks = (
        compiler.all_of(compiler.ask(conjunct, _refusal(conjunct), "can_connect") for conjunct in conjuncts),
        compiler.all_of(compiler.ask(conjunct, _refusal(conjunct), "has_permission") for conjunct in conjuncts),
        compiler.all_of(compiler.ask_object(conjunct, _refusal(conjunct)) for conjunct in conjuncts),
    )
    return Permissions(*asks, takes_keywords=compiler.takes_keywords)


def _refusal(entry: Any) -> Refusal:
    return Refusal(name_of(entry), getattr(entry, "message", None), getattr(entry, "code", None))


class _Compiler:
    """Reads the entries of one ``permission_classes``, each of them once, and names ``owner`` in errors."""

    def __init__(self, owner: str, connects: bool, actions: Mapping[str, str]) -> None:
        self.owner = owner
        self.connects = connects
        self.actions = actions
        self._methods: dict[int, dict[str, Method]] = {}

    def all_of(self, conjuncts: Iterable[Ask | None]) -> Ask | None:
        ask = series(None, [ask for ask in conjuncts if ask is not None])
        return once(ask) if ask is not None and self.takes_keywords else ask

    @property
    def takes_keywords(self) -> bool:
        """Whether any method that was read so far takes some."""
        return any(method.keywords for methods in self._methods.values() for method in methods.values())

    def ask(self, entry: Any, refusal: Refusal, *questions: str) -> Ask | None:
        """Asks an expression whose permissions' values are the "and" of these methods; None: it has no say."""
        if is_group(entry):
            asks = [self.ask(operand, refusal, *questions) for operand in entry.operands]
            if entry.operator == "|" and None in asks:
                return None
            return series(None if entry.operator == "&" else refusal, [ask for ask in asks if ask is not None])
        yes, no = (refusal, None) if isinstance(entry, Composition) else (None, refusal)
        methods = self.methods(entry)
        return series(yes, [single(methods[question], yes, no) for question in questions if question in methods])

    def ask_object(self, entry: Any, refusal: Refusal) -> Ask | None:
        """Asks a conjunct for an object, given that it allowed the action: only what that has left open."""
        if not self.has_object_say(entry):
            return None
        if is_group(entry):
            return self.ask(entry, refusal, "has_permission of an object", "has_object_permission")
        if isinstance(entry, Composition) and "has_permission" in self.methods(entry):
            return None
        return self.ask(entry, refusal, "has_object_permission")

    def has_object_say(self, entry: Any) -> bool:
        if is_group(entry):
            return any(map(self.has_object_say, entry.operands))
        return "has_object_permission" in self.methods(entry)

    def methods(self, entry: Any) -> dict[str, Method]:
        """The methods that a permission, or one that is negated, defines, by their names."""
        permission = entry.operands[0] if isinstance(entry, Composition) else entry
        cls = permission if isinstance(permission, type) else type(permission)
        if cls is (DenyAll if isinstance(entry, Composition) else AllowAny):
            return {}
        if id(permission) not in self._methods:
            methods = self._methods[id(permission)] = self._read(permission)
            if "has_permission" in methods:
                methods["has_permission of an object"] = methods["has_permission"].without_last()
        return self._methods[id(permission)]

    def _read(self, entry: Any) -> dict[str, Method]:
        if isinstance(entry, (BasePermission, _PermissionType)):
            permission, name = self._instance(entry), name_of(entry)
            if isinstance(permission, IsOwner):
                _check_actions(f"{self.owner}: {name}", permission.check_actions, self.actions)
            calls = {question: getattr(permission, question) for question in _ARITY}
            for question in _ARITY:
                if getattr(calls[question], "__func__", None) is getattr(BasePermission, question):
                    del calls[question]  # it is not overridden
            self._check_questions(name, calls)
            return {question: self._method(call, question, f"{name}.{question}") for question, call in calls.items()}
        if callable(entry) and not isinstance(entry, type):
            return {"has_permission": self._method(entry, "has_permission", name_of(entry))}
        cure = "name the class itself, without quotes" if isinstance(entry, str) else "derive it from BasePermission"
        expected = "a BasePermission class, instance or composition, or a callable (scope, handler, action)"
        raise ImproperlyConfigured(f"{self.owner}: expected {expected}, got {entry!r}; {cure}, or leave it out")

    def _check_questions(self, name: str, questions: Collection[str]) -> None:
        """Raises `ImproperlyConfigured` for a permission that would let everyone through because it is never asked."""
        if not questions:
            expected = f"{name} to define {', '.join(_ARITY)} or some of them, got none of them"
            raise ImproperlyConfigured(f"{self.owner}: expected {expected}; to let everyone through, use AllowAny")
        if not self.connects and [*questions] == ["can_connect"]:
            cure = "put it into the consumer's permission_classes, or define has_permission"
            expected = f"{name} to be about actions or objects, got can_connect alone, which is asked of consumers only"
            raise ImproperlyConfigured(f"{self.owner}: expected {expected}; {cure}")

    def _instance(self, entry: Any) -> Any:
        try:
            return entry() if isinstance(entry, type) else entry
        except TypeError as error:
            cure = f"put an instance there, {entry.__qualname__}(...)"
            expected = "a class that takes no arguments"
            raise ImproperlyConfigured(f"{self.owner}: expected {expected}, got {error}; {cure}") from error

    def _method(self, call: Any, question: str, name: str) -> Method:
        arguments = _ARGUMENTS[: _ARITY[question]]
        if callable(call) and inspect.ismethod(call.__call__):  # an object with a method `__call__`
            call = call.__call__
        try:
            if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
                raise TypeError("it is a generator, whose answer would always count as true")
            inspect.signature(call).bind(*arguments)
        except (TypeError, ValueError) as error:
            expected = f"{name} to be callable with ({', '.join(arguments)}) alone"
            cure = "give other parameters defaults: a frame may come without them"
            raise ImproperlyConfigured(f"{self.owner}: expected {expected}, got {call!r}: {error}; {cure}") from error
        return Method(call, keywords_of(call, len(arguments)), len(arguments))
