"""TypeScript with types of every kind, and the JavaScript that is left without them: line for line, to the blank."""

__all__ = ("ERASED", "REFUSED")

ERASED: dict[str, tuple[str, str]] = {
    "annotations": (
        "let a: number = 1, b: { c: string; d?(): void } | null = null, e!: T;",
        "let a = 1, b = null, e;",
    ),
    "patterns": (
        "const { a, b = 1 as T, ...c }: X = x, [d, e]: [T, U] = y;",
        "const { a, b = 1, ...c } = x, [d, e] = y;",
    ),
    "parameters": (
        "function f(this: T, a: T, b?: T, { c }: T = x, ...d: T[]): asserts a is T {}",
        "function f(a, b, { c } = x, ...d) {}",
    ),
    "this alone": ("function f(this: T) {}", "function f() {}"),
    "generic functions": (
        "function f<const T extends U = V>(): T {}\nasync function* g<T>(): T {}\nconst h = function <T>(a: T) {};",
        "function f() {}\nasync function* g() {}\nconst h = function (a) {};",
    ),
    "arrow functions": (
        "const f = (a: T): a is T => a, g = async <T,>(a?: T): Promise<T> => a, h = a ? (b): T => c : d;",
        "const f = (a) => a, g = async (a) => a, h = a ? (b) => c : d;",
    ),
    "an arrow under its type": (
        "const f = (\n  a: T,\n): {\n  b: T;\n} /* c */ => ({ b: a }), g = (): A\n  | B => a, h = (d)\n  : T => d;",
        "const f = (\n  a,\n) =>\n\n ({ b: a }), g = () =>\n a, h = (d) =>\n d;",
    ),
    "type parameters of an arrow function on several lines": (
        "function f() {\n  return <\n    T,\n  >(a: T) => a;\n}\nconst g = async <\n  T,\n>() => 1;",
        "function f() {\n  return (\n\na) => a;\n}\nconst g = async (\n\n) => 1;",
    ),
    "arguments": (
        'const a = f<T>(b), c = new M<K, V>(), d = x?.<T>(y), g = f<T>, h = new Map<K, Array<V>>(), i = import("i");',
        'const a = f(b), c = new M(), d = x?.(y), g = f, h = new Map(), i = import("i");',
    ),
    "casts": (
        "const a = b as const, c = d satisfies T as U, e = `${f as T}`, g = (h as T).i, j = k as\n  T;",
        "const a = b, c = d, e = `${f}`, g = (h).i, j = k\n;",
    ),
    "casts of statements": (
        "for (const a of b as T[]) (c as T) = a as T;\nexport default { d } satisfies T;",
        "for (const a of b) (c) = a;\nexport default { d };",
    ),
    "casts beside looser operators": (
        "a as T === b as T || c as T ? d as T : e as T;\nf < g as T;",
        "a === b || c ? d : e;\nf < g;",
    ),
    "what is not null": ("a!.b![0]!(c!)!;\nd! += 1;\ne?.f!.g;", "a.b[0](c);\nd += 1;\ne?.f.g;"),
    "comparisons": ("f(a < b, c > d);\nif (a < b && c > (d)) e;", "f(a < b, c > d);\nif (a < b && c > (d)) e;"),
    "try and for": (
        "try {} catch (error: unknown) {}\nfor (let i: number = 0; i < 1; i++);",
        "try {} catch (error) {}\nfor (let i = 0; i < 1; i++);",
    ),
    "declarations of types": (
        "a;\n/** What it is. */\ninterface A<T> extends B {\n  c: T;\n}\nexport type D = A;\n"
        "export interface E {} // gone\nb;",
        "a;\n\n\n\n\n\n // gone\nb;",
    ),
    "types in a function": (
        "function f() {\n  type A = B;\n  interface C {}\n  return 1;\n}",
        "function f() {\n\n\n  return 1;\n}",
    ),
    "ambient declarations": (
        'declare const a: T;\ndeclare module "b" {\n  enum C {}\n}\ndeclare global { interface D {} }\n'
        "export declare class E {}\nf;",
        "\n\n\n\n\n\nf;",
    ),
    "overloads of functions": (
        "/** Both. */\nexport function f(a: T): U;\nexport function f(a: T, b?: T): U {}\n"
        "function g(): T\nfunction g() {}",
        "/** Both. */\n\nexport function f(a, b) {}\n\nfunction g() {}",
    ),
    "imports of types": (
        'import type { A } from "a";\nimport type B from "b";\nimport { type C, d, type E as F } from "c";\n'
        'import { type G } from "g";\nimport h, { type I } from "h";\nimport { type } from "j";',
        '\n\nimport { d,  } from "c";\nimport {  } from "g";\nimport h, {  } from "h";\nimport { type } from "j";',
    ),
    "exports of types": (
        'let b;\nexport type { A } from "a";\nexport { type A, b };\nexport { type C } from "c";\nexport * from "d";',
        'let b;\n\nexport { b };\nexport {  } from "c";\nexport * from "d";',
    ),
    "classes": (
        "abstract class A<T> extends B<T> implements C, D<T> {}\nexport default abstract class E {}\nx = class<T> {};",
        "class A extends B {}\nexport default class E {}\nx = class {};",
    ),
    "fields": (
        "class A extends B {\n  private readonly a: T = 1;\n  static override b?: T;\n  c!: T;\n  #d: T | undefined;\n"
        "  readonly #e = 1;\n  public f;\n  declare g: T;\n  [key: string]: T;\n}",
        "class A extends B {\n  a = 1;\n  static b;\n  c;\n  #d;\n  #e = 1;\n  f;\n\n\n}",
    ),
    "methods": (
        "class A extends B {\n  constructor(a: T);\n  constructor(a: U) { super(); }\n"
        "  private async f<T>(): Promise<T> {}\n"
        "  protected override get g(): T { return 1; }\n  static h?(): void {}\n  i(): this is T { return true; }\n"
        "  static {}\n}",
        "class A extends B {\n\n  constructor(a) { super(); }\n  async f() {}\n  get g() { return 1; }\n"
        "  static h() {}\n  i() { return true; }\n  static {}\n}",
    ),
    "abstract members": (
        "abstract class A {\n  abstract a: T;\n  /** What it does. */\n  protected abstract b(): T;\n"
        "  abstract get c(): T;\n}",
        "class A {\n\n\n\n\n}",
    ),
    "objects": (
        "a = { b: 1, get c(): T { return 1; }, d<T>(e: T): void {}, type: 1, readonly: 2 };",
        "a = { b: 1, get c() { return 1; }, d(e) {}, type: 1, readonly: 2 };",
    ),
    "words of types as names": (
        "type = 1;\nlet declare = type, readonly = declare;\nclass A {\n  type() {}\n  declare = 1;\n  readonly;\n}",
        "type = 1;\nlet declare = type, readonly = declare;\nclass A {\n  type() {}\n  declare = 1;\n  readonly;\n}",
    ),
    "a type before a line that would go on": (
        "a()\ntype B = C\n(d)()\ninterface E {} // f\n/* g */\n[h] = i\ndeclare const j: T;\n`k`.l()\ntype M = N\no",
        "a()\n;\n(d)()\n; // f\n/* g */\n[h] = i\n;\n`k`.l()\n\no",
    ),
    "a member before one that would go on": (
        "class A {\n  a = 1\n  declare b: T;\n  [c] = 2\n  private *[d]() {}\n  e = 3\n"
        "  private static readonly [f] = 4\n"
        "  g = 5\n  private readonly [h] = 6\n}",
        "class A {\n  a = 1\n;\n  [c] = 2\n  ;*[d]() {}\n  e = 3\n  static [f] = 4\n  g = 5\n  ;[h] = 6\n}",
    ),
    "fields without semicolons": (
        "class A {\n  get: T\n  static: U\n  a() {}\n  b?: T\n}",
        "class A {\n  get;\n  static;\n  a() {}\n  b;\n}",
    ),
    "no semicolons": (
        "let a: T\n[b] = c\nlet d = e as T\nlet f = g!\nh()",
        "let a\n[b] = c\nlet d = e\nlet f = g\nh()",
    ),
    "comments": (
        "// a: T\n/* b as T */ let c /* d */: T /* e */ = 1; // f!\n/** g */\nfunction h(/* i */ j: T) {}",
        "// a: T\n/* b as T */ let c /* d */ /* e */ = 1; // f!\n/** g */\nfunction h(/* i */ j) {}",
    ),
    "texts and patterns": (
        'const a = "b: T as U", c = `d!: ${e!}: f`, g = /h: T!/, i = \'j<k>("l")\';',
        'const a = "b: T as U", c = `d!: ${e}: f`, g = /h: T!/, i = \'j<k>("l")\';',
    ),
    "other alphabets": ("const größe: Maß = 'ⅷ 🙂' as T; // ü: T", "const größe = 'ⅷ 🙂'; // ü: T"),
    "line ends of Windows": ("let a: {\r\n  b: T\r\n} = c\r\ninterface D {}\r\ne", "let a\r\n\r\n = c\r\n\r\ne"),
}

REFUSED: dict[str, tuple[str, str]] = {
    "an error": ("let a = 1;\nlet b = ;", "2:7: this is not valid TypeScript"),
    "something missing": ("let a = [1, 2;", "1:14: this is not valid TypeScript"),
    "an error behind other letters": ("let ä = 'ö'; (;", "1:14: this is not valid TypeScript"),
    "an enum": ("a;\n  enum B { C }", "2:3: an enum generates code"),
    "a const enum": ("export const enum B { C }", "1:8: an enum generates code"),
    "a namespace": ("namespace A { export const b = 1; }", "1:1: a namespace generates code"),
    "a module": ("module A {}", "1:1: a namespace generates code"),
    "an import that is assigned": ('import a = require("a");', "1:8: `import =` generates code"),
    "an alias": ("import a = B.C;", "1:1: `import =` generates code"),
    "an export that is assigned": ("export = a;", "1:8: this form of `export` is not JavaScript"),
    "a global": ("export as namespace A;", "1:11: this form of `export` is not JavaScript"),
    "parameter properties": ("class A { constructor(private a: T) {} }", "1:23: a parameter property generates code"),
    "readonly parameters": ("class A { constructor(readonly a?: T) {} }", "1:23: a parameter property generates code"),
    "decorators": ("@a class B {}", "1:1: decorators and `accessor` are not JavaScript yet"),
    "accessors": ("class A { accessor b: T; }", "1:11: decorators and `accessor` are not JavaScript yet"),
    "a type in front": ("const a = <T>b;", "1:11: a type before a value cannot be erased"),
    "a tag with types": ("const a = tag<T>`b`;", "1:11: this may be a comparison or have type arguments"),
    "a call on the next line": ("let a = b as T\n(c).d()", "1:9: the code after this type would apply to the value"),
    "a member of a cast": ("let a = b as T\n[c].d()", "1:9: the code after this type would apply to the value"),
    "a cast that is multiplied": ("a + b as T * c", "1:1: the code after this type would apply to the value"),
    "a bracket on the next line": (
        "let a = b as T\n[c]",
        "2:1: the bracket on this line does not belong to the type",
    ),
}
