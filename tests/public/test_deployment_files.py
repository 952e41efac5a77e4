"""The files of chapter 08 fit each other, the app, and the limits. `tests/slow/test_deployment.py` runs them."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.deployment_files import command, compose, dockerfile, healthcheck, kubernetes, of_kind, unit
from tests.support.nginx import CHAPTER, HOST, replaced
from wsaction.cli import main
from wsaction.limits import Limits
from wsaction.testing import HandshakeRefused, connect

ROOT = CHAPTER.parents[2]
DRAIN = Limits().drain_timeout


def load_app(monkeypatch: pytest.MonkeyPatch, **environment: str) -> ModuleType:
    for name in ("REDIS_URL", "ALLOWED_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = spec_from_file_location("deployed_app", CHAPTER / "app.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "deployed_app", module)
    spec.loader.exec_module(module)
    return module


def options_of(words: list[str]) -> dict[str, Any]:
    """What ``wsaction run`` makes of its arguments."""
    assert Path(words[0]).name == "wsaction"
    assert words[1] == "run"
    with main.commands["run"].make_context("run", words[2:]) as context:
        return dict(context.params)


async def test_the_app_as_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_app(monkeypatch, ALLOWED_HOSTS=HOST)
    async with connect(module.app, "/ws/", headers={"host": HOST}) as ws:
        await ws.call("subscribe", "rooms/tea/")
        await ws.call("say", "rooms/tea/", text="hello")
        assert (await ws.event("said"))["data"] == {"text": "hello"}
        assert (await ws.call("whereami"))["data"]["address"] == "testclient"
    with pytest.raises(HandshakeRefused):
        async with connect(module.app, "/ws/", headers={"host": "evil.example"}):
            pass


async def test_health_checks_answer_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet and the proxy ask by an address, which is not in allowed_hosts."""
    module = load_app(monkeypatch, ALLOWED_HOSTS=HOST)
    transport = httpx.ASGITransport(module.app)
    async with module.rooms.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://10.0.0.7") as client:
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz", "/docs")] == [200, 200, 403]


async def test_without_redis_a_process_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_app(monkeypatch, REDIS_URL="redis://127.0.0.1:1/0")
    transport = httpx.ASGITransport(module.app)
    async with module.rooms.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]


def test_the_image() -> None:
    instructions = dockerfile()
    names = [name for name, _ in instructions]
    allowed = {"FROM", "COPY", "RUN", "WORKDIR", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
    assert set(names) == allowed
    assert names[-1] == "CMD"
    for rest in (rest for name, rest in instructions if name == "COPY"):
        *sources, _ = [word for word in rest.split() if not word.startswith("--from=")]
        if "--from=" not in rest:
            assert all((ROOT / source).exists() for source in sources), rest
    user = dict(instructions)["USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert names.index("USER") > max(at for at, name in enumerate(names) if name in ("RUN", "COPY"))
    options = options_of(command())
    assert (options["app"], options["host"]) == ("app:app", "0.0.0.0")
    assert str(options["port"]) == dict(instructions)["EXPOSE"]
    assert f":{options['port']}/healthz'" in healthcheck()[-1]
    compile(healthcheck()[-1], "HEALTHCHECK", "exec")
    extras = re.findall(r'"/src\[([\w,]+)\]"', (CHAPTER / "Dockerfile").read_text())[0].split(",")
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras)


def test_compose() -> None:
    services = compose()["services"]
    assert services["redis"]["command"][0] == "redis-server"
    ports = set()
    for name in ("chat-1", "chat-2"):
        service = services[name]
        assert float(service["stop_grace_period"].removesuffix("s")) > DRAIN
        assert (
            CHAPTER / service["build"]["context"] / service["build"]["dockerfile"]
        ).resolve() == CHAPTER / "Dockerfile"
        assert urlsplit(service["environment"]["REDIS_URL"]).hostname == "redis"
        assert service["environment"]["ALLOWED_HOSTS"] == HOST
        address, outside, inside = service["ports"][0].split(":")
        assert int(inside) == options_of(command())["port"]
        ports.add(f"{address}:{outside}")
    assert ports == set(
        re.findall(r"^\s+server ([\d.:]+) max_fails=0;$", (CHAPTER / "nginx.conf").read_text(), re.MULTILINE)
    )


def test_kubernetes() -> None:
    pods = of_kind("Deployment")["spec"]
    pod, labels = pods["template"]["spec"], pods["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    assert pods["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN + 5
    probes = {name: container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")}
    assert {probe["path"] for probe in probes.values()} == {"/readyz", "/healthz"}
    (port,) = container["ports"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert port["containerPort"] == options_of(command())["port"]
    assert f"{pod['securityContext']['runAsUser']}:" in dict(dockerfile())["USER"]
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= pause
    assert readiness["timeoutSeconds"] > 2  # what the app waits for Redis
    service = of_kind("Service")
    selectors = [pods["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors.append(of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    assert selectors == [labels] * 3
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    (rule,) = of_kind("Ingress")["spec"]["rules"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert rule["host"] == environment["ALLOWED_HOSTS"] == HOST
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == service["metadata"]["name"]
    assert set(environment) == {"ALLOWED_HOSTS", "FORWARDED_ALLOW_IPS", "REDIS_URL"}
    assert len(kubernetes()) == 4


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    settings = unit()
    words = shlex.split(settings["ExecStart"][0].replace("%i", "8001"))
    assert (options_of(words)["port"], options_of(words)["host"]) == (8001, "127.0.0.1")
    assert float(settings["TimeoutStopSec"][0]) > DRAIN
    assert settings["KillMode"] == ["mixed"]
    if shutil.which("systemd-analyze") is None:
        return
    text = replaced((CHAPTER / "wsaction@.service").read_text(), {words[0]: sys.executable})
    (tmp_path / "wsaction@8001.service").write_text(text)
    verify = ["systemd-analyze", "verify", str(tmp_path / "wsaction@8001.service")]
    verified = subprocess.run(verify, capture_output=True, text=True, timeout=30)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_nginx_waits_for_longer_than_the_server_is_silent() -> None:
    site = (CHAPTER / "nginx.conf").read_text()
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", site)
    (interval,) = (option.default for option in main.commands["run"].params if option.name == "ws_ping_interval")
    assert float(seconds) > 2 * interval
    assert site.count("max_fails=0") == 3  # two processes, and the comment that says why


PAGE = (CHAPTER / "README.md").read_text()


def test_the_table_of_limits_is_that_of_the_code() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+)", PAGE, re.MULTILINE))
    assert {name: float(value.replace(",", "")) for name, value in documented.items()} == {
        field.name: float(getattr(Limits(), field.name)) for field in fields(Limits)
    }


def test_each_attack_has_its_test() -> None:
    attacks = (ROOT / "tests" / "slow" / "test_attacks.py").read_text()
    assert set(re.findall(r"`(test_it_\w+)`", PAGE)) == set(re.findall(r"def (test_it_\w+)\(", attacks))


def test_the_flags_for_uvicorn_are_those_that_run_sets() -> None:
    recommended = {"--ws wsaction.server:DrainingProtocol", "--http wsaction.server:HTTPProtocol"}
    assert recommended <= set(re.findall(r"^\| `(--[^`]+)` \|", PAGE, re.MULTILINE))
    for line in ("nginx.conf", "wsaction@.service", "Dockerfile", "compose.yaml", "kubernetes.yaml", "redis-users.acl"):
        assert f"({line})" in PAGE
