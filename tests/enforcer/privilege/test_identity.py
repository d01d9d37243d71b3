from __future__ import annotations

from enforcer.privilege import identity


def test_the_numbers_are_those_systemd_keeps_for_users_that_exist_only_while_a_service_runs() -> None:
    assert {61184 <= number <= 65519 for number in (identity.DAEMON_ID, identity.WORKER_ID, identity.JURY_ID)} == {True}
    assert len({identity.daemon(), identity.worker(), identity.jury()}) == 3
