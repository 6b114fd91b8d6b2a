"""testinfra's ``host.nvidia``: the driver of a host and its GPUs, as they are."""

from __future__ import annotations

from testinfra.modules.base import InstanceModule

from provision.causes.known_messages import cause
from provision.facts import DISPLAY_CLASSES
from provision.finding import Missing
from provision.gpu.nvidia_smi import GPUS, Card, cards
from provision.probe import Output, by_word
from provision.shell import assembled

VERIFY = "driver/verify.sh"


class Nvidia(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The driver and its GPUs. What it stands on comes first: a GPU on the bus, its module, nvidia-smi."""

    def _ask(self, script: str, *files: str, seconds: float = 40) -> Output:
        """The answer of functions below ``templates/``; nvidia-smi has at most 35 s."""
        result = self.run(f"{assembled(*(files or (VERIFY,)))}{script}", seconds=seconds)
        return Output(result.rc, result.stdout_bytes, result.stderr_bytes)

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
    def module_version(self) -> str:
        """The version of the kernel module that is loaded.

        :raises Missing: if there is no GPU, or no module.
        """
        if self.addresses and (found := self._state.get("module")):
            return found[0]
        raise Missing(
            "nvidia module",
            "the kernel module nvidia is not loaded",
            "on the host: modprobe nvidia; dkms status; dmesg | grep -i 'key was rejected' (Secure Boot)",
        )

    @property
    def missing_nodes(self) -> list[str]:
        """Device nodes that are missing, or of an old number, before nvidia-smi makes some of them."""
        return [f"/dev/{name}" for name in self._state.get("node", [])] if self.module_version else []

    @property
    def gpus(self) -> list[Card]:
        """The GPUs that nvidia-smi shows, of which there is at least one.

        :raises Missing: if there is no GPU, no module, or nvidia-smi shows none.
        """
        answer = self._ask(GPUS.script, *GPUS.shell) if self.module_version else Output(0)
        if found := cards(answer):
            return found
        why, hint = cause(answer)
        raise Missing("nvidia-smi", f"nvidia-smi shows no GPU: {why}", hint)
