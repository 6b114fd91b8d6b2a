"""testinfra's ``host.machine``: what is in force on a host, in the words of its own tools."""

from __future__ import annotations

import re
from collections.abc import Sequence

from testinfra.modules.base import InstanceModule

from provision.roles.host.kernel import KERNEL_ARGUMENTS

JOURNALD = "/run/systemd/journal/io.systemd.journal"
"""Its socket, which it makes when it starts."""


class Machine(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The host itself."""

    def _out(self, command: str, *arguments: str) -> str:
        return str(self.run(command, *arguments).stdout).strip()

    @property
    def name(self) -> str:
        """What the kernel calls the host."""
        return self._out("uname -n")

    def finds(self, name: str) -> bool:
        """Whether the host's own files give a name an address."""
        return bool(self._out("getent -s files hosts %s", name))

    def sysctl(self, key: str) -> str | None:
        """A value of the kernel, its blanks made one; None for a key that it does not have."""
        told = self.run("sysctl -n %s", key)
        return " ".join(told.stdout.split()) if told.rc == 0 else None

    def systemd(self, name: str) -> str:
        """A property of systemd's manager."""
        return self._out("systemctl show -p %s --value", name)

    def unit(self, name: str, about: str) -> str:
        """A property of a unit."""
        return self._out("systemctl show -p %s --value -- %s", about, name)

    def loads(self, module: str) -> bool:
        """Whether a module is loaded, or a part of the kernel."""
        file = f"/{re.sub('[-_]', '[-_]', module)}[.]ko$"
        there = 'test -d /sys/module/%s || grep -q -e %s "/lib/modules/$(uname -r)/modules.builtin"'
        return bool(self.run(there, module, file).rc == 0)

    def parameter(self, path: str) -> str | None:
        """The value of a module's parameter; None where it shows none."""
        told = self.run("cat %s", path)
        return str(told.stdout).strip() if told.rc == 0 else None

    @property
    def command_line(self) -> list[str]:
        """The arguments that the kernel was started with."""
        return self._out("cat /proc/cmdline").split()

    @property
    def entries(self) -> list[list[str]] | None:
        """What each entry of the boot loader hands to the kernel; None where there is no boot loader."""
        if self.run("command -v grubby && test -d /boot/loader/entries").rc == 0:
            texts = re.findall(r'^args="(.*)"$', self._out("grubby --info=ALL"), re.MULTILINE)
        elif self.run("command -v update-grub && test -f /boot/grub/grub.cfg").rc == 0:
            found = self._out("grep -E '^[[:blank:]]*linux[[:blank:]].*root=' /boot/grub/grub.cfg")
            texts = found.splitlines()
        else:
            return None
        return [text.split() for text in texts]

    @property
    def is_stale(self) -> bool:
        """Whether GRUB's file is older than what it is made from."""
        younger = "find /etc/default/grub.d -name '*provision.cfg' -newer /boot/grub/grub.cfg"
        return bool(self._out(f"test -f /boot/grub/grub.cfg && {younger}"))

    @property
    def given(self) -> list[str]:
        """Arguments that we gave to the entries of grubby."""
        return re.sub(r"^ours ", "", self._out("cat %s", KERNEL_ARGUMENTS), flags=re.MULTILINE).split()

    @property
    def governors(self) -> set[str]:
        """Of the frequencies of all CPUs; none where the kernel does not govern them."""
        return set(self._out("cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor").split())

    def is_older_than(self, path: str) -> bool:
        """Whether the journal's daemon was started before a file, or its folder, was written."""
        younger = f"find %s %s -maxdepth 0 -newer {JOURNALD}"
        return bool(self._out(younger, path, path.rpartition("/")[0]))

    def has_mark(self, path: str) -> bool:
        """Whether a file of ours is there."""
        return self._out("head -c 22 %s", path) == "# Written by provision"

    @property
    def hosts(self) -> str:
        """Its own file of names and addresses."""
        return str(self.run("cat /etc/hosts").stdout_bytes, "utf-8", "surrogateescape")

    @property
    def left_alone(self) -> Sequence[str]:
        """The names that unattended-upgrades leaves alone, as regular expressions."""
        text = self.run("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
        return re.findall(r'^[^"]*:: "(.*)";$', text, re.MULTILINE)
