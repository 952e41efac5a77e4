"""The explorer's forms: docstrings, kinds of actions, kept values, errors at their fields, edited frames, sign-in."""

from typing import Any

import pytest

from tests.support.chromium import CHROMIUM, DRIVER, Page
from tests.support.explorer_app import Tokens, make
from wsaction.authentication import FirstFrameAuthentication

selenium = pytest.importorskip("selenium", reason="selenium is needed for the explorer's tests: pip install selenium")
from selenium.webdriver.common.by import By  # noqa: E402  # once it is known to be there
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver"),
]


def opened(page: Page, serve: Any, action: str, **options: Any) -> None:
    page.open(serve(make(**options)).url(f"/docs#{action}", "http"))
    page.state("open")


def problems(page: Page) -> dict[str, str]:
    """The messages below the fields, by the names of the fields."""
    script = """
    return Object.fromEntries([...document.querySelectorAll("main .problem:not(.general)")].map((problem) =>
      [problem.closest(".field").querySelector("label, .label").innerText, problem.innerText]));
    """
    found: dict[str, str] = page.driver.execute_script(script)
    return found


# docstrings
def test_a_docstring_is_shown_as_paragraphs_once(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.boards.board.cards.search")
    assert page.texts(".heading > .description > p") == [
        "Searches the cards of a board, in no order.",
        "Give notify as well as limit, or not:",
        "<b>No HTML</b> is kept.",
    ]
    assert page.texts(".heading .summary") == []
    assert page.one(".heading").text.count("Searches the cards") == 1
    assert page.texts(".heading .description code") == ["notify", "limit", "limit"]
    assert page.texts(".heading .description :is(em, strong)") == ["or not", "each word"]
    links = page.driver.find_elements(By.CSS_SELECTOR, ".heading a")
    assert [link.get_attribute("href") for link in links] == ["https://example.com/rules"]
    assert page.texts(".heading b") == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("One\ntwo.\n\nThree.", "<p>One\ntwo.</p><p>Three.</p>"),
        ("`a` ``b`c`` ```", "<p><code>a</code> <code>b`c</code> ```</p>"),
        ("**a** *b* _c_ 2*3*4 __init__ snake_case_name *args, **kwargs", None),
        ("- a\n  more\n- b\n\n1. c\n2. d", "<ul><li>a\n  more</li><li>b</li></ul><ol><li>c</li><li>d</li></ol>"),
        ("```python\nx = '*a*'\n```\nend", "<pre tabindex=\"0\"><code>x = '*a*'</code></pre><p>end</p>"),
        ("So:\n\n    a\n\n    b\n", '<p>So:</p><pre tabindex="0"><code>a\n\nb</code></pre>'),
        (">>> f(1)\n1\n\nend", '<pre tabindex="0"><code>&gt;&gt;&gt; f(1)\n1</code></pre><p>end</p>'),
        (":param x: how *many*\n:returns: all", None),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("[a](JavaScript:alert(1)) [b](//evil) [c](data:text/html,x)", None),
        ('[<i>"a"</i>](https://x/"onclick="y)', None),
        ("", ""),
        ("```\nnever closed", '<pre tabindex="0"><code>never closed</code></pre>'),
    ],
)
def test_markdown(page: Page, serve: Any, text: str, shown: str | None) -> None:
    others = {
        "**a**": "<p><strong>a</strong> <em>b</em> <em>c</em> 2*3*4 __init__ snake_case_name *args, **kwargs</p>",
        ":para": "<ul><li><code>x</code> how <em>many</em></li><li><code>returns</code> all</li></ul>",
        "[a](J": "<p>[a](JavaScript:alert(1)) [b](//evil) [c](data:text/html,x)</p>",
        '[<i>"': '<p><a href="https://x/&quot;onclick=&quot;y" target="_blank" rel="noopener noreferrer">'
        '&lt;i&gt;"a"&lt;/i&gt;</a></p>',
    }
    if not page.driver.current_url.endswith("/docs#ws.echo"):
        opened(page, serve, "ws.echo")
    script = "return markdown(arguments[0]).map((one) => one.outerHTML).join('')"
    assert page.driver.execute_script(script, text) == (others[text[:5]] if shown is None else shown)


def test_the_app_and_the_handler_are_described(page: Page, serve: Any) -> None:
    page.open(serve(make(description="Call `sign_in` first.\n\n- then list")).url("/docs", "http"))
    page.state("open")
    assert page.texts(".intro > p, .intro li") == ["Call sign_in first.", "then list"]
    page.choose("ws.tasks.list")
    assert page.texts(".intro") == []
    page.one(".handler summary").click()
    assert page.texts(".handler p") == ["The tasks of all. A change is published to all subscribers."]


# kinds of actions
def test_kinds_of_actions_are_told_apart_by_a_word_and_an_icon(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.echo")
    script = """
    return Object.fromEntries([...tree.querySelectorAll("a")].map((link) => [link.hash.slice(4),
      [...link.querySelectorAll(".kind")].map((kind) =>
        [kind.innerText, getComputedStyle(kind, "::before").maskImage.slice(0, 10)])]));
    """
    kinds = page.driver.execute_script(script)
    icon = 'url("data:'
    assert kinds["tasks.pk.destroy"] == kinds["boards.board.cards.archive"] == [["destructive", icon]]
    assert kinds["tasks.subscribe"] == kinds["tasks.unsubscribe"] == kinds["tasks.presence"] == [["live", icon]]
    assert kinds["count"] == [["stream", icon]]
    assert kinds["echo"] == kinds["tasks.list"] == []
    icons = "return [...document.querySelectorAll('.kind')].map((one) => getComputedStyle(one, '::before').maskImage)"
    assert len(set(page.driver.execute_script(icons))) == 3
    page.one("#filter").send_keys("destructive")
    assert page.texts("#tree a span:first-child") == ["archive", "destroy"]
    page.choose("ws.tasks.pk.destroy")
    assert (page.texts(".heading .kind"), page.one(".send").text) == (["destructive"], "Send (destructive)")


# kept values
def test_values_are_kept_from_action_to_action_of_a_route(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.boards.board.cards.create")
    page.field("board").send_keys("7")
    page.field("title").send_keys("Read")
    page.include("labels")
    page.button("Add an item")
    page.field("name").send_keys("docs")
    page.include("due")
    page.include("notify")
    page.field("notify").send_keys("true")
    page.choose("ws.boards.board.cards.search")
    assert page.frame() == {"action": "search", "route": "boards/7/cards/", "notify": True}
    page.choose("ws.echo")
    page.field("text").send_keys("hi")
    page.choose("ws.boards.board.cards.create")
    data = {"title": "Read", "labels": [{"name": "docs"}], "due": None}
    assert page.frame() == {"action": "create", "route": "boards/7/cards/", "data": data, "notify": True}
    page.include("notify")  # no more
    page.choose("ws.boards.board.cards.search")
    assert page.frame() == {"action": "search", "route": "boards/7/cards/"}
    page.choose("ws.echo")
    assert page.frame() == {"action": "echo", "text": "hi"}


def test_a_draft_is_kept_though_a_part_of_it_is_invalid(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.boards.board.cards.create")
    page.field("title").send_keys("Read")
    page.include("labels")
    page.button("Add an item")
    page.include("weight")
    page.field("weight").send_keys(Keys.BACKSPACE)
    page.choose("ws.echo")
    page.choose("ws.boards.board.cards.create")
    assert page.field("board").get_attribute("value") == ""
    assert page.field("title").get_attribute("value") == "Read"
    page.field("board").send_keys("7")
    assert page.frame()["data"] == {"title": "Read", "labels": [{"name": ""}]}


def test_the_key_goes_from_a_list_to_retrieve_but_never_to_destroy(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.tasks.list")
    page.send()
    page.reply("200")
    page.choose("ws.tasks.pk.destroy")
    assert page.field("pk").get_attribute("value") == ""
    options = "return [...document.querySelector('main input').list.options].map((one) => one.value)"
    assert page.driver.execute_script(options) == ["4", "5"]  # suggested all the same
    page.choose("ws.tasks.pk.retrieve")
    assert page.frame() == {"action": "retrieve", "route": "tasks/4/"}
    page.field("pk").clear()
    page.field("pk").send_keys("5")
    page.choose("ws.tasks.pk.update")
    assert page.field("pk").get_attribute("value") == "5"


def test_the_key_of_a_created_object_is_known(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.tasks.create")
    page.field("title").send_keys("New")
    page.send()
    page.reply("201")
    page.choose("ws.tasks.pk.retrieve")
    page.send()
    assert '"title": "New"' in page.reply("200")


# errors
def test_errors_stand_at_their_fields(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.boards.board.cards.create")
    page.field("board").send_keys("7")
    page.field("title").send_keys("a")
    page.include("labels")
    page.button("Add an item")
    page.include("weight")
    page.include("owner")
    page.field("owner").clear()
    page.field("owner").send_keys("[]")
    page.send()
    page.field("weight").clear()
    page.send()
    assert problems(page) == {"weight": "Enter a number."}  # found by the page itself
    assert page.driver.switch_to.active_element == page.field("weight")
    page.field("weight").send_keys("1")
    assert problems(page) == {}
    page.send()
    page.until(lambda: problems(page))
    assert problems(page)["owner"] in ("Input should be a valid string", "Input should be a valid integer")
    owner = page.field("owner")
    assert page.driver.switch_to.active_element == owner
    assert owner.get_attribute("aria-invalid") == "true"
    described = owner.get_attribute("aria-describedby").split()
    assert [page.one(f"#{name}").text for name in described] == page.texts("main .problem:not(.general)")
    page.field("owner").clear()
    page.field("owner").send_keys("9")
    assert (problems(page), page.field("owner").get_attribute("aria-invalid")) == ({}, None)
    assert page.field("owner").get_attribute("aria-describedby") is None


def test_the_first_of_several_fields_is_focused_and_errors_of_none_stand_above_send(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.tasks.pk.update")
    page.field("pk").send_keys("4")
    page.field("title").send_keys("a")
    page.include("done")
    page.send()
    page.until(lambda: problems(page) == {"title": "String should have at least 2 characters"})
    page.field("title").send_keys("b")
    page.driver.execute_script(
        "const errors = [{loc: ['data', 'done'], msg: 'D'}, {loc: ['elsewhere'], msg: 'E'}, {loc: ['data'], msg: 'A'},"
        " {loc: ['pk'], msg: 'P'}, {type: 'conflict', msg: 'C'}];"
        "const call = explorer.socket.send('{}', explorer.form.buildFrame()); explorer.form.call = call;"
        "Object.assign(call, {status: 400, ms: 1, reply: {status: 400, errors}}); explorer.form.draw(call)"
    )
    assert problems(page) == {"pk": "P", "done": "D", "data": "A"}
    assert page.one(".problem.general").text == "E C"
    assert page.driver.switch_to.active_element == page.field("pk")


def test_an_error_of_the_query_opens_the_field_of_the_query(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.tasks.list")
    page.one("details.query summary").click()
    page.one("#query").send_keys("page=99")
    page.one("details.query summary").click()
    page.send()
    page.until(lambda: problems(page) == {"Query": "There is no page 99."})
    assert page.driver.switch_to.active_element == page.one("#query")


def test_signing_in_ends_the_request_to_sign_in(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.sign_in", authentication_classes=[Tokens, FirstFrameAuthentication])
    assert page.one("#state").text == "Connected; sign in first"
    page.one("#signin").click()
    page.one("input[value=frame]").click()
    page.one("#credential").send_keys("secret", Keys.ENTER)
    page.until(lambda: page.one("#state").text == "Connected")


def test_errors_of_a_form_that_has_changed_do_not_take_the_focus(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.tasks.create")
    page.field("title").send_keys("a")
    page.driver.execute_script("explorer.socket.faults.isReading = false")
    page.send()
    page.field("title").send_keys("bc")
    page.driver.execute_script("explorer.socket.setReading(true)")
    page.reply("400")
    page.until(lambda: "400" in page.one("#outcome").text)
    assert problems(page) == {}


# the frame
def test_an_edited_frame_overrides_the_form_and_says_so(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.echo")
    page.field("text").send_keys("form")
    assert not page.one(".notice").is_displayed()
    page.one("#frame").clear()
    page.one("#frame").send_keys('{"action": "echo", "text": "hand"}')
    assert "it is sent instead of the form" in page.one(".notice").text
    assert not page.field("text").is_enabled()
    page.send()
    assert '"hand"' in page.reply("200")
    page.button("Back to the form")
    assert (page.one(".notice").is_displayed(), page.field("text").is_enabled()) == (False, True)
    assert page.frame() == {"action": "echo", "text": "form"}
    page.send()
    assert '"form"' in page.reply("200")


def test_an_old_reply_is_marked_as_old(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.echo")
    page.field("text").send_keys("a")
    page.send()
    page.until(lambda: page.one("#outcome").text.startswith("echo: 200"))
    marked = ".call:first-child .tag.old"
    assert page.texts(marked) == []
    page.field("text").send_keys("b")
    page.until(lambda: page.texts(marked) == ["old"])
    assert page.one("#outcome").text.startswith("old echo: 200")
    page.field("text").send_keys(Keys.BACKSPACE)  # what was sent
    page.until(lambda: page.texts(marked) == [])
    assert page.one("#outcome").text.startswith("echo: 200")
    page.choose("ws.whoami")
    page.until(lambda: page.texts(marked) == ["old"])
    page.send()
    page.reply("403")
    page.until(lambda: page.texts(".call .tag.old") == ["old"])
    assert page.texts(marked) == []
    page.one("#tree h2 button").click()  # subscribes, which no form has sent
    page.until(lambda: "subscribe" in page.texts(".call:first-child b")[0])
    assert page.texts(marked) == []


# signing in
def test_enter_signs_in(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.whoami")
    page.one("#signin").click()
    page.one("#credential").send_keys("secret", Keys.SHIFT, Keys.ENTER)
    assert page.one("dialog#dialog").is_displayed()
    page.one("#credential").send_keys(Keys.NULL, Keys.BACKSPACE, Keys.ENTER)
    page.until(lambda: page.one("#signin").text == "Signed in")
    assert not page.one("dialog#dialog").is_displayed()
    page.until(lambda: page.one("button.send").is_enabled())
    page.send()
    assert '"ada"' in page.reply("200")


def test_a_reply_with_a_token_offers_to_sign_in(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.sign_in")
    page.field("name").send_keys("ada")
    page.field("password").send_keys("ada")
    page.send()
    page.reply("200")
    page.one(".call button.token").click()
    page.until(lambda: page.one("#toast").text == "Signed in")
    page.choose("ws.whoami")
    page.send()
    assert '"ada"' in page.reply("200")
    assert len(page.texts(".call button.token")) == 1  # the reply of whoami has none


def test_no_token_is_offered_where_nobody_can_sign_in(page: Page, serve: Any) -> None:
    opened(page, serve, "ws.sign_in", authentication_classes=())
    page.field("name").send_keys("ada")
    page.field("password").send_keys("ada")
    page.send()
    page.reply("200")
    assert page.texts("button.token") == []
    assert not page.one("#signin").is_displayed()


@pytest.mark.parametrize(
    ("data", "token"),
    [
        ({"token": "a"}, "a"),
        ({"user": 1, "access_token": "a", "token_type": "bearer"}, "a"),
        ({"access": "a", "refresh": "b"}, "a"),
        ({"accessToken": "a"}, "a"),
        ({"data": {"tokens": {"jwt": "a"}}}, "a"),
        ({"refresh_token": "b", "csrf_token": "c", "token_count": "d"}, None),
        ({"token": 7, "jwt": ""}, None),
        ({"a": {"b": {"c": {"token": "too deep"}}}}, None),
        ([{"token": "of a list"}], None),
        ("token", None),
        (None, None),
    ],
)
def test_what_counts_as_a_token(page: Page, serve: Any, data: Any, token: str | None) -> None:
    if not page.driver.current_url.endswith("/docs#ws.echo"):
        opened(page, serve, "ws.echo")
    assert page.driver.execute_script("return tokenIn(arguments[0])", data) == token
