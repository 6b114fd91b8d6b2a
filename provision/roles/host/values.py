"""What is in force on a host: kernel values, limits, journal, governor; files have it for the next boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, words
from provision.resource import Change, Planned, Single
from provision.resources.file import gone, parse_contents
from provision.roles.host.kernel import STATE, STEPS

HOSTNAME = "/proc/sys/kernel/hostname"


def file_of(key: str) -> str:
    """The file of a key of sysctl(8): dots are slashes, unless the key is written with slashes."""
    return f"/proc/sys/{key if '/' in key else key.replace('.', '/')}"


@dataclass(frozen=True)
class KernelValues(Single[tuple[str | None, ...]]):
    """The kernel has these values, as sysctl(8) sets them.

    :ivar values: by key.
    :ivar path: the file that has them for the next boot.
    """

    values: Mapping[str, str] = field(hash=False)
    path: str
    kind: ClassVar[str] = "sysctl"
    shell = (STEPS,)

    def question(self) -> Probe:
        """Read each file."""
        return Probe(self.kind, words("kernel_values", *map(file_of, self.values)), (STATE,), in_place=True)

    def read(self, answer: Output) -> tuple[str | None, ...]:
        """The value of each key; None for one that the kernel does not have."""
        found = parse_contents(answer.stdout)
        values = (found.get(file_of(key)) for key in self.values)
        return tuple(
            None if value is None else value.decode("utf-8", "backslashreplace").strip() for value in values
        )

    def bare(self) -> tuple[str | None, ...]:
        return ("",) * len(self.values)

    def unknown(self, state: Sequence[str | None]) -> list[str]:
        """Keys that the kernel does not have."""
        return [key for key, now in zip(self.values, state, strict=True) if now is None]

    def differing(self, state: Sequence[str | None]) -> dict[str, str]:
        """What the kernel has of each key that is not as declared; blanks count for nothing."""
        pairs = zip(self.values.items(), state, strict=True)
        return {key: now for (key, value), now in pairs if now is not None and now.split() != value.split()}

    def change(self, state: tuple[str | None, ...], planned: Planned) -> Change | None:
        """Load the file.

        :raises Refusal: naming a key that the kernel does not have, and that no module of this plan brings.
        """
        loading = planned.positions(("kernel-modules",))
        unknown = self.unknown(state)
        if unknown and not loading:
            raise Refusal(
                f"the kernel does not know the sysctl {', '.join(unknown)}",
                hint="take it out of host.sysctl, or name the module that has it in host.modules.load",
            )
        wrong = self.differing(state) | dict.fromkeys(unknown, "")
        if not wrong:
            return None
        return Change(
            resource=self.id,
            action="load",
            summary=f"sysctl -p {self.path}: {', '.join(wrong)}",
            reason="; ".join(
                f"{key} is {now or 'not there'}, wanted {self.values[key]}" for key, now in wrong.items()
            ),
            diff="".join(f"-{key} = {now}\n+{key} = {self.values[key]}\n" for key, now in wrong.items()),
            script=words("sysctl", "-q", "-p", self.path),
            done=" && ".join(
                words("kernel_value_is", file_of(key), *self.values[key].split()) for key in wrong
            ),
            after_reboot=True,
        )


@dataclass(frozen=True)
class Hostname(Single[str]):
    """The running kernel has this name."""

    name: str
    kind: ClassVar[str] = "hostname"
    shell = (STEPS,)

    def question(self) -> Probe:
        """Read it."""
        return Probe(self.kind, words("kernel_values", HOSTNAME), (STATE,), in_place=True)

    def read(self, answer: Output) -> str:
        return answer.out.rpartition("<==\n")[2].strip()

    def bare(self) -> str:
        return "localhost"

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        """Set it."""
        if state == self.name:
            return None
        return Change(
            resource=self.id,
            action="set",
            summary=f"the host is called {self.name}",
            reason=f"it is called {state}",
            diff=f"-{state}\n+{self.name}\n",
            script=words("set_hostname", self.name),
            done=words("kernel_value_is", HOSTNAME, self.name),
            after_reboot=True,
        )


@dataclass(frozen=True)
class Limits(Single[Mapping[str, str]]):
    """systemd starts units with these limits, unless a unit has its own.

    :ivar values: by the property of systemd's manager, such as ``DefaultLimitNOFILE``.
    """

    values: Mapping[str, str] = field(hash=False)
    kind: ClassVar[str] = "limits"
    shell = (STEPS,)

    def question(self) -> Probe:
        """Ask systemd."""
        return Probe(self.kind, words("systemctl", "show", "-p", ",".join(self.values)), in_place=True)

    def read(self, answer: Output) -> Mapping[str, str]:
        return dict(line.partition("=")[::2] for line in answer.out.splitlines())

    def bare(self) -> Mapping[str, str]:
        return {}

    def differing(self, state: Mapping[str, str]) -> dict[str, str]:
        """What systemd has of each that is not as declared.

        :raises ValueError: if systemd did not tell one.
        """
        return {name: state.get(name, "") for name, value in self.values.items() if state.get(name) != value}

    def change(self, state: Mapping[str, str], planned: Planned) -> Change | None:  # noqa: ARG002
        """Make systemd read its configuration."""
        wrong = self.differing(state)
        if not wrong:
            return None
        wanted = [f"{name}={self.values[name]}" for name in wrong]
        return Change(
            resource=self.id,
            action="load",
            summary="make systemd read its own configuration again (daemon-reexec; units go on)",
            reason="; ".join(
                f"{name} is {now or 'not told'}, wanted {self.values[name]}" for name, now in wrong.items()
            ),
            script="reexecute_systemd",
            done=words("systemd_has", *wanted),
            reloads_systemd=True,
        )


@dataclass(frozen=True)
class Journal(Single[bool]):
    """The journal's daemon was started after its file was written.

    :ivar path: the file.
    """

    path: str
    kind: ClassVar[str] = "journal"
    shell = (STEPS,)

    def question(self) -> Probe:
        """Compare times."""
        return Probe(self.kind, words("journal_state", self.path), (STATE,), in_place=True)

    def read(self, answer: Output) -> bool:
        """Whether it runs with older settings."""
        return "stale" in answer.out

    def bare(self) -> bool:
        return False

    def change(self, state: bool, planned: Planned) -> Change | None:
        """Restart it: what was logged stays, and units keep their connections to it."""
        causes = planned.positions((f"file:{self.path}", gone(self.path)))
        if not causes and not state:
            return None
        return Change(
            resource=self.id,
            action="restart",
            summary="restart systemd-journald.service (nothing that was logged is lost)",
            reason=f"after {planned.resources(causes)}" if causes else f"it is older than {self.path}",
            script="restart_journal",
            done=f'[ -z "$({words("journal_state", self.path)})" ]',
        )


@dataclass(frozen=True)
class Governor(Single[tuple[tuple[str, ...], ...]]):
    """Every CPU has this governor of its frequency, where the kernel governs that at all.

    :ivar unit: what sets it.
    """

    governor: str
    unit: str
    kind: ClassVar[str] = "governor"
    shell = (STEPS, "shell/units.sh")

    def question(self) -> Probe:
        """Read all policies."""
        return Probe(self.kind, "governors", (STATE,), in_place=True)

    def read(self, answer: Output) -> tuple[tuple[str, ...], ...]:
        """Of each policy its governor, and those that it knows."""
        return tuple(tuple(line.split()) for line in answer.out.splitlines() if line.strip())

    def bare(self) -> tuple[tuple[str, ...], ...]:
        return (("powersave", "performance", "powersave"),)

    def change(self, state: tuple[tuple[str, ...], ...], planned: Planned) -> Change | None:
        """Run the unit again.

        :raises Refusal: if the kernel has no such governor.
        """
        for _, *known in state:
            if known and self.governor not in known:
                raise Refusal(
                    f"the CPUs have no governor {self.governor}", hint=f"the kernel has: {', '.join(known)}"
                )
        wrong = sorted({now for now, *_ in state if now != self.governor})
        if not wrong or planned.positions((f"service:{self.unit}:start",)):
            return None
        return Change(
            resource=self.id,
            action="set",
            summary=f"CPU governor {self.governor}, by {self.unit}",
            reason=f"it is {', '.join(wrong)}",
            script=words("restart_unit", self.unit, "30"),
            done=words("governor_is", self.governor),
            after_reboot=True,
        )

    def notes(self, state: tuple[tuple[str, ...], ...], planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """That there is nothing to govern."""
        told = "the kernel has no cpufreq here (a virtual machine, or the firmware governs):"
        return () if state else (f"{told} governor {self.governor} has no effect",)
