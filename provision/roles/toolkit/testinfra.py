"""testinfra's ``host.container_toolkit``: the NVIDIA Container Toolkit of a host, as it is."""

from __future__ import annotations

import re
from typing import Any

from testinfra.modules.base import InstanceModule

from provision.causes.known_messages import cause, hint_for
from provision.errors import Refusal
from provision.facts import Family
from provision.finding import Missing
from provision.probe import Output, words
from provision.resources.file import parse_contents
from provision.resources.packages.installed import INSTALLED, Installed, installed
from provision.resources.packages.other_sources import SOURCES, SourceFile
from provision.roles.toolkit import cdi
from provision.roles.toolkit.config import CONFIG_TOML, read
from provision.roles.toolkit.config_keys import flat
from provision.roles.toolkit.role import LDCONFIG, OLD_REPOSITORIES, PACKAGES
from provision.shell import assembled

AGAIN = "inv provision --hosts {host} --roles toolkit"


class ContainerToolkit(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The toolkit's packages, its programs, its configuration and the CDI specs."""

    def _ask(self, script: str, *files: str, seconds: float = 40) -> Output:
        result = self.run(f"{assembled(*files)}{script}", seconds=seconds)
        return Output(result.rc, result.stdout_bytes, result.stderr_bytes)

    @property
    def packages(self) -> dict[str, Installed]:
        """Its packages that are installed, by name."""
        return installed(self._ask(words("installed_packages", *PACKAGES), INSTALLED).out)

    @property
    def damaged_files(self) -> dict[str, str]:
        """``missing`` or ``changed`` for each file that is not as its packages brought it."""
        lines = self._ask(words("damaged_files", *PACKAGES), INSTALLED).out.splitlines()
        return {path: what for what, _, path in (line.partition(" ") for line in lines)}

    def require_files(self) -> None:
        """See that the files of its packages are as they came.

        :raises Missing: if one is not.
        """
        if damaged := [f"{path} is {what}" for path, what in self.damaged_files.items()]:
            hint = f"on the host: apt-get install --reinstall, or dnf reinstall, {' '.join(PACKAGES)}"
            raise Missing("toolkit packages", "; ".join(damaged[:3]), hint)

    @property
    def version(self) -> str:
        """The version that nvidia-ctk tells.

        :raises Missing: if it does not answer.
        """
        answer = self._ask("timeout -k 5 30 nvidia-ctk --version")
        if answer.ok and (found := re.search(r"version (\S+)", answer.out)):
            return found[1]
        why, hint = cause(answer)
        base = "toolkit packages" if answer.exit_code == 127 else "nvidia-ctk"
        raise Missing(base, f"nvidia-ctk does not answer: {why}", hint)

    @property
    def config(self) -> dict[str, Any]:
        """What config.toml says; empty where there is none, as the toolkit takes it.

        :raises Missing: if it is not TOML.
        """
        answer = self._ask(f"[ ! -e {CONFIG_TOML} ] || cat {CONFIG_TOML}")
        try:
            return read(answer.stdout)
        except Refusal as refusal:
            raise Missing("config.toml", refusal.message, refusal.hint) from refusal

    @property
    def lost_ldconfig(self) -> str:
        """The program of the host that config.toml names and the host lacks; empty if it is there."""
        named = str(flat(self.config).get(LDCONFIG, "@/sbin/ldconfig"))
        lost = named.startswith("@") and not self._host.file(named[1:]).is_executable
        return named[1:] if lost else ""

    def require_working(self) -> None:
        """See that nothing of it keeps containers from their GPUs; for checks that start containers in vain.

        :raises Missing: if something does.
        """
        self.require_files()
        if lost := self.lost_ldconfig:
            raise Missing("ldconfig", f"config.toml names {lost}, which the host does not have", AGAIN)

    @property
    def cdi(self) -> cdi.CdiState:
        """The driver as CDI specs should have it, and the specs.

        :raises Missing: if there is no driver that they could be of.
        """
        assert self._host.nvidia.module_version
        return cdi.parse(self._ask(cdi.QUESTION.script, *cdi.QUESTION.shell))

    def sources(self, family: Family) -> list[SourceFile]:
        """The files of sources that name a repository of its packages.

        :raises Missing: if apt cannot read its sources.
        """
        if family == "debian":
            answer = self._ask("apt-get indextargets >/dev/null")
            if errors := re.findall(r"^E: (.*)", answer.err, re.MULTILINE):
                raise Missing(
                    "apt sources", f"apt cannot read its sources: {errors[0]}", hint_for(errors[0]) or AGAIN
                )
        texts = [f"/{part}" for part in OLD_REPOSITORIES]
        found = self._ask(words("other_sources", family, "", *texts), SOURCES)
        return [SourceFile(path, text) for path, text in sorted(parse_contents(found.stdout).items())]
