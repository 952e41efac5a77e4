"""Converts TypeScript to JavaScript by erasing the types, without a build step.

Only *erasable* TypeScript is accepted (the compiler's option ``erasableSyntaxOnly``): JavaScript with types added, so
that nothing has to be translated. tree-sitter finds the types. This module lists the syntax to erase, and handles the
few places where erasing a type would change the meaning of the code around it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

# In tree-sitter's query language, `@name` names the node before it.
_QUERY = """
; erased: `_edit` has a function for each name
[(type_annotation) (type_predicate_annotation) (asserts_annotation) (type_parameters) (type_arguments)] @type
[(as_expression) (satisfies_expression)] @cast

(non_null_expression "!" @type)
(variable_declarator "!" @type)
(public_field_definition ["?" "!"] @type)
(method_definition "?" @type)
(optional_parameter "?" @type)

(public_field_definition [(accessibility_modifier) (override_modifier) "readonly"] @modifier)
(method_definition [(accessibility_modifier) (override_modifier)] @modifier)
(implements_clause) @modifier
(abstract_class_declaration "abstract" @modifier)

[(interface_declaration) (type_alias_declaration) (ambient_declaration) (function_signature)] @statement
(export_statement
  [(interface_declaration) (type_alias_declaration) (ambient_declaration) (function_signature)]) @statement
(export_statement "type") @statement
(import_statement "type") @statement
(class_body [(method_signature) (abstract_method_signature) (index_signature)] @statement)
(public_field_definition ["declare" "abstract"]) @statement

(import_specifier "type") @item
(export_specifier "type") @item
(formal_parameters (required_parameter pattern: (this)) @item)

; refused, since it generates code: `_REFUSED` has a message for each name
(enum_declaration) @enum
[(internal_module) (module)] @namespace
[(import_alias) (import_require_clause)] @import
(export_statement ["=" "namespace"] @export)
(required_parameter [(accessibility_modifier) (override_modifier) "readonly"] @property)
(optional_parameter [(accessibility_modifier) (override_modifier) "readonly"] @property)
(decorator) @proposal
(public_field_definition "accessor" @proposal)

; refused, since the compiler parses it differently from this grammar, or from JavaScript without the types
(type_assertion) @assertion
(binary_expression left: (binary_expression operator: "<") operator: ">") @comparison
(call_expression function: [(as_expression) (satisfies_expression)] @bound)
(member_expression object: [(as_expression) (satisfies_expression)] @bound)
(subscript_expression object: [(as_expression) (satisfies_expression)] @bound)
(binary_expression left: [(as_expression) (satisfies_expression)] @bound
                   operator: ["+" "-" "*" "/" "%" "**" "<<" ">>" ">>>"])
(lookup_type "[" @bracket)
(array_type "[" @bracket)
"""
_REFUSED = {
    "enum": "an enum generates code; write an object `as const`",
    "namespace": "a namespace generates code; write a module",
    "import": "`import =` generates code; write `import ... from`",
    "export": "this form of `export` is not JavaScript; write `export { ... }` or `export default`",
    "property": "a parameter property generates code; declare a field, and assign it in the constructor",
    "proposal": "decorators and `accessor` are not JavaScript yet",
    "assertion": "a type before a value cannot be erased; write `value as Type`",
    "comparison": "this may be a comparison or have type arguments; add parentheses",
    "bound": "the code after this type would apply to the value; add parentheses, or end the line with `;`",
    "bracket": "the bracket on this line does not belong to the type before it; end that line with `;`",
}
_MODIFIERS = ("accessibility_modifier", "override_modifier", "readonly")

# Where a type is erased, the line before it may continue on the line after it. This byte, which UTF-8 does not use,
# marks such places. It becomes a semicolon if the next token could continue the line, else it is removed.
_END = b"\xff"
_CONTINUES = re.compile(rb"\xff(?=(?:\s|//[^\n]*|/\*.*?\*/)*+[(\[`+\-*/])", re.DOTALL)


class _Edit(NamedTuple):
    """A range of bytes to replace, and its replacement."""

    start: int
    end: int
    by: bytes


def erase_types(source: str, name: str = "source.ts") -> str:
    """Returns TypeScript source without its types: JavaScript, with every line at its place.

    The source must be erasable (``erasableSyntaxOnly``), and must use ``import type`` for types
    (``verbatimModuleSyntax``). Comments stay, except those that document an erased type.

    ``name`` is the file name for error messages. Raises ``ValueError``, which names file, line and column, for source
    that cannot be parsed or erased. Raises ``ImportError`` if the extra ``javascript`` is not installed.

    ``erase_types("const first = (cards: Card[]) => cards[0]!;")`` is ``"const first = (cards) => cards[0];"``.
    """
    text = source.encode()
    root, found = _read(text)
    if root.has_error:
        raise _error(_first_error(root), "this is not valid TypeScript", name, text)
    edits, refused = [], []
    for kind, nodes in found.items():
        if kind in _REFUSED:
            refused += [(kind, node) for node in nodes if kind != "bracket" or _is_on_a_new_line(node)]
        else:
            edits += [_edit(kind, node, text) for node in nodes]
    kept = list(_outermost(edits))
    for kind, node in sorted(refused, key=lambda one: one[1].start_byte):
        if kind == "bracket" or not any(edit.start <= node.start_byte and node.end_byte <= edit.end for edit in kept):
            raise _error(node, _REFUSED[kind], name, text)
    return _CONTINUES.sub(b";", b"".join(_parts(text, kept))).replace(_END, b"").decode()


def _read(text: bytes) -> "tuple[Node, dict[str, list[Node]]]":
    """Parses a program. Returns its root, and the nodes that the query found, by capture name."""
    language, query = _grammar()
    from tree_sitter import Parser, QueryCursor

    root = Parser(language).parse(text).root_node
    return root, QueryCursor(query).captures(root)


@lru_cache(maxsize=1)
def _grammar() -> "tuple[Language, Query]":
    try:
        from tree_sitter import Language, Query
        from tree_sitter_typescript import language_typescript
    except ImportError as exc:
        raise ImportError("JavaScript needs tree-sitter: pip install 'wsaction[javascript]'") from exc
    language = Language(language_typescript())
    return language, Query(language, _QUERY)


def _first_error(node: "Node") -> "Node":
    """The first node that the parser could not read, or that is missing."""
    while not (node.is_error or node.is_missing):
        node = next(child for child in node.children if child.has_error)
    return node


def _error(node: "Node", message: str, name: str, text: bytes) -> ValueError:
    row, column = node.start_point
    before = text[node.start_byte - column : node.start_byte].decode()
    return ValueError(f"{name}:{row + 1}:{len(before) + 1}: {message}")


def _is_on_a_new_line(node: "Node") -> bool:
    before = node.prev_sibling
    return before is not None and before.end_point.row < node.start_point.row


def _outermost(edits: list[_Edit]) -> Iterator[_Edit]:
    """The edits in order, without those inside another edit."""
    end = 0
    for edit in sorted(edits, key=lambda one: (one.start, -one.end)):
        if edit.start >= end:
            end = edit.end
            yield edit


def _parts(text: bytes, edits: list[_Edit]) -> Iterator[bytes]:
    """The parts of a text with the edits applied."""
    end = 0
    for edit in edits:
        yield text[end : edit.start]
        yield edit.by
        end = edit.end
    yield text[end:]


# ---------------------------------------------------------------------------------------------------- each kind of type
def _edit(kind: str, node: "Node", text: bytes) -> _Edit:
    """The edit for a node that the query found."""
    return {"type": _type, "cast": _cast, "modifier": _modifier, "statement": _statement, "item": _item}[kind](
        node, text
    )


def _erase(text: bytes, start: int, end: int, before: bytes = b"") -> _Edit:
    """An edit that keeps only the line breaks."""
    return _Edit(start, end, before + re.sub(rb"[^\r\n]+", b"", text[start:end]))


def _type(node: "Node", text: bytes) -> _Edit:
    """An annotation, type parameters, type arguments, or a mark such as ``!``."""
    parent = node.parent
    if parent is not None and parent.type == "arrow_function":
        return _type_of_arrow(parent, node, text)
    before = b""
    if parent is not None and parent.type == "public_field_definition" and parent.children[-1] == node:
        # without the type, a field named `get` and a method on the next line would be a getter
        follows = parent.next_sibling
        before = b"" if follows is not None and follows.type == ";" else b";"
    return _erase(text, node.start_byte, node.end_byte, before)


def _type_of_arrow(arrow: "Node", node: "Node", text: bytes) -> _Edit:
    """A type of an arrow function. No line may end before the arrow, or after ``async`` or ``return``."""
    tokens = {child.type: child for child in arrow.children}
    parameters, token = tokens["formal_parameters"], tokens["=>"]
    if node.type == "type_parameters":
        start, end, first = node.start_byte, parameters.start_byte + 1, b"("
    else:
        start, end, first = parameters.end_byte, token.end_byte, b" =>"
    if b"\n" in text[start:end]:
        return _erase(text, start, end, first)
    return _erase(text, node.start_byte, node.end_byte)


def _cast(node: "Node", text: bytes) -> _Edit:
    """``as`` or ``satisfies`` and the type after a value."""
    return _erase(text, node.children[0].end_byte, node.end_byte)


def _modifier(node: "Node", text: bytes) -> _Edit:
    """A modifier and the blanks after it."""
    end = node.end_byte + len(_blanks(text[node.end_byte :]))
    before = node.prev_sibling
    is_first = before is None or before.type in _MODIFIERS
    return _erase(text, node.start_byte, end, _END if is_first else b"")


def _statement(node: "Node", text: bytes) -> _Edit:
    """A declaration or class member with its semicolon, documentation and indentation."""
    start, end = node.start_byte, node.end_byte
    before, after = node.prev_sibling, node.next_sibling
    if after is not None and after.type == ";":
        end = after.end_byte
    if before is not None and not _is_overload(node) and _documents(before, node, text):
        start = before.start_byte
    line = text.rfind(b"\n", 0, start) + 1
    if not text[line:start].strip() and text[end : end + 1] in (b"", b"\n", b"\r"):
        start = line
    return _erase(text, start, end, _END)


def _is_overload(node: "Node") -> bool:
    """Whether this is an overload: its comment also documents the implementation, and stays."""
    declared = node.child_by_field_name("declaration") or node
    return declared.type in ("function_signature", "method_signature")


def _documents(comment: "Node", node: "Node", text: bytes) -> bool:
    between = text[comment.end_byte : node.start_byte]
    return comment.type == "comment" and text.startswith(b"/**", comment.start_byte) and between.count(b"\n") == 1


def _item(node: "Node", text: bytes) -> _Edit:
    """An item of a list and the comma after it. A comma before the last item stays, which JavaScript allows."""
    end, after = node.end_byte, node.next_sibling
    if after is not None and after.type == ",":
        end = after.end_byte + len(_blanks(text[after.end_byte :]))
    return _erase(text, node.start_byte, end)


def _blanks(text: bytes) -> bytes:
    return text[: len(text) - len(text.lstrip(b" \t"))]
