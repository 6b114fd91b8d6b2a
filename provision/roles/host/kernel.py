"""The kernel of a host: command line, modules with their options, and the reboot that both can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, by_word, words
from provision.resource import Change, Planned, Resource
from provision.resources.reboot import RebootPolicy
from provision.shell import constant

STATE = "host/state.sh"
STEPS = "host/steps.sh"

KERNEL_ARGUMENTS = constant(STATE, "kernel_arguments")
"""Where the arguments are kept that are ours in the entries of RHEL's boot loader."""

NO_LOADER = "the host has no boot loader that provision knows (update-grub, grubby)"


@dataclass(frozen=True)
class Wanted:
    """What is declared of a kernel.

    :ivar arguments: on its command line.
    :ivar load: names of modules that must be loaded, with ``_``.
    :ivar options: of modules, by module and parameter.
    :ivar blacklist: names of modules that must not be loaded.
    """

    arguments: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    blacklist: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, tuple[str, str, str]]:
        """Module, parameter and value by the file in which a loaded module shows it."""
        return {
            f"/sys/module/{module}/parameters/{name}": (module, name, value)
            for module, values in self.options.items()
            for name, value in values.items()
        }


@dataclass(frozen=True)
class KernelState:
    """What a kernel runs with, and what it will be started with.

    :ivar running: the command line in force, in words.
    :ivar loader: ``grub``, ``grubby``, or empty where there is none that we know.
    :ivar entries: what each entry of the boot loader hands to the kernel, in words.
    :ivar ours: arguments that we gave to the entries of grubby.
    :ivar stale: whether the boot loader's file is older than what it is made from.
    :ivar modules: those that are there.
    :ivar parameters: their values by file.
    """

    running: frozenset[str] = frozenset()
    loader: str = ""
    entries: tuple[frozenset[str], ...] = ()
    ours: tuple[str, ...] = ()
    stale: bool = False
    modules: frozenset[str] = frozenset()
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    def not_configured(self, wanted: Wanted) -> list[str]:
        """Arguments that an entry of the boot loader lacks."""
        return [a for a in wanted.arguments if not all(a in entry for entry in self.entries)]

    def not_in_force(self, wanted: Wanted) -> list[str]:
        """What the next boot brings and the kernel does not run with, in words."""
        found = []
        if self.loader and (missing := [a for a in wanted.arguments if a not in self.running]):
            found.append(f"{' '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in /proc/cmdline")
        for path, (module, name, value) in wanted.parameters.items():
            now = self.parameters.get(path)
            if now is not None and _plain(now) != _plain(value):
                found.append(f"module {module} is loaded with {name}={now}, {value} is wanted")
        found += [
            f"module {name} is blacklisted and loaded" for name in wanted.blacklist if name in self.modules
        ]
        return found


def _plain(value: str) -> str:
    """A parameter as the kernel tells it: truth has several spellings."""
    return {"y": "1", "n": "0", "yes": "1", "no": "0", "on": "1", "off": "0"}.get(value.lower(), value)


def kernel_state(answer: Output) -> KernelState:
    """Read the answer of ``host_kernel``.

    :raises ValueError: if it tells no command line.
    """
    told = by_word(answer.out)
    if "running" not in told:
        raise ValueError(f"/proc/cmdline is not told: {answer.err.strip()}")
    common = " ".join(told.get("kernelopts", ()))
    pairs = (line.partition(" ")[::2] for line in told.get("parameter", ()))
    return KernelState(
        frozenset(told["running"][0].split()),
        "".join(told.get("loader", ())),
        tuple(frozenset(f"{line} {common}".split()) for line in told.get("entry", ())),
        tuple(" ".join(told.get("ours", ())).split()),
        "stale" in told,
        frozenset(told.get("module", ())),
        dict(pairs),
    )


def question(wanted: Wanted) -> Probe:
    """What tells the state of a kernel, as far as it is declared."""
    asked = dict.fromkeys((*wanted.load, *wanted.blacklist, *wanted.parameters))
    return Probe("host-kernel", words("host_kernel", *asked), (STATE,), in_place=True)


@dataclass(frozen=True)
class OfKernel(Resource[KernelState]):
    """What all kinds share that are about the kernel: one question for all of them."""

    wanted: Wanted
    kind: ClassVar[str] = "of-kernel"
    shell = (STEPS,)

    @property
    def id(self) -> str:
        return self.kind

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return OfKernel

    @classmethod
    def probe(cls, resources: Sequence[OfKernel]) -> Probe:
        """The question of all of them, who want the same."""
        return question(resources[0].wanted)

    @classmethod
    def states(cls, resources: Sequence[OfKernel], answer: Output) -> Mapping[str, KernelState]:
        """The state, the same for all.

        :raises ValueError: as :func:`kernel_state`.
        """
        state = kernel_state(answer)
        return {r.id: state for r in resources}

    def bare(self) -> KernelState:
        """A host with GRUB and nothing else."""
        return KernelState(loader="grub", entries=(frozenset(),))


@dataclass(frozen=True)
class CommandLine(OfKernel):
    """The boot loader hands the declared arguments to every kernel.

    :ivar path: the file of GRUB's settings that has them; on RHEL grubby changes the entries themselves.
    """

    path: str = ""
    kind: ClassVar[str] = "command-line"

    def change(self, state: KernelState, planned: Planned) -> Change | None:
        """Make the boot loader's entries anew.

        :raises Refusal: if the boot loader has no entry.
        """
        arguments = self.wanted.arguments
        if state.loader and arguments and not state.entries:
            raise Refusal("the boot loader has no entry with a kernel", hint="look at /boot on the host")
        missing = state.not_configured(self.wanted)
        gone = [a for a in state.ours if a not in arguments]
        written = bool(self.path and planned.positions((f"file:{self.path}",)))
        if not state.loader or not (missing or gone or written or (state.stale and arguments)):
            return None
        grub = state.loader == "grub"
        verbs = [f"with {' '.join(arguments)}"] * bool(arguments) + [f"without {' '.join(gone)}"] * bool(gone)
        done = words("grub_is_fresh", *arguments) if grub else words("boot_entries", "with", *arguments)
        done += f" && {words('boot_entries', 'without', *gone)}" if gone else ""
        tool = words("update_grub", *arguments)
        return Change(
            resource=self.id,
            action="configure",
            summary=f"{'update-grub' if grub else 'grubby'}: kernels start {' and '.join(verbs)}".rstrip(),
            reason=f"after file:{self.path}" if written else "an entry of the boot loader is not so",
            diff="".join([f"-{a}\n" for a in gone] + [f"+{a}\n" for a in missing]),
            script=tool if grub else words("grubby_arguments", " ".join(gone), " ".join(arguments)),
            done=done,
        )

    def notes(self, state: KernelState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """That there is no boot loader."""
        missing = [a for a in self.wanted.arguments if a not in state.running]
        if state.loader or not missing:
            return ()
        return (f"{NO_LOADER}: {' '.join(missing)} cannot come into force here",)


@dataclass(frozen=True)
class KernelModules(OfKernel):
    """The declared modules are loaded."""

    kind: ClassVar[str] = "kernel-modules"

    def change(self, state: KernelState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Load those that are not."""
        missing = [name for name in self.wanted.load if name not in state.modules]
        if not missing:
            return None
        return Change(
            resource=self.id,
            action="load",
            summary=f"load kernel module{'s' * (len(missing) > 1)} {' '.join(missing)}",
            reason="not loaded",
            sign="+",
            done=words("has_modules", *missing),
            script=words("load_modules", *missing),
            after_reboot=True,
        )


@dataclass(frozen=True)
class KernelReboot(OfKernel):
    """The kernel runs with what is configured for its start."""

    policy: RebootPolicy
    kind: ClassVar[str] = "host-reboot"

    def change(self, state: KernelState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Reboot; who would notice is told by the containers and processes of the host."""
        reasons = state.not_in_force(self.wanted)
        if not reasons:
            return None
        return replace(
            self.policy.change(self.id, "; ".join(reasons)), impact=("everything on the host stops",)
        )
