# SPDX-License-Identifier: GPL-3.0-or-later
"""When a certificate is renewed by the moment of its issue, and when it is left alone."""

from __future__ import annotations

import datetime
import typing as t

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import reason_to_skip

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.integration.whole_host import Tasks, WholeHost

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
OPTIONS = {"name": "c1", "addresses": ["192.0.2.11"], "ca_directory": "/srv/issue-ca", "directory": "/srv/issue"}


def renewed(before: object, expected: bool, **more: object) -> Tasks:
    """Ask for a certificate of that moment at the earliest, and expect that it changes, or that it does not."""
    task = {"qiniu.qnet.qnet_certificate": {**OPTIONS, "renew_issued_before": before}, "register": "seen", **more}
    return [task, {"ansible.builtin.assert": {"that": [f"seen is {'' if expected else 'not '}changed"]}}]


def test_a_certificate_is_renewed_by_the_moment_of_its_issue(whole: WholeHost) -> None:
    past = datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(hours=3)
    passed = "{{ now(utc=true).isoformat(timespec='seconds') }}"
    wait: Tasks = [{"ansible.builtin.pause": {"seconds": 2}}]
    whole.good([
        *renewed(past.isoformat(), True),  # there is none yet
        *renewed(past.isoformat(), False),
        *wait, {"ansible.builtin.set_fact": {"moment": passed}}, *wait,
        *renewed("{{ moment }}", True, check_mode=True),
        *renewed("{{ moment }}", True),
        *renewed("{{ moment }}", False),
    ])  # fmt: skip


@pytest.mark.parametrize(("moment", "expectation"), [("2099-01-01T00:00:00Z", "not come yet"), ("soon", "ISO 8601")])
def test_a_moment_that_cannot_be_meant_is_refused(whole: WholeHost, moment: str, expectation: str) -> None:
    done = whole.play([{"qiniu.qnet.qnet_certificate": {**OPTIONS, "renew_issued_before": moment}}])
    assert done.returncode != 0
    assert expectation in done.stdout + done.stderr
