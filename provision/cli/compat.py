"""What ``inv compat`` shows: the table of releases, or the verdict on one image."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

from provision.errors import UsageError
from provision.gpu.advisories import DRIVER, TRITON, Known, known, newest_bulletin
from provision.gpu.compatibility import judge
from provision.gpu.driver_branches import BRANCHES, RECOMMENDED, Driver, branch_of, read_driver
from provision.gpu.image_contents import Contents, contents_of
from provision.gpu.models import Model, find, similar
from provision.gpu.triton_releases import TAGS, Release, Tag, Variant, read_tag, releases
from provision.gpu.verdict import Verdict

MARKS = {"read": "", "inferred": "~", "memory": "?"}
"""What stands behind a value that was not read in its source."""

WIDTH = 80


@dataclass(frozen=True)
class Answer:
    """The verdict on an image, and what else there is to know.

    :ivar contents: None where the tag does not tell.
    :ivar vulnerabilities: of the release, and of the driver.
    :ivar driver: the one that is asked about.
    """

    tag: Tag
    verdict: Verdict
    contents: Contents | None
    vulnerabilities: tuple[tuple[str, Known], ...]
    driver: Driver | None

    @property
    def exit_code(self) -> int:
        """3 if it does not run."""
        return 3 if self.verdict.kind == "fail" else 0

    def text(self) -> str:
        """For people."""
        release, has = releases().get(self.tag.release), self.contents
        lines = [f"{self.tag}: {self.verdict.kind}", *_wrapped(self.verdict.reason)]
        if self.verdict.hint:
            lines += _wrapped(f"hint: {self.verdict.hint}")
        if release and has:
            lines += _wrapped(
                f"release {release.name}: server {release.server.value}, CUDA {has.cuda} ({has.certainty}: "
                f"{has.source}), GPUs of compute capability {release.capability.value} or more"
            )
        for name, found in self.vulnerabilities:
            lines += _wrapped(f"{name} has {found}; bulletins up to {newest_bulletin()}")
        if self.is_over and self.driver:
            lines += _wrapped(f"driver branch {self.driver.branch} gets no fixes any more")
        return "\n".join(lines)

    @property
    def is_over(self) -> bool:
        """Whether NVIDIA fixes nothing in the driver's branch any more."""
        branch = BRANCHES.get(self.driver.branch) if self.driver else None
        return branch is not None and branch.over

    def document(self) -> dict[str, Any]:
        """For programs."""
        release, has = releases().get(self.tag.release), self.contents
        cuda = has and {"version": has.cuda, "certainty": has.certainty, "source": has.source}
        return {
            "schema": 1,
            "image": str(self.tag),
            "release": self.tag.release,
            "variant": None if self.tag.is_unknown else TAGS[self.tag.variant],
            "server": release.server.value if release else None,
            "cuda": cuda,
            "verdict": asdict(self.verdict),
            "vulnerabilities": {name: _row(found) for name, found in self.vulnerabilities},
            "driver_gets_fixes": None if self.driver is None else not self.is_over,
        }


def tag_of(image: str) -> Tag:
    """Read ``--image``.

    :raises UsageError: if it is no tag of NVIDIA's.
    """
    tag = read_tag(image.strip())
    if tag is None or not tag.is_nvidias:
        raise UsageError(
            f"{image!r} is not a tag of NVIDIA's tritonserver image",
            hint="as 24.07-trtllm-python-py3, or the whole name: nvcr.io/nvidia/tritonserver:24.07-py3",
        )
    return tag


def driver_of(version: str) -> Driver | None:
    """Read ``--driver``; None where it is not given.

    :raises UsageError: if it is no version of a driver.
    """
    driver = read_driver(version) if version else None
    if version and driver is None:
        raise UsageError(
            f"{version!r} is not a version of NVIDIA's driver",
            hint=f"as 580.159.04, or a branch, which stands for its newest driver: {RECOMMENDED}",
        )
    return driver


def gpu_of(name: str) -> Model | None:
    """Read ``--gpu``; None where it is not given.

    :raises UsageError: if it is no GPU that is known.
    """
    model = find(name) if name else None
    if name and model is None:
        close = similar(name)
        hint = f"did you mean {close}?" if close else "a model such as H100, or a compute capability: 8.9"
        raise UsageError(f"there is no GPU {name!r} in the table", hint=hint)
    return model


def answer(tag: Tag, driver: Driver | None, gpu: Model | None) -> Answer:
    """The verdict on an image."""
    contents = contents_of(tag)
    verdict = contents if isinstance(contents, Verdict) else judge(contents, driver, gpu)
    named = [(f"release {tag.release}", known(TRITON, tag.release) if tag.release in releases() else None)]
    if driver:
        named.append((f"driver {driver}", known(DRIVER, str(driver))))
    found = tuple((name, one) for name, one in named if one)
    return Answer(tag, verdict, contents if isinstance(contents, Contents) else None, found, driver)


def table(driver: Driver | None, gpu: Model | None) -> str:
    """All releases, the newest first; with the verdicts where a driver or a GPU is named."""
    judged = driver is not None or gpu is not None
    head = ("release", *(() if judged else ("server",)), *get_args(Variant), "CVEs")
    newest_first = reversed(list(releases().values()))
    rows = [head, *(_row_of(release, driver, gpu, judged=judged) for release in newest_first)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_legend(judged=judged)])


def document(driver: Driver | None, gpu: Model | None) -> dict[str, Any]:
    """The table for programs."""
    rows = []
    for release in releases().values():
        found = known(TRITON, release.name)
        variants = {
            TAGS[variant]: {
                **asdict(cell),
                **({"verdict": asdict(_verdict(release, variant, driver, gpu))} if driver or gpu else {}),
            }
            for variant, cell in release.cuda.items()
        }
        rows.append(
            {
                "release": release.name,
                "server": asdict(release.server),
                "capability": asdict(release.capability),
                "cuda": variants,
                "vulnerabilities": _row(found) if found else None,
            }
        )
    return {"schema": 1, "releases": rows}


def _row(found: Known) -> dict[str, Any]:
    return {"fixed": found.fixed, "found": [asdict(one) for one in found.found]}


def _verdict(release: Release, variant: Variant, driver: Driver | None, gpu: Model | None) -> Verdict:
    return answer(Tag("", release.name, TAGS[variant]), driver, gpu).verdict


def _row_of(release: Release, driver: Driver | None, gpu: Model | None, *, judged: bool) -> tuple[str, ...]:
    found = known(TRITON, release.name)
    count = len(found.found) if found else 0
    variants = (_cell(release, variant, driver, gpu, judged=judged) for variant in get_args(Variant))
    if judged:
        return release.name, *variants, str(count)
    server = f"{release.server.value}{MARKS[release.server.certainty]}"
    worst = f", worst {found.found[0].score:.1f}" if found else ""
    return release.name, server, *variants, f"{count}{worst}"


def _cell(
    release: Release, variant: Variant, driver: Driver | None, gpu: Model | None, *, judged: bool
) -> str:
    contents = contents_of(Tag("", release.name, TAGS[variant]))
    if isinstance(contents, Verdict):
        return "-"
    cuda = f"{contents.cuda}{MARKS[contents.certainty]}"
    if judged:
        return f"{cuda} {judge(contents, driver, gpu).kind}"
    branch = branch_of((contents.major, contents.minor)) if contents.minor is not None else None
    return f"{cuda} ({branch})" if branch else cuda


def _legend(*, judged: bool) -> Iterator[str]:
    beside = "the verdict" if judged else "the first driver branch with all of its features"
    yield from _wrapped(f"Each variant has its CUDA version, and {beside}.", "")
    yield from _wrapped("~ inferred, ? from memory; inv compat --json has the source of each value.", "")
    if not judged:
        kept = ", ".join(
            f"{n} ({one.end})" if one.end else str(n) for n, one in BRANCHES.items() if not one.over
        )
        yield from _wrapped(
            "An older driver runs CUDA of its own major too (minor-version): 12 from 525.60.13,"
            " 13 from 580.65.06. From 24.11 on GPUs need compute capability 7.5, before it 6.0."
            f" Driver branches that get fixes, and until when: {kept}.",
            "",
        )
    yield from _wrapped(f"CVEs: NVIDIA's bulletins up to {newest_bulletin()}.", "")


def _wrapped(text: str, margin: str = "    ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
