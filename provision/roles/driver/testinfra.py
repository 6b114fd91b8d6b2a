"""testinfra's ``host.nvidia``: the driver of a host and its GPUs, as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

from testinfra.modules.base import InstanceModule

from provision.causes.known_messages import cause, hint_for
from provision.expectation.driver import FIELDS, Told, links_up, told_of
from provision.facts import DISPLAY_CLASSES
from provision.finding import Missing, fail
from provision.gpu.nvidia_smi import GPUS, Card, cards
from provision.probe import Output, Probe, by_word, words
from provision.resources.driver_says import IN_CONTAINERS, LOG, fault_of
from provision.resources.packages.installed import INSTALLED, Installed, installed
from provision.roles.driver.foreign import FOREIGN
from provision.roles.driver.foreign import parse as parse_foreign
from provision.roles.driver.health import HEALTH, Reading, readings
from provision.roles.driver.modules_on_disk import QUESTION, KernelModules, parse
from provision.roles.driver.secure_boot import SecureBoot
from provision.shell import assembled

VERIFY = "driver/verify.sh"

PACKAGES = (
    *("nvidia-*", "libnvidia-*", "libcuda1", "firmware-nvidia-*", "linux-modules-nvidia-*"),
    *("linux-headers-*", "kmod-nvidia*", "kernel*-devel*", "kernel-headers", "nvlsm"),
)
"""Globs of the packages of the driver, and of what its modules are built with, on all systems."""

FILES = ("nvidia-*", "libnvidia-*", "libcuda1", "kmod-nvidia*")
"""Globs of the packages whose programs and libraries are looked for."""

TOLD = Probe("ordered gpus", words("gpu_health", *FIELDS), HEALTH.shell)
"""What is compared with what was ordered."""

AGAIN = "inv provision --hosts {host} --roles driver"
REBOOT = "reboot the host: the module of the installed version is loaded then"

BASES = (
    (r"nvidia-smi.*(not found|No such file)|couldn't find libnvidia-ml", "driver packages"),
    (r"version mismatch", "driver version"),
)
"""What nvidia-smi stands on, by what it says where that is not there."""


class Nvidia(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The driver and its GPUs. What it stands on comes first: a GPU on the bus, its module, nvidia-smi."""

    def _ask(self, script: str, file: str = VERIFY, seconds: float = 40) -> Output:
        """The answer of a function below ``templates/``; those that ask nvidia-smi give it 35 s."""
        result = self.run(f"{assembled(file)}{script}", seconds=seconds)
        return Output(result.rc, result.stdout_bytes, result.stderr_bytes)

    def _probe(self, probe: Probe, seconds: float = 40) -> Output:
        return self._ask(probe.script, probe.shell[0], seconds)

    # ── before nvidia-smi ────────────────────────────────────────────────────────────────────────────────

    @property
    def _state(self) -> dict[str, list[str]]:
        """What is there before nvidia-smi is asked, which makes device nodes that are missing."""
        return by_word(self._ask("driver_state").out)

    @property
    def addresses(self) -> list[str]:
        """The GPUs on the PCI bus, as sysfs writes their addresses.

        :raises Missing: if there is none.
        """
        devices = [line.split() for line in self._state.get("pci", [])]
        if found := [address for address, kind, _ in devices if kind.startswith(DISPLAY_CLASSES)]:
            return found
        raise Missing(
            "GPU on the PCI bus",
            "no NVIDIA GPU is on the PCI bus",
            "look at the machine: seating and power of the GPUs, the BIOS, passthrough of a virtual machine",
        )

    @property
    def is_free_of_nouveau(self) -> bool:
        """That nouveau is not loaded.

        :raises Missing: if it is: it holds the GPUs.
        """
        if "nouveau" not in self._state:
            return True
        raise Missing(
            "GPUs without nouveau",
            "nouveau is loaded and holds the GPUs",
            "reboot the host; if it comes back, rebuild the initramfs: update-initramfs -u -k all",
        )

    @property
    def module_version(self) -> str:
        """The version of the kernel module that is loaded.

        :raises Missing: if there is no GPU, or no module, which nouveau may keep away.
        """
        if self.addresses and (found := self._state.get("module")):
            return found[0]
        assert self.is_free_of_nouveau
        raise Missing(
            "nvidia module",
            "the kernel module nvidia is not loaded",
            "on the host: modprobe nvidia; dkms status; dmesg | grep -i 'key was rejected' (Secure Boot)",
        )

    def require_trusted_module(self) -> None:
        """See that Secure Boot, which is on, is not what keeps the module away.

        :raises Missing: the module is not loaded, and the firmware does not know the key of DKMS.
        """
        if self._state.get("module"):
            return
        resource = SecureBoot(())
        if refusal := resource.refused(resource.read(self._probe(resource.question()))):
            message = f"the kernel module nvidia is not loaded: {refusal.message}"
            raise Missing("nvidia module", message, refusal.hint)

    @property
    def flavour(self) -> str:
        """Of the module that is loaded: ``open`` or ``proprietary``."""
        if self.module_version and (kind := self._state.get("kind")):
            return "open" if "Open Kernel Module" in kind[0] else "proprietary"
        raise Missing("driver version", "no version can be read of /proc/driver/nvidia", AGAIN)

    @property
    def signer(self) -> str:
        """Who signed the module that is loaded; empty if nobody did."""
        return self._ask("module_signer").out.strip() if self.module_version else ""

    @property
    def missing_nodes(self) -> list[str]:
        """Device nodes that are missing, or of an old number, before nvidia-smi makes some of them."""
        return [f"/dev/{name}" for name in self._state.get("node", [])] if self.module_version else []

    # ── nvidia-smi ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def gpus(self) -> list[Card]:
        """The GPUs that nvidia-smi shows, of which there is at least one.

        :raises Missing: if there is no GPU, no module, or nvidia-smi shows none.
        """
        answer = self._probe(GPUS) if self.module_version else Output(0)
        if found := cards(answer):
            return found
        said = f"{answer.out}\n{answer.err}"
        why, hint = fault_of(answer) if IN_CONTAINERS in said else cause(answer)
        base = next((base for pattern, base in BASES if re.search(pattern, said)), "nvidia-smi")
        if self.changed_files:
            base = "driver packages"
        raise Missing(base, f"nvidia-smi shows no GPU: {why}", hint or LOG)

    @property
    def told(self) -> list[Told]:
        """What nvidia-smi tells of each GPU, to be compared with what was ordered.

        :raises Missing: as :attr:`gpus`.
        """
        return told_of(self._probe(TOLD, seconds=80)) if self.gpus else []

    @property
    def links_up(self) -> dict[str, int]:
        """How many links of NVLink are up, by the index of their GPU."""
        return links_up(self._ask("nvlink_states").out) if self.gpus else {}

    def require_every_gpu(self) -> None:
        """See that every GPU on the bus is one that nvidia-smi shows.

        :raises Missing: if one is not.
        """
        there, answer = set(self.addresses), {card.address for card in self.gpus}
        if silent := sorted(there - answer):
            verbs = ("is", "does") if len(silent) == 1 else ("are", "do")
            raise Missing(
                "every GPU",
                f"GPU {', '.join(silent)} {verbs[0]} on the PCI bus and {verbs[1]} not answer",
                "on the host: dmesg | grep -i -e xid -e nvrm; one that fell off the bus takes a reboot",
            )
        if unknown := sorted(answer - there):
            message = f"nvidia-smi shows {', '.join(unknown)}, which the PCI bus does not"
            raise Missing("every GPU", message, "reboot the host")

    @property
    def health(self) -> list[Reading]:
        """What nvidia-smi tells of the GPUs that somebody should know."""
        answer = self._probe(HEALTH, seconds=80) if self.gpus else Output(0)
        found = readings(answer)
        if found is None:
            why, hint = cause(answer)
            fail(f"nvidia-smi does not tell of the GPUs' health: {why}", hint or "on the host: dmesg | tail")
        return found

    @property
    def fabric(self) -> dict[str, str]:
        """State and status of each GPU's fabric by its index."""
        rows = (line.partition(", ") for line in self._ask("fabric_states").out.splitlines())
        return {index: state for index, _, state in rows} if self.gpus else {}

    # ── packages and files ───────────────────────────────────────────────────────────────────────────────

    @property
    def packages(self) -> dict[str, Installed]:
        """The driver's packages, and those of kernels' headers, by name."""
        return installed(self._ask(words("installed_packages", *PACKAGES), INSTALLED).out)

    @property
    def lost_files(self) -> list[str]:
        """Programs and libraries of its packages that are not there."""
        return self._ask(words("lost_files", *FILES), INSTALLED).out.splitlines()

    @property
    def changed_files(self) -> list[str]:
        """Files of its packages that have other content than they came with."""
        return self._ask(words("changed_files", *FILES), INSTALLED).out.splitlines()

    def require_packages_alone(self) -> None:
        """See that no driver came past the package manager.

        :raises Missing: if one did.
        """
        if fault := parse_foreign(self._probe(FOREIGN)).fault():
            raise Missing("driver version", *fault)

    @property
    def versions(self) -> dict[str, str]:
        """What each part of the driver says of its version; "" where it says nothing."""
        found = {"the loaded module": self.module_version}
        told = re.search(r"  (\d+(?:\.\d+)+)", "".join(self._state.get("kind", [])))
        found["/proc/driver/nvidia"] = told[1] if told else ""
        libraries = self._ask("driver_libraries").out.split()
        for path in libraries:
            folder, _, name = path.rpartition("/")
            # A link that is gone leaves its own name, which has no version.
            version = path.partition(".so.")[2]
            found[f"{name.partition('.so.')[0]} in {folder}"] = version if "." in version else ""
        if not libraries:
            found["libnvidia-ml.so.1"] = ""
        for card in cards(self._probe(GPUS)):
            found["nvidia-smi"] = card.driver
        return found

    def require_one_version(self, more: Mapping[str, str] = {}) -> None:
        """See that all parts that run are of one version, and that those of ``more`` are too.

        :raises Missing: if not.
        """
        found = {**self.versions, **more}
        if missing := [part for part, version in found.items() if not version]:
            libraries = all(part.startswith("libnvidia-ml") for part in missing)
            base = "driver packages" if libraries else "driver version"
            raise Missing(base, f"no version can be read of {', '.join(missing)}", AGAIN)
        if len(set(found.values())) > 1:
            told = ", ".join(f"{part} {version}" for part, version in found.items())
            message = f"the parts of the driver are of different versions: {told}"
            raise Missing("driver version", message, REBOOT)

    @property
    def kernels(self) -> tuple[KernelModules, ...]:
        """The modules of the running kernel, and of the newest, which the host boots next."""
        try:
            return parse(self._probe(QUESTION))
        except ValueError as error:
            fail(
                f"the kernels of the host cannot be told: {error}",
                "on the host: ls /lib/modules; dkms status",
            )

    def images_without(self, path: str) -> list[str]:
        """The images of the initramfs, which is read before the root file system, that lack a file."""
        return self._ask(words("images_without", path), seconds=150).out.split()

    # ── apt ──────────────────────────────────────────────────────────────────────────────────────────────

    def candidate(self, package: str) -> str:
        """The version that apt would install now; empty if it has none.

        :raises Missing: if apt cannot read its sources.
        """
        answer = self.run("apt-cache policy %s", package)
        if errors := re.findall(r"^E: (.*)", answer.stderr, re.MULTILINE):
            raise Missing(
                "apt sources", f"apt cannot read its sources: {errors[0]}", hint_for(errors[0]) or AGAIN
            )
        found = re.search(r"^  Candidate: (\S+)", answer.stdout, re.MULTILINE)
        return found[1] if found and found[1] != "(none)" else ""

    @property
    def left_alone(self) -> list[str]:
        """The names that unattended-upgrades leaves alone, as regular expressions."""
        text = self.run("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
        return re.findall(r'^[^"]*:: "(.*)";$', text, re.MULTILINE)
