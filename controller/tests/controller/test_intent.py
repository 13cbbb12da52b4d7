# SPDX-License-Identifier: Apache-2.0
"""The intent feed against a real ovsdb-server: the model is what the database says, after any change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from contract.intent import delete, fleet, host, insert, pod, reference, update
from contract.reader import Reader, following, intent
from contract.real import QNET_SCHEMA, Authority, Database, database
from contract.real import run as run_command
from qnet_controller.model.objects import Export, Host, Pod, PortRule, Removed, Subnet
from qnet_controller.ovsdb.feed import Tls
from qnet_controller.ovsdb.rows import COLUMNS, MalformedRow, datapath_id, mac, port_rule


async def _same_as_new(served: Database, reader: Reader) -> None:
    """A model that followed the changes equals one read from scratch."""
    async with following(f"unix:{served.socket}") as fresh:
        await fresh.wait(1)
        assert intent(reader.model) == intent(fresh.model)


def test_the_columns_are_those_of_the_schema() -> None:
    schema = json.loads(QNET_SCHEMA.read_text())["tables"]

    def plain(kind: Any) -> Any:
        """A type without the limits that only the database checks."""
        if isinstance(kind, str):
            return {"key": {"type": kind}, "min": 1, "max": 1}
        key = kind["key"] if isinstance(kind["key"], dict) else {"type": kind["key"]}
        key = {name: value for name, value in key.items() if name in ("type", "refTable", "refType")}
        is_set = kind.get("max", 1) != 1
        return {"key": key, "min": 0 if is_set else kind.get("min", 1), "max": kind.get("max", 1)}

    for table, columns in COLUMNS.items():
        for name, column in columns.items():
            assert plain(column["type"]) == plain(schema[table]["columns"][name]["type"]), f"{table}.{name}"
    # What happens at L7 is between the role l7_balancer and nginx; to the controller balancers are pods like others.
    assert set(COLUMNS) | {"L7_Listener", "L7_Route"} == set(schema)


def test_everything_is_read_once_and_then_what_changes(tmp_path: Path) -> None:
    async def run(served: Database) -> None:
        served.execute(*fleet())
        async with following(f"unix:{served.socket}") as reader:
            first = await reader.wait(1)
            model = reader.model
            assert (first.generation, first.malformed) == (7, 0)
            assert model.networks["prod"].pod_subnets == (Subnet(bytes([10, 10, 0, 0]), 16),)
            assert model.hosts["h1"] == Host("h1", (bytes([192, 0, 2, 1]),), 0x51AA00000001, "netdev", "active")
            assert model.pods["fop/image-1"] == Pod(
                "image-1", "fop/image", "prod", bytes.fromhex("020000000001"), "dummy1", (bytes([10, 10, 0, 1]),)
            )
            ports = frozenset({PortRule(6, 80), PortRule(1)})
            assert model.exports["fop/image->entry"] == Export("fop/image", "entry", ports)
            assert model.service_ips["fop/image:main"].address == bytes([10, 96, 0, 10])

            served.execute(update("Pod", ["name", "==", "image-1"], weight=5, state="draining"))
            second = await reader.wait(2)
            assert [type(change) for change in second.changes] == [Pod]
            assert (model.pods["fop/image-1"].weight, model.pods["fop/image-1"].state) == (5, "draining")

            served.execute(delete("Export"), update("QNet_Global", ["generation", "==", 7], generation=8))
            third = await reader.wait(3)
            assert third.changes == (Removed(Export, "fop/image->entry"),)
            assert third.generation == 8
            await _same_as_new(served, reader)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


def test_a_database_that_is_rebuilt_from_nothing_changes_nothing_until_it_is_whole(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        socket = tmp_path / "intent.sock"
        async with following(f"unix:{socket}") as reader:
            with database(tmp_path / "first", "QNet", QNET_SCHEMA) as served:
                served.execute(*fleet())
                socket.symlink_to(served.socket)
                first = await reader.wait(1)
            socket.unlink()
            with database(tmp_path / "second", "QNet", QNET_SCHEMA) as served:
                socket.symlink_to(served.socket)
                async with asyncio.timeout(8):
                    while not reader.feed._held:  # it is empty
                        await asyncio.sleep(0.02)
                served.execute(insert("QNet_Global", generation=50, options=["map", [["hold", "true"]]]), host("h9", 9))
                served.execute(delete("Host"), *(row for row in fleet() if row["table"] != "QNet_Global"))
                served.execute(delete("Export"))
                assert reader.deltas == [first]
                served.execute(update("QNet_Global", ["generation", "==", 50], options=["map", []]))
                second = await reader.wait(2)
                assert second.generation == 50
                assert Removed(Export, "fop/image->entry") in second.changes
                assert [change for change in second.changes if isinstance(change, Removed)] == [second.changes[0]]
                await _same_as_new(served, reader)

    asyncio.run(run())


def test_a_schema_that_is_too_old_is_waited_for_until_it_has_been_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qnet_controller.ovsdb.feed.ANSWER_SECONDS", 0.5)
    schema = json.loads(QNET_SCHEMA.read_text())
    del schema["tables"]["Export"]["columns"]["direct"]
    old = tmp_path / "old.ovsschema"
    old.write_text(json.dumps(schema | {"version": "0.0.1"}))

    async def run(served: Database) -> None:
        async with following(f"unix:{served.socket}") as reader:
            async with asyncio.timeout(8):
                while "does not say what it has" not in caplog.text:
                    await asyncio.sleep(0.05)
            run_command("ovsdb-client", "convert", f"unix:{served.socket}", QNET_SCHEMA)
            served.execute(*fleet())
            await reader.wait(1, 8.0)
            assert "fop/image->entry" in reader.model.exports

    with database(tmp_path, "QNet", old) as served:
        asyncio.run(run(served))


def test_a_running_reader_survives_the_conversion_of_the_schema(tmp_path: Path) -> None:
    schema = json.loads(QNET_SCHEMA.read_text())
    schema["tables"]["Pod"]["columns"]["surprise"] = {"type": "string"}
    new = tmp_path / "new.ovsschema"
    new.write_text(json.dumps(schema | {"version": "99.0.0"}))

    async def run(served: Database) -> None:
        served.execute(*fleet())
        async with following(f"unix:{served.socket}") as reader:
            await reader.wait(1)
            run_command("ovsdb-client", "convert", f"unix:{served.socket}", new)
            served.execute(update("Pod", ["name", "==", "image-1"], weight=5))
            second = await reader.wait(2)
            assert [(type(change), change.key) for change in second.changes] == [(Pod, "fop/image-1")]
            await _same_as_new(served, reader)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


def test_an_address_that_moves_changes_both_pods(tmp_path: Path) -> None:
    async def run(served: Database) -> None:
        served.execute(*fleet())
        async with following(f"unix:{served.socket}") as reader:
            await reader.wait(1)
            (found,) = served.execute(
                {"op": "select", "table": "Pod", "where": [["name", "==", "image-2"]], "columns": ["_uuid"]}
            )
            target = found["rows"][0]["_uuid"]  # type: ignore[index]
            served.execute(update("Pod_Address", ["address", "==", "10.10.0.1"], pod=target))
            delta = await reader.wait(2)
            assert {change.key for change in delta.changes} == {"fop/image-1", "fop/image-2"}
            assert reader.model.pods["fop/image-1"].addresses == ()
            assert reader.model.pods["fop/image-2"].addresses == (bytes([10, 10, 0, 1]), bytes([10, 10, 0, 2]))
            assert reader.model.owner["prod", bytes([10, 10, 0, 1])] == reader.model.pods["fop/image-2"]
            await _same_as_new(served, reader)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


def test_a_new_name_of_a_group_reaches_everything_in_it(tmp_path: Path) -> None:
    async def run(served: Database) -> None:
        served.execute(*fleet())
        async with following(f"unix:{served.socket}") as reader:
            await reader.wait(1)
            served.execute(update("Security_Group", ["name", "==", "fop"], name="pics"))
            await reader.wait(2)
            assert set(reader.model.pods) == {"pics/image-1", "pics/image-2", "entry/web-3"}
            assert set(reader.model.exports) == {"pics/image->entry"}
            assert set(reader.model.service_ips) == {"pics/image:main"}
            await _same_as_new(served, reader)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


def test_a_malformed_row_is_left_out_and_nothing_else_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run(served: Database) -> None:
        served.execute(*fleet())
        served.execute(update("Pod", ["name", "==", "image-2"], mac="not a MAC"))
        async with following(f"unix:{served.socket}") as reader:
            assert (await reader.wait(1)).malformed == 1
            assert set(reader.model.pods) == {"fop/image-1", "entry/web-3"}
            assert "Pod image-2: 'not a MAC' is not a MAC address" in caplog.text
            served.execute(update("Host", ["name", "==", "h1"], vteps="nowhere"))
            assert (await reader.wait(2)).malformed == 2
            assert reader.model.hosts == {}
            served.execute(update("Pod", ["name", "==", "image-2"], mac="02:00:00:00:00:02"))
            assert (await reader.wait(3)).malformed == 1
            assert set(reader.model.pods) == {"fop/image-1", "fop/image-2", "entry/web-3"}
            served.execute(delete("Host"))
            served.execute(insert("Network", name="late", vni=7, pod_subnets="10.20.0.0/16"))
            assert (await reader.wait(4)).malformed == 0

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


def test_a_lost_database_leaves_the_model_and_a_changed_one_is_taken_over(tmp_path: Path) -> None:
    async def run() -> None:
        with database(tmp_path, "QNet", QNET_SCHEMA) as served:
            served.execute(*fleet())
            remote = f"unix:{served.socket}"
            context = following(remote)
            reader = await context.__aenter__()
            await reader.wait(1)
            before = intent(reader.model)
        await asyncio.sleep(0.3)
        assert intent(reader.model) == before
        # A database made anew from the inventory: other rows, one pod fewer.
        (tmp_path / "QNet.db").unlink()
        with database(tmp_path, "QNet", QNET_SCHEMA) as served:
            served.execute(*(step for step in fleet() if "web-3" not in str(step) and "p3" not in str(step)))
            async with asyncio.timeout(15):
                while "entry/web-3" in reader.model.pods:
                    await asyncio.sleep(0.05)
            await _same_as_new(served, reader)
            await context.__aexit__(None, None, None)

    asyncio.run(run())


def test_the_database_is_read_over_mutual_tls(network: None, tmp_path: Path, authority: Authority) -> None:
    async def run(served: Database, port: int, dead: int) -> None:
        served.execute(*fleet())
        tls = Tls(authority.ca, *authority.issue("c1"))
        # The first remote is dead: the next one is tried.
        async with following(f"ssl:127.0.0.1:{dead}", f"ssl:127.0.0.1:{port}", tls=tls) as reader:
            await reader.wait(1, seconds=15)
            assert len(reader.model.pods) == 3

    certificate, key = authority.issue("database")
    files = (f"--private-key={key}", f"--certificate={certificate}", f"--ca-cert={authority.ca}")
    with database(tmp_path, "QNet", QNET_SCHEMA, "--remote=pssl:36641:127.0.0.1", *files) as served:
        asyncio.run(run(served, 36641, 36642))


def test_random_changes_followed_equal_a_fresh_read(tmp_path: Path) -> None:
    """Every kind of change, one after the other."""
    steps: Iterable[list[dict[str, Any]]] = (
        [update("Service", ["name", "==", "image"], name="pictures")],
        [delete("Export")],
        [delete("Pod_Address", ["address", "==", "10.10.0.3"])],
        [delete("Pod", ["name", "==", "web-3"])],
        [delete("Service", ["name", "==", "web"]), delete("Security_Group", ["name", "==", "entry"])],
        [
            insert("Network", "prod", name="other", vni=5, pod_subnets="10.10.0.0/16"),
            insert("Security_Group", "g", name="alice", tenant="alice", number=9),
            insert("Service", "resize", name="resize", group=reference("g"), network=reference("prod")),
            *pod(9, "resize"),
        ],
        [update("Network", ["name", "==", "other"], name="else", vni=6)],
        [update("Security_Group", ["name", "==", "alice"], number=10)],
    )

    async def run(served: Database) -> None:
        served.execute(*fleet())
        async with following(f"unix:{served.socket}") as reader:
            await reader.wait(1)
            for number, step in enumerate(steps, 2):
                served.execute(*step)
                await reader.wait(number)
                await _same_as_new(served, reader)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        asyncio.run(run(served))


@pytest.mark.parametrize(
    "text", ["tcp", "tcp/", "tcp/0", "tcp/65536", "icmp/8", "sctp/x", "gre", "tcp/\uff18\uff10", ""]
)
def test_bad_ports_are_refused(text: str) -> None:
    with pytest.raises(MalformedRow, match="port"):
        port_rule(text)


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:0", "2:0:0:0:0:1", "zz:00:00:00:00:00"])
def test_bad_macs_are_refused(text: str) -> None:
    with pytest.raises(MalformedRow):
        mac(text)


@pytest.mark.parametrize("text", ["", "1", "zzzzzzzzzzzzzzzz", "00000000000000001"])
def test_bad_datapath_ids_are_refused(text: str) -> None:
    with pytest.raises(MalformedRow):
        datapath_id(text)
