"""A plan in stages: what can be done at once ends at a reboot, and where a permission is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from provision.errors import ChangeError
from provision.plan.plan import Plan
from provision.resource import Change


@dataclass(frozen=True)
class Stage:
    """A part of a plan that one script carries out.

    :ivar reboot: the change at its end that restarts the host; then the host is planned again.
    :ivar stop: the change for which a permission is missing, if the plan ends there.
    """

    plan: Plan
    reboot: Change | None = None
    stop: Change | None = None

    def refusal(self) -> ChangeError | None:
        """The sentence that the host ends with where a permission is missing."""
        if self.stop is None or self.stop.needs is None:
            return None
        return ChangeError(
            self.plan.host,
            f"{self.stop.needs.refusal}: {self.stop.reason}",
            resource=self.stop.resource,
            stderr="\n".join(self.stop.impact),
            hint=self.stop.needs.how,
        )


def next_stage(plan: Plan) -> Stage:
    """What can be done at once: up to a reboot, and to where a permission is missing."""
    end, stop = len(plan.changes), None
    ids = [change.resource for change in plan.changes]
    for index, change in enumerate(plan.changes):
        if change.needs is None or not plan.lacks(change):
            continue
        begun = 0 if change.needs.first else index
        begun = min([begun, *(ids.index(cause) for cause in change.causes if cause in ids)])
        if begun < end:
            end, stop = begun, change
    for index, change in enumerate(plan.changes[:end]):
        if change.reboot:
            return Stage(replace(plan, changes=plan.changes[: index + 1]), reboot=change)
    return Stage(replace(plan, changes=plan.changes[:end]), stop=stop)
