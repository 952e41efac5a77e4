"""Path converters: matching, reversing and wrong registrations."""

import uuid

import pytest

from wsaction.routing import Router, converters, path
from wsaction.routing.converters import get_converter, is_pure, register_converter
from wsaction.routing.exceptions import ImproperlyConfigured


class EvenConverter:
    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if int(value) % 2:
            raise ValueError("odd")
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


@pytest.mark.parametrize(
    ("kind", "text", "value", "written"),
    [
        ("int", "007", 7, "7"),
        ("str", "a b", "a b", "a b"),
        ("slug", "A-b_1", "A-b_1", "A-b_1"),
        ("path", "a/b", "a/b", "a/b"),
        ("uuid", str(uuid.UUID(int=7)), uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_built_in_converters_read_and_write(kind: str, text: str, value: object, written: str) -> None:
    converter = get_converter(kind, "a route")
    assert converter.to_python(text) == value
    assert str(converter.to_url(value)) == written
    assert is_pure(converter)


def view(**kwargs: object) -> None: ...


def test_a_registered_converter_is_used_and_may_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "_registered", {})
    register_converter(EvenConverter, "even")
    register_converter(EvenConverter, "even")  # registering the same class again is allowed
    router = Router([path("<even:n>", view), path("<str:n>", view)])
    assert router.resolve("4").kwargs == {"n": 4}
    assert router.resolve("5").kwargs == {"n": "5"}


def test_purity_is_not_inherited() -> None:
    pure = type("Pure", (EvenConverter,), {"pure": True})
    heir = type("Heir", (pure,), {})
    of_a_built_in = type("Own", (converters.IntConverter,), {})
    assert [is_pure(kind()) for kind in (EvenConverter, pure, heir, of_a_built_in)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("converter", "name", "message"),
    [
        (EvenConverter, "int", "'int' is already registered, as IntConverter"),
        (EvenConverter, "a b", "no white space"),
        (EvenConverter, "a:b", "no white space and none of '<>:'"),
        (EvenConverter, "", "got ''"),
        (EvenConverter(), "even", "takes a class"),
        (type("NoRegex", (), {"to_python": str, "to_url": str}), "new", "needs a 'regex' that is a string, got None"),
        (type("NoPython", (), {"regex": "a", "to_url": str}), "new", "needs a method to_python"),
        (type("NoUrl", (), {"regex": "a", "to_python": str}), "new", "needs a method to_url"),
        (type("Bad", (EvenConverter,), {"regex": "(a"}), "new", "regex that is not valid, '\\(a'"),
        (type("Broken", (EvenConverter,), {"regex": "a)|(b"}), "new", "regex that is not valid"),
        (type("Named", (EvenConverter,), {"regex": "(?P<y>a)"}), "new", r"named group.*write it as \(\?:...\)"),
    ],
)
def test_an_invalid_converter_is_refused(converter: object, name: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        register_converter(converter, name)  # type: ignore[arg-type]


def test_an_unknown_converter_gets_a_suggestion() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"'<strr:x>' uses the invalid converter 'strr'. Did you mean 'str'\?"
    ):
        path("<strr:x>", view)
    with pytest.raises(ImproperlyConfigured, match=r"'zzzz'\. There are .*int, .*register_converter\(\) adds one"):
        path("<zzzz:x>", view)
