"""The initramfs: it holds copies of modprobe's configuration, which have to be as new as the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource
from provision.roles.driver.kernel import KERNELS


@dataclass(frozen=True)
class Initramfs(Resource):
    """The initramfs of the running and of the newest kernel is newer than a file that is copied into it.

    A host without an initramfs where distributions put it (a container, a unified kernel image) is right.

    :ivar path: a file of ``/etc/modprobe.d``.
    """

    path: str
    kind: ClassVar[str] = "initramfs"

    @property
    def id(self) -> str:
        """``initramfs:PATH``."""
        return f"initramfs:{self.path}"

    @classmethod
    def probe(cls, resources: Sequence[Initramfs]) -> Probe:
        """Compare times of last change; what is in the initramfs takes seconds to list."""
        return Probe(
            "initramfs",
            f"""{KERNELS}for file in {words(*(r.path for r in resources))}; do
  stale=
  for k in $kernels; do
    for image in "/boot/initrd.img-$k" "/boot/initramfs-$k.img"; do
      if [ -e "$image" ] && [ "$file" -nt "$image" ]; then stale="$stale $image"; fi
    done
  done
  echo "$stale"
done
""",
        )

    @classmethod
    def states(cls, resources: Sequence[Initramfs], answer: Output) -> Mapping[str, tuple[str, ...]]:
        """For each file the images that are older.

        :raises ValueError: if there is not one line for each file.
        """
        lines = answer.out.splitlines()
        if len(lines) != len(resources):
            raise ValueError(f"{len(lines)} answers for {len(resources)} files: {answer.err.strip()}")
        return {r.id: tuple(line.split()) for r, line in zip(resources, lines, strict=True)}

    def change(self, state: tuple[str, ...], planned: Planned) -> Change | None:
        """Rebuild all images after the file changes, or where an earlier run did not come so far."""
        if planned.positions((f"file:{self.path}",)):
            reason = f"after file:{self.path}"
        elif state:
            reason = f"{' and '.join(state)} older than {self.path}"
        else:
            return None
        return Change(
            resource=self.id,
            action="rebuild",
            summary="rebuild the initramfs of all kernels",
            reason=reason,
            done=f"{KERNELS}initramfs_is_newer {quote(self.path)}",
            script="rebuild_initramfs",
        )
