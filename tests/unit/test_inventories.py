# SPDX-License-Identifier: Apache-2.0
"""The inventories of the repository: valid, placed as they say, and their workers do real work."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WORKLOADS = ROOT / "inventories/workloads"
FLEET = "all: {children: {controllers: {hosts: {c1: }}, switches: {hosts: {h1: , h2: , h3: }}}}"


def playbook(inventory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The outcome of playbooks/validate.yml."""
    program = Path(sys.executable).with_name("ansible-playbook")
    command: list[str | Path] = [program, "-i", inventory, *more, "playbooks/validate.yml"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["example", "fop", "ufop"])
def test_inventory_of_the_repository_is_valid(name: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(FLEET)
    done = playbook(ROOT / "inventories" / name, "-i", str(tmp_path / "hosts.yml"))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stderr


def test_all_errors_are_reported_in_one_run_without_any_host(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        FLEET.replace("h1: ", "h1: {qnet_datapath_id: x, qnet_underlay_interfce: eth1}").replace("c1: ", "c1: , c2: ")
    )
    variables = {
        "qnet_networks": [{"name": "prod", "vni": 0, "pod_subnets": ["10.0.0.0/24", "10.0.0.0/25"]}],
        "qnet_exports": [{"service": "a/b", "to": "c"}],
        "tenants": [],
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(json.dumps(variables))
    done = playbook(tmp_path / "hosts.yml")
    assert done.returncode != 0
    found = json.loads(done.stdout[done.stdout.index("FAILED! => ") + 11 :].split("\n\nPLAY RECAP")[0])
    assert {error["path"] for error in found["errors"]} == {
        "tenants",
        "groups.database",
        "hostvars.h1.qnet_datapath_id",
        "qnet_underlay_interfce",
        "qnet_networks[0].vni",
        "qnet_networks[0].pod_subnets[1]",
        "qnet_exports[0].service",
        "qnet_exports[0].to",
    }
    assert all(error["rule"] and error["hint"] for error in found["errors"])


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a worker by name, as its process does."""
    pytest.importorskip("PIL", reason="the workers need Pillow, which the hosts have as python3-pil")
    monkeypatch.syspath_prepend(str(WORKLOADS))
    for name in ("IMAGE_URL", "VIDEO_URL", "AGENTS_URL"):
        monkeypatch.setenv(name, "http://192.0.2.1")
    yield importlib.import_module
    for name in [n for n in sys.modules if (WORKLOADS / f"{n}.py").exists()]:
        del sys.modules[name]


def opened(body: bytes) -> Any:
    """The picture in a body."""
    from PIL import Image

    return Image.open(io.BytesIO(body))


def test_image_worker_resizes_rotates_and_converts(workers: Any) -> None:
    request = workers("http_worker").Request
    picture = workers("sample").picture()
    query = {"resize": "160x100", "rotate": "90", "gray": "1", "format": "webp"}
    response = workers("image_worker").handle(request("/", query, picture, ""))
    image = opened(response.body)
    assert (image.size, image.format, response.media_type) == ((100, 160), "WEBP", "image/webp")
    assert opened(picture).size == (640, 400)


def test_video_worker_makes_a_storyboard_of_different_frames(workers: Any) -> None:
    request = workers("http_worker").Request
    query = {"frames": "6", "columns": "3", "width": "80"}
    response = workers("video_worker").handle(request("/", query, workers("sample").animation(), ""))
    board = opened(response.body).convert("RGB")
    assert board.size == (3 * 84 + 4, 2 * 54 + 4)
    frames = {
        board.crop((4 + c * 84, 4 + r * 54, 84 + c * 84, 54 + r * 54)).tobytes() for r in (0, 1) for c in range(3)
    }
    assert len(frames) == 6


@pytest.mark.parametrize(
    ("worker", "query", "body", "status"),
    [
        ("image_worker", {"resize": "0x5"}, "picture", 400),
        ("image_worker", {"format": "exe"}, "picture", 400),
        ("image_worker", {}, "text", 415),
        ("video_worker", {"frames": "0"}, "animation", 400),
        ("video_worker", {}, "text", 415),
    ],
)
def test_worker_refuses_what_it_cannot_do(
    workers: Any, worker: str, query: dict[str, str], body: str, status: int
) -> None:
    common, sample = workers("http_worker"), workers("sample")
    bodies = {"picture": sample.picture(), "animation": sample.animation(), "text": b"not an image"}
    with pytest.raises(common.Refused) as refused:
        workers(worker).handle(common.Request("/", query, bodies[body], ""))
    assert refused.value.status == status


def test_agent_remembers_results_and_asks_afresh_when_told(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    common, agent = workers("http_worker"), workers("agent")
    asked: list[str] = []

    def ask(url: str, body: bytes) -> Any:
        asked.append(url)
        return common.Response(b"result", "image/png", 200, ("fop/image-1",))

    monkeypatch.setattr(agent, "ask", ask)
    answers = [
        agent.handle(common.Request("/image", query, b"x", "")).headers["X-Qnet-Cache"]
        for query in ({"resize": "1x1"}, {"resize": "1x1"}, {"resize": "1x1", "fresh": "1"}, {"resize": "2x2"})
    ]
    assert answers == ["miss", "hit", "miss", "miss"]
    assert asked[0] == "http://192.0.2.1/?resize=1x1"


def test_store_keeps_what_it_is_given(workers: Any) -> None:
    answer = workers("store_worker").answer
    assert [answer(line, "10.0.0.9") for line in ("PUT a b c", "GET a", "GET z", "DROP", "WHO")] == [
        "ok", "b c", "?", "PUT key value, GET key or WHO", "unknown 10.0.0.9",
    ]  # fmt: skip
