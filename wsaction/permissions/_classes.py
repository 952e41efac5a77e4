"""Permission classes: who may connect, call an action and access an object.

There are three questions, each with a method: *connect* (``can_connect``), *action* (``has_permission``) and *object*
(``has_object_permission``). A permission answers the questions whose methods it defines; a plain callable answers the
action alone. All of ``permission_classes`` must allow; ``&``, ``|`` and ``~`` combine permissions to any depth. For
each question, an expression is evaluated as in Python:

* connect and action: the value of a permission is what its method returns;
* object: the value is ``has_permission and has_object_permission``, of those that the permission defines. So nobody
  passes ``IsOwner | IsAdmin`` with one method of the one and one method of the other;
* a permission that does not answer the question refuses nobody, negated or not. (This is Kleene's logic, where a final
  "unknown" allows: ``~(a | b)`` is ``~a & ~b``, and ``~~a`` is ``a``.)

A refusal of one question is final. The object is checked only after the action was allowed, and an action without an
object, such as ``list``, is decided by the action alone. Suppose that ``IsAdmin`` defines ``has_permission`` alone, as
``IsAuthenticated`` does, and that ``IsOwner`` defines ``has_object_permission`` alone. Then these are allowed:

=====================  =========  ===============  =======================
expression             connect    action           object
=====================  =========  ===============  =======================
``IsOwner | IsAdmin``  everyone   everyone         the owner, admins
``IsOwner & IsAdmin``  everyone   admins           admins who own it
``~IsOwner``           everyone   everyone         everyone but the owner
``~IsAuthenticated``   everyone   anonymous users  (not asked again)
``~AllowAny``          nobody     nobody           nobody
=====================  =========  ===============  =======================

The negation of a permission that defines both methods refuses the action if ``has_permission`` is true, because the
action may have no object. Answers count by their truth value, and None refuses. Awaitables are awaited, and exceptions
go to the caller. Permissions are asked from left to right until the verdict is known.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias, Union

from wsaction._protocol.frames import Frame, Unawaited, current_frame
from wsaction._utils.asgi import Scope
from wsaction._utils.bytecode import returns_nothing
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

Answer: TypeAlias = bool | Awaitable[bool]

_ABSENT = object()
_ARGUMENTS = ("scope", "handler", "action", "obj")
_ARITY = {"can_connect": 2, "has_permission": 3, "has_object_permission": 4}


class _PermissionType(Operators, type):  # type: ignore[misc]  # `A | B` is not typing's union here, but "or"
    """Gives permission classes their operators."""

    def __bool__(cls) -> bool:
        # `help()` and other tools test classes for truth, in functions. A class body or module that does writes
        # `IsAuthenticated and IsOwner`, which is IsOwner alone.
        if not sys._getframe(1).f_code.co_flags & inspect.CO_OPTIMIZED:
            super().__bool__()
        return True


class BasePermission(Operators, metaclass=_PermissionType):
    """The base class of permissions. A subclass defines at least one of its methods; the others are never called.

    The methods may be sync or async. They may have ``**kwargs`` or more parameters with defaults, which are filled by
    name from the route's captures and the frame. The methods of wsaction's own classes are sync: call ``super()``'s
    without ``await``. One instance serves all frames of all connections, so keep no state of a request on it.

    The attribute ``message`` is the ``msg`` of the 403 reply, and ``code`` is in its ``ctx``. To let everyone through
    on purpose, use `AllowAny`. Raises `ImproperlyConfigured` for a misspelt method.

    >>> class IsMember(BasePermission):
    ...     message = "Only members may write."
    ...
    ...     def has_permission(self, scope, handler, action, board=None):
    ...         return scope["user"].is_authenticated and board in scope["user"].boards
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    # With `*args: Any, **kwargs: Any`, type checkers accept overrides that have fewer or more parameters.

    def can_connect(self, scope: Scope, handler: Any, /, *args: Any, **kwargs: Any) -> Answer:
        """Whether the connection may be opened."""
        return True

    def has_permission(self, scope: Scope, handler: Any, action: str, /, *args: Any, **kwargs: Any) -> Answer:
        """Whether the action may be called."""
        return True

    def has_object_permission(
        self, scope: Scope, handler: Any, action: str, obj: Any, /, *args: Any, **kwargs: Any
    ) -> Answer:
        """Whether the action may access the object."""
        return True


# What may stand in `permission_classes`. Here, `|` would be the operator of permissions.
Permission: TypeAlias = Union[type[BasePermission], BasePermission, Composition, Callable[..., Answer]]  # noqa: UP007


class AllowAny(BasePermission):
    """Allows everything. ``~AllowAny`` refuses as `DenyAll` does."""

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
    """Allows actions only to a ``scope["user"]`` whose ``is_authenticated`` is true. Anonymous users may connect."""

    def has_permission(self, scope: Scope, handler: Any, action: str) -> bool:
        try:  # the usual case, made fast because it runs for each frame
            if scope["user"].is_authenticated is True:
                return True
        except (AttributeError, KeyError):
            pass  # there is no such user; `is_authenticated` handles that
        return is_authenticated(scope.get("user"))


class IsAuthenticatedStrictly(IsAuthenticated):
    """Allows connections and actions only to authenticated users."""

    def can_connect(self, scope: Scope, handler: Any) -> bool:
        return is_authenticated(scope.get("user"))


class IsOwner(BasePermission):
    """Allows access to an object only to its owner. Subclass it to set its attributes.

    * ``lookup_field``: the attribute of the object that is the owner, ``"user"`` by default. If the name ends in
      ``_id``, it is compared with the user's id: what ``WSAction(user_id=...)`` returns, else ``pk``, ``id`` or
      ``identity``. Nobody owns an object whose owner is None.
    * ``check_actions``: the names of the actions to check; all other actions are allowed. ``update`` includes
      ``partial_update``, and ``retrieve`` includes ``subscribe``. The default is ``"__all__"``.

    Raises `TypeError` if the object or the user has no such attribute. Raises `ImproperlyConfigured` if
    ``check_actions`` is not a collection of names, or names an action that the handler has under another name.

    >>> class IsAuthor(IsOwner):
    ...     lookup_field = "author_id"
    ...     check_actions = ("update", "destroy")
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
                f"lookup_field (here {self.lookup_field!r}; '..._id' means the user's id) in a subclass of IsOwner"
            )
        if owner is None or not is_authenticated(user):
            return False
        return bool(owner == (owner_id(scope) if self.lookup_field.endswith("_id") else user))


_INCLUDED_IN = {"partial_update": "update", "subscribe": "retrieve"}
_BY_HTTP = {"get": "retrieve", "post": "create", "put": "update", "patch": "partial_update", "delete": "destroy"}


def _check_actions(name: str, actions: Any, names: Mapping[str, str]) -> None:
    """Raises `ImproperlyConfigured` for ``check_actions`` that would guard nothing.

    ``names`` maps each name that an action of the handler could be mistaken to have to the action. Any other name is
    accepted: it may be an action of another handler with the same permission.
    """
    if actions == "__all__":
        return
    if isinstance(actions, str) or not isinstance(actions, Collection):
        expected = "'__all__' or a tuple of action names (of one: ('update',))"
        raise ImproperlyConfigured(f"{name}.check_actions: expected {expected}, got {actions!r}")
    declared = set(names.values())
    for action in set(actions) - declared:
        meant = names.get(str(action))  # None, unless it is another name of an action
        if meant is None and action not in _GENERIC:
            candidates = (_BY_HTTP.get(str(action)), *get_close_matches(str(action), declared, 1, cutoff=0.8))
            meant = next((name for name in candidates if name in declared), None)
        if meant is not None:
            raise ImproperlyConfigured(
                f"{name}.check_actions: expected actions of the handler, got {action!r}, which guards nothing; did you "
                f"mean {meant!r}?"
            )


_GENERIC = frozenset({"list", *_BY_HTTP.values()})  # a handler may lack any of these


@dataclass(frozen=True, slots=True, eq=False)
class Permissions:
    """Compiled ``permission_classes``, with a method for each question that returns a verdict.

    A verdict is None (allowed) or a `Refusal`. If a permission returned an awaitable, it is an awaitable of these::

        refused = permissions.action_refusal(scope, handler, action, kwargs)
        if refused is not None and not isinstance(refused, Refusal):
            refused = await refused

    ``kwargs`` returns the keyword arguments; see `wsaction._protocol.frames.Frame.keywords`. It is called at most once,
    and only if a permission takes keyword arguments. ``on_connect``, ``on_action`` and ``on_object`` are None if no
    permission has to be asked.
    """

    on_connect: Ask | None
    on_action: Ask | None
    on_object: Ask | None
    takes_keywords: bool  # whether any permission takes keyword arguments

    def connect_refusal(self, scope: Scope, handler: Any, kwargs: Kwargs = dict) -> Verdict:
        """The verdict on opening this connection."""
        return None if self.on_connect is None else self.on_connect((scope, handler), kwargs)

    def action_refusal(self, scope: Scope, handler: Any, action: str | None, kwargs: Kwargs = dict) -> Verdict:
        """The verdict on calling this action."""
        return None if self.on_action is None else self.on_action((scope, handler, action), kwargs)

    def object_refusal(
        self, scope: Scope, handler: Any, action: str | None, obj: Any, kwargs: Kwargs = dict
    ) -> Verdict:
        """The verdict on this object, for an action that was allowed; what that decided is not asked again."""
        return None if self.on_object is None else self.on_object((scope, handler, action, obj), kwargs)


_NO_ACTIONS: Mapping[str, str] = {}


async def raise_refusal(verdict: Verdict) -> None:
    """Raises `PermissionDenied` with the permission's message if the verdict is a refusal."""
    if not isinstance(verdict, Refusal | None):
        verdict = await verdict
    if verdict is not None:
        raise _denied(verdict)


def refusing(method: str, verdict: Verdict) -> Coroutine[Any, Any, None]:
    """As `raise_refusal`, but a refusal that is known raises at once, before the caller awaits.

    If the verdict is an awaitable, the frame fails unless the caller awaits the result: a forgotten ``await`` must not
    let the client in. ``method`` is the caller's name, for that error.
    """
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
    """The awaitable of a check that allowed. It has no state, so one instance serves all."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        super().throw(*error)

    def close(self) -> None:
        """Does nothing: no coroutine is suspended."""


_ALLOWED = _Allowed()


async def require(handler: Any, method: str, *args: Any) -> None:
    """Calls a method that refuses by raising.

    Raises ``TypeError`` if the method returned a refusal or did not await a check, so that neither mistake lets a
    client in.
    """
    answer = await getattr(handler, method)(*args)
    frame = current_frame.get()
    if frame is not None and isinstance(frame.error, Unawaited):
        raise frame.error
    where = f"{type(handler).__name__}.{method}()"
    reason = answer[0] if type(answer) is tuple and answer else answer  # (False, "why")
    is_error = isinstance(reason, BaseException) or (isinstance(reason, type) and issubclass(reason, BaseException))
    if reason is False or is_error:
        raise TypeError(f"{where} returned {answer!r}; raise PermissionDenied to refuse")
    if answer is not None and inspect.isawaitable(answer):
        raise TypeError(f"{where} returned a {name_of(type(answer))} that is not awaited; did you forget `await`?")


def compile_permissions(
    classes: Any, *, owner: str, connects: bool = True, actions: Mapping[str, str] = _NO_ACTIONS
) -> Permissions:
    """Compiles ``permission_classes``, so that each question calls only the permissions that answer it.

    Each class is instantiated once. ``owner`` names the setting in errors ("CardHandler.permission_classes").
    ``connects``: whether connections are checked too. ``actions`` are the names of the handler's actions, see
    `_check_actions`. Raises `ImproperlyConfigured` for an entry that is no permission, that would never be asked, or
    that cannot be called with the arguments of its question alone.
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
    """Compiles the entries of one ``permission_classes``; it reads each permission once."""

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
        """Whether any method that was read so far takes keyword arguments."""
        return any(method.keywords for methods in self._methods.values() for method in methods.values())

    def ask(self, entry: Any, refusal: Refusal, *questions: str) -> Ask | None:
        """The `Ask` of an expression in which each permission's value is the "and" of these methods, or None."""
        if is_group(entry):
            asks = [self.ask(operand, refusal, *questions) for operand in entry.operands]
            if entry.operator == "|" and None in asks:
                return None
            return series(None if entry.operator == "&" else refusal, [ask for ask in asks if ask is not None])
        yes, no = (refusal, None) if isinstance(entry, Composition) else (None, refusal)
        methods = self.methods(entry)
        return series(yes, [single(methods[question], yes, no) for question in questions if question in methods])

    def ask_object(self, entry: Any, refusal: Refusal) -> Ask | None:
        """The `Ask` of a conjunct for an object whose action it allowed: only what the action has left open."""
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
        """The methods that a permission or the operand of a negation defines, by name."""
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
            expected = f"{name} to check actions or objects, got can_connect alone, which only consumers ask"
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
                raise TypeError("it is a generator, which is always true")
            if returns_nothing(call):
                raise ImproperlyConfigured(
                    f"{self.owner}: {name} returns nothing, so that it refuses everyone; return True or False, or use "
                    "DenyAll"
                )
            inspect.signature(call).bind(*arguments)
        except (TypeError, ValueError) as error:
            expected = f"{name} to be callable with ({', '.join(arguments)}) alone"
            cure = "give all other parameters defaults, because a frame may lack them"
            raise ImproperlyConfigured(f"{self.owner}: expected {expected}, got {call!r}: {error}; {cure}") from error
        return Method(call, keywords_of(call, len(arguments)), len(arguments))
