"""The initramfs: it holds copies of modprobe's configuration, which have to be as new as the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource


@dataclass(frozen=True)
class Initramfs(Resource[tuple[str, ...]]):
    """The initramfs of the running and of the newest kernel is newer than a file that is copied into it.

    A host without an initramfs where distributions put it (a container, a unified kernel image) is right.

    :ivar path: a file of ``/etc/modprobe.d``.
    """

    path: str
    kind: ClassVar[str] = "initramfs"
    shell = ("shell/rebuild_initramfs.sh",)

    @property
    def id(self) -> str:
        return f"initramfs:{self.path}"

    @classmethod
    def probe(cls, resources: Sequence[Initramfs]) -> Probe:
        """Compare times of last change; what is in the initramfs takes seconds to list."""
        script = words("stale_images", *(r.path for r in resources))
        return Probe("initramfs", script, ("shell/initramfs.sh",), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Initramfs], answer: Output) -> Mapping[str, tuple[str, ...]]:
        """For each file the images that are older.

        :raises ValueError: if there is not one line for each file.
        """
        lines = answer.out.splitlines()
        if len(lines) != len(resources):
            raise ValueError(f"{len(lines)} answers for {len(resources)} files: {answer.err.strip()}")
        return {r.id: tuple(line.split()) for r, line in zip(resources, lines, strict=True)}

    def bare(self) -> tuple[str, ...]:
        """No image is older than the file, which is not there."""
        return ()

    def change(self, state: tuple[str, ...], planned: Planned) -> Change | None:
        """Rebuild all images after the file changes, or where an earlier run did not come so far."""
        if planned.positions((f"file:{self.path}",)):
            reason = f"after file:{self.path}"
        elif state:
            reason = f"{' and '.join(state)} {'is' if len(state) == 1 else 'are'} older than {self.path}"
        else:
            return None
        return Change(
            resource=self.id,
            action="rebuild",
            summary="rebuild the initramfs of all kernels",
            reason=reason,
            done=f"initramfs_is_newer {quote(self.path)}",
            script="rebuild_initramfs",
        )
