"""Why an approved plan of a host did not come to its end, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from provision.causes.known_messages import hint_for
from provision.errors import ChangeError, HostError, RefusedError
from provision.plan.plan import Plan
from provision.plan.script import LONGEST, SPOOL, Event
from provision.resource import Change


def beyond_approved(host: str, when: str, change: Change) -> RefusedError:
    """A host's new plan has a change that nobody approved."""
    message = f"{when} the plan has more than was approved: {change.summary} ({change.reason})"
    return RefusedError(host, message, hint="look at the new plan: inv plan --hosts {host}")


def raise_failure(plan: Plan, run: str, events: Sequence[Event]) -> None:
    """Turn the event of a failed step into an error with everything that is known about it.

    :raises ChangeError: for a step that failed.
    :raises HostError: for a run that was interrupted.
    """
    failed = next((event for event in events if event.kind == "fail"), None)
    if failed is None:
        if events and events[-1].status == "interrupted":
            raise HostError(
                plan.host,
                f"run {run} was interrupted on the host",
                hint=f"by a signal, or after {LONGEST // 3600} hours; run again: the run continues",
            )
        return
    change = plan.changes[failed.index]
    tail = failed.output.strip()
    what = {
        "guard": "it was changed since the plan was made",
        "unproven": "the command succeeded, and what it should bring about is not there",
    }.get(failed.status, f"exit {failed.status}")
    raise ChangeError(
        plan.host,
        f"{change.resource}: {change.summary}: {what}",
        resource=change.resource,
        exit_code=int(failed.status) if failed.status.isdigit() else None,
        stderr=tail,
        hint=hint_for(tail)
        or (
            "plan again: inv plan --hosts {host}"
            if failed.status == "guard"
            else f"the whole output: {SPOOL}/{run}/{failed.index}.log on the host"
        ),
    )
