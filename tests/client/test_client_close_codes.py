"""Close codes after which a client reconnects: the same in Python, TypeScript, the explorer and the server."""

import json
import re
import shutil
from pathlib import Path

import pytest

import wsaction
from tests.support.node import node
from wsaction._protocol.close_codes import PASSING_STATUSES, refuses, status_refuses
from wsaction._server.lifecycle import _close_code
from wsaction.exceptions import CATALOGUE, APIError

PACKAGE = Path(wsaction.__file__).parent
CODES = [*range(1000, 1016), *range(3000, 3010), *range(4000, 5000)]


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [
        (1000, False), (1001, False), (1006, False), (1008, True), (1009, False), (1011, False), (1012, False),
        (1013, False), (4000, False), (4400, True), (4401, True), (4403, True), (4404, True), (4408, False),
        (4425, False), (4429, False), (4499, True), (4500, False),
    ],
)  # fmt: skip
def test_which_close_codes_are_refusals(code: int, is_refused: bool) -> None:
    assert refuses(code) is is_refused


@pytest.mark.parametrize("file", ["codegen/client/reconnect.ts", "_server/explorer/socket.js"])
def test_every_client_has_the_same_rule(file: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is needed: apt-get install nodejs")
    text = (PACKAGE / file).read_text()
    constants = re.findall(r"^const (?:POLICY|PASSING_STATUSES)\b.*$", text, re.MULTILINE)
    functions = re.findall(r"^function (?:statusRefuses|refuses)\(.*?^}$", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r": (?:readonly )?(?:number\[\]|number|boolean)(?=[ )])", "", "\n".join([*constants, *functions]))
    done = node("-e", f"{plain}\nconsole.log(JSON.stringify({CODES}.filter(refuses)));")
    assert done.stderr == ""
    assert json.loads(done.stdout) == [code for code in CODES if refuses(code)]


def test_statuses_and_close_codes_agree_on_refusals() -> None:
    for status in range(400, 600):
        error = APIError(status, "x", "x")
        assert refuses(_close_code(error)) is status_refuses(status), status
    assert {408, 425, 429} == PASSING_STATUSES
    for kind in CATALOGUE.values():
        error = kind()
        assert refuses(_close_code(error)) is status_refuses(error.status), kind
