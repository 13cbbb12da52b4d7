# SPDX-License-Identifier: GPL-3.0-or-later
"""From workloads to units, and from what runs to the steps."""

from __future__ import annotations

from ansible_collections.qiniu.qnet.plugins.module_utils._workload import (
    Found,
    Steps,
    digest_of,
    plan,
    render,
    shown,
    unit_of,
    user_of,
)

UNIT = unit_of("fop/image-1")
WORKLOAD = {"pod": "fop/image-1", "command": '/bin/echo \'two words\' $HOME 50% "q\\""', "environment": {"A": "x\ny%"}}
TEXT = render(WORKLOAD, "seed")
RUNNING = Found(TEXT, active=True, enabled=True, digest=digest_of(TEXT), same_namespace=True)


def test_instance_of_the_unit_is_the_namespace() -> None:
    assert UNIT == "qnet-pod@fop.image-1.service"


def test_command_and_environment_reach_the_process_as_written() -> None:
    assert 'ExecStart=\nExecStart=/bin/echo "two words" "$$HOME" "50%%" "q\\""\n' in TEXT
    assert 'Environment="A=x\\ny%%"\n' in TEXT


def test_what_is_shown_names_variables_and_keeps_their_values() -> None:
    secret = render({**WORKLOAD, "environment": {"KEY": 'ca"na%ry', "B": "x\nEnvironment=C=hid"}}, "seed")
    text = shown(secret)
    assert 'Environment="KEY=(not shown)"\n' in text
    assert 'Environment="B=(not shown)"\n' in text
    assert not any(part in text for part in ("na%", "canary", "hid"))
    assert digest_of(text) == digest_of(secret)


def test_processes_of_two_pods_have_different_users() -> None:
    users = {user_of("alice/store-1"), user_of("bob/store-1")}
    assert len(users) == 2
    assert f"User={user_of('fop/image-1')}\n" in TEXT
    assert all(len(user) <= 31 for user in users)


def test_digest_changes_with_the_seed_the_command_and_the_environment() -> None:
    others = [
        render(WORKLOAD, "other"),
        render({**WORKLOAD, "command": "/bin/true"}, "seed"),
        render({**WORKLOAD, "environment": {}}, "seed"),
    ]
    assert len({digest_of(text) for text in [TEXT, *others]}) == 4
    assert digest_of(render(dict(WORKLOAD), "seed")) == digest_of(TEXT)


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert plan({UNIT: TEXT}, {UNIT: RUNNING}, start=True, purge=True).empty


def test_new_workload_is_written_enabled_and_started() -> None:
    assert plan({UNIT: TEXT}, {}, start=True, purge=True) == Steps(write={UNIT: TEXT}, enable=[UNIT], start=[UNIT])


def test_process_that_was_started_with_something_else_is_started_again() -> None:
    # written, and then interrupted: the file is right, the process is not
    stale = Found(TEXT, active=True, enabled=True, digest="old", same_namespace=True)
    assert plan({UNIT: TEXT}, {UNIT: stale}, start=True, purge=True) == Steps(restart=[UNIT])


def test_process_in_a_namespace_that_was_replaced_is_started_again() -> None:
    moved = Found(TEXT, active=True, enabled=True, digest=digest_of(TEXT), same_namespace=False)
    assert plan({UNIT: TEXT}, {UNIT: moved}, start=True, purge=True) == Steps(restart=[UNIT])


def test_only_purge_removes_and_retained_starts_nothing() -> None:
    other = unit_of("fop/image-2")
    found = {UNIT: RUNNING, other: RUNNING}
    assert plan({UNIT: TEXT}, found, start=True, purge=False).empty
    assert plan({UNIT: TEXT}, found, start=True, purge=True) == Steps(remove=[other])
    assert plan({UNIT: "new", "qnet-pod@a.b-1.service": "x"}, found, start=False, purge=True) == Steps(remove=[other])
