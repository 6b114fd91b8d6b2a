"""A throw-away copy of this machine's file system, in which real package managers install stand-ins.

It is an overlay: what a script writes lands in a temporary folder, and this machine stays as it is. There is
neither systemd nor a network of its own, so nothing that is installed here may start daemons.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.plan.declared import Declared
from provision.plan.plan import Plan, plan, previews, probes, refined, states
from provision.plan.script import Event, parse_event, script_of
from provision.probe import Output
from provision.resource import AnyResource
from tests.unit.examples import script_of as text_of

RUN = "20260102T030405Z-abcdef"
SPOOL = f"/run/provision/{RUN}"

SHARED = "/srv/test"
"""Where the root's folder :attr:`Root.shared` is seen from inside."""

ENTER = """\
lower=$(cat "$0/lower")
mount -t overlay overlay -o lowerdir="$lower",upperdir="$0/upper",workdir="$0/work" "$0/root" || exit 77
mount -t proc proc "$0/root/proc" && mount --bind /dev "$0/root/dev" && mkdir -p "$0/root/srv/test" &&
  mount --bind "$0/shared" "$0/root/srv/test" && exec chroot "$0/root" /bin/sh /srv/test/script
"""


@dataclass(frozen=True)
class Root:
    """A root file system of its own, kept from one script to the next.

    :ivar folder: temporary folder that holds it.
    """

    folder: Path

    @staticmethod
    def make(folder: Path, lower: Path = Path("/")) -> Root:
        """Make one on top of ``lower``; skip the test where there can be none."""
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("a throw-away root needs root and unshare (package util-linux)")
        for name in ("upper", "work", "root", "shared"):
            (folder / name).mkdir(parents=True)
        (folder / "shared").chmod(0o755)
        (folder / "lower").write_text(str(lower), "utf-8")
        root = Root(folder)
        if (tried := root.sh("true")).exit_code == 77:
            pytest.skip(f"no overlay file systems here: {tried.err.strip()}")
        root.must(f"mkdir -p {SPOOL} /var/lib/provision; rm -f /var/lib/provision/held")
        return root

    @property
    def shared(self) -> Path:
        """A folder that scripts see as :data:`SHARED`."""
        return self.folder / "shared"

    def sh(self, script: str) -> Output:
        """Run sh text in it, as root."""
        (self.shared / "script").write_text(script, "utf-8")
        ran = subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER, str(self.folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
        )
        return Output(ran.returncode, ran.stdout, ran.stderr)

    def must(self, script: str) -> str:
        """Run sh text that has to succeed; what it prints."""
        output = self.sh(f"set -e\n{script}")
        assert output.ok, output.out + output.err
        return output.out

    def plan(self, *resources: AnyResource, granted: tuple[str, ...] = ()) -> Plan:
        """Ask for the states of resources, plan, and ask for the plan's previews."""
        declared = [Declared("test", resource) for resource in resources]
        answers = {probe.name: self.sh(text_of(probe)) for probe in probes(declared)}
        found = plan("here", declared, states("here", declared, answers), granted)
        return refined(found, declared, {probe.name: self.sh(text_of(probe)) for probe in previews(found)})

    def apply(self, planned: Plan, before: str = "") -> list[Event]:
        """Run the script of a plan, ``before`` in front of it, however it ends; its events."""
        self.must(f"rm -rf {SPOOL}; mkdir -p {SPOOL}; echo {RUN} >/run/provision/lock")
        self.sh(before + script_of(planned, RUN))
        return [parse_event(line) for line in self.must(f"cat {SPOOL}/events").splitlines()]

    def converge(self, *resources: AnyResource) -> Plan:
        """Plan, apply, and see that a second plan has nothing to do; the first plan."""
        planned = self.plan(*resources)
        said = failure(self.apply(planned))
        assert not said, said
        assert self.plan(*resources).changes == ()
        return planned

    def log(self, step: int = 0) -> str:
        """What a step of the last run printed."""
        return self.must(f"cat {SPOOL}/{step}.log")


def failure(events: Sequence[Event]) -> str:
    """What the step that failed said last, or empty."""
    return next((event.output or event.status for event in events if event.kind == "fail"), "")
