"""Whether a driver and a GPU run the CUDA of an image, by CUDA's own rules.

A driver runs every CUDA that is not newer than its own. An older driver runs a CUDA of its major version
without what came later (minor-version compatibility), from a first driver of that major on. A driver of an
older major runs it with the compatibility libraries of the image (forward compatibility): on data centre
GPUs, and from some branches only. (NVIDIA, "CUDA Compatibility".)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.gpu.driver_branches import BRANCHES, RECOMMENDED, Cuda, Driver, branch_of, lasting
from provision.gpu.image_contents import Contents, contents_of, pair
from provision.gpu.models import Model
from provision.gpu.pci import Architecture
from provision.gpu.triton_releases import TAGS, Tag, Variant, releases
from provision.gpu.verdict import Verdict

FIRST_DRIVERS = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
"""The first driver for a CUDA major (NVIDIA, "CUDA Compatibility"); after the branch from memory."""

FORWARD: Mapping[int, Mapping[int, Cuda]] = {
    12: {450: (12, 3), 470: (12, 9), 510: (12, 3), 515: (12, 1)},
    13: {535: (13, 5)},
}
"""Branches that run a later CUDA major by forward compatibility, and the last CUDA for which that is known.

12: the table of CUDA Compatibility, as the release notes of Triton 23.03 to 24.10 repeat it. 13: "Supported
Drivers and CUDA Toolkit Versions" says that 535 needs the package for it; on others nothing was found.
"""

NOT_FORWARD = (418, 440, 450, 460, 510, 520, 530, 545, 555)
"""Branches that the same release notes call not forward-compatible; :data:`FORWARD` goes before it."""

FORWARD_TOOLKIT = "1.20.0"
"""First container toolkit that takes an image's compatibility libraries only where they fit (its notes)."""

NEAR = 15
"""How far the number of a branch may be from one that is told as near it."""

FIRST_CUDA = {Architecture.HOPPER: (11, 8), Architecture.ADA: (11, 8), Architecture.BLACKWELL: (12, 8)}
"""First CUDA that knows a generation (NVIDIA, "CUDA Toolkit, Driver, and Architecture Matrix")."""


def judge(contents: Contents, driver: Driver | None, gpu: Model | None = None) -> Verdict:
    """The verdict for a driver and a GPU; without a GPU, what holds for any."""
    if gpu and gpu.capability < contents.capability:
        return _too_old(contents, gpu)
    if driver is None:
        return Verdict("unknown", f"no driver is named; {_first_driver(contents)}")
    if gpu and (verdict := _not_driven(driver, gpu)):
        return verdict
    if contents.major not in FIRST_DRIVERS:
        return Verdict("unknown", f"CUDA {contents.cuda} of {contents.name} is not known here")
    if driver.branch > min(BRANCHES) and driver.branch not in BRANCHES:
        known = ", ".join(str(number) for number in BRANCHES if abs(number - driver.branch) <= NEAR)
        hint = f"known near it: {known}" if known else f"the newest that is known: {max(BRANCHES)}"
        return Verdict("unknown", f"no driver branch {driver.branch} is known here", hint)
    verdict = _by_version(contents, driver, gpu) or _forward(contents, driver, gpu)
    too_new = gpu and verdict.kind != "fail" and _too_new(contents, gpu)
    return too_new or verdict


def all_verdicts(contents: Contents, driver: Driver, gpus: Sequence[Model | None]) -> list[Verdict]:
    """The verdicts for the GPUs of a host, each once."""
    return list(dict.fromkeys(judge(contents, driver, gpu) for gpu in gpus or (None,)))


def fitting_release(variant: Variant, driver: Driver, gpu: Model | None) -> str:
    """The tag of the newest release whose variant is sure to run here; empty if none is."""
    for release in reversed(list(releases())):
        tag = Tag("", release, TAGS[variant])
        contents = contents_of(tag)
        if not isinstance(contents, Contents) or contents.certainty != "read":
            continue
        if gpu and (gpu.capability < contents.capability or _too_new(contents, gpu)):
            continue
        if _by_version(contents, driver, gpu):
            return str(tag)
    return ""


def _by_version(contents: Contents, driver: Driver, gpu: Model | None) -> Verdict | None:
    """The verdict where the driver is of the CUDA major or later; None where it is older."""
    branch = _branch(contents)
    later = FIRST_DRIVERS.get(contents.major + 1)
    if (branch and driver.branch >= branch) or (later and driver.at_least(*later)):
        return Verdict("ok", f"driver {driver} runs CUDA {contents.cuda} of {contents.name}")
    if not driver.at_least(*FIRST_DRIVERS[contents.major]):
        return None
    own = BRANCHES.get(driver.branch)
    since = f"CUDA {own.cuda[0]}.{own.cuda[1]}" if own else "the driver's own CUDA"
    newer = lasting(branch) if branch and contents.minor is not None else None
    driven = newer and not (gpu and gpu.last_branch and newer > gpu.last_branch)
    return Verdict(
        "minor-version",
        f"driver {driver} runs CUDA {contents.cuda} of {contents.name} by minor-version compatibility:"
        f" features after {since} are missing, and its PTX cannot be compiled when it is loaded",
        f"driver.branch: {newer} has all of it" if driven else "",
    )


def _forward(contents: Contents, driver: Driver, gpu: Model | None) -> Verdict:
    """The verdict for a driver of an older CUDA major."""
    older = f"driver {driver} is too old for CUDA {contents.cuda} of {contents.name}"
    since = _first_driver(contents)
    hint = _remedies(contents, driver, gpu)
    if gpu and gpu.data_centre is False:
        only = "forward compatibility is for data centre GPUs only"
        return Verdict("fail", f"{older}: {since}, and {only}", hint)
    if driver.branch in contents.accepts or _is_forward(contents, driver.branch):
        if gpu is None or gpu.data_centre is None:
            return Verdict("unknown", f"{older}: {since}; data centre GPUs alone run it all the same", hint)
        return Verdict(
            "forward-compat",
            f"{older} by itself: it runs on data centre GPUs with the compatibility libraries of the image",
            f"{hint} does without; container toolkit {FORWARD_TOOLKIT} takes them only where they fit",
        )
    if driver.branch in NOT_FORWARD or driver.branch not in BRANCHES:
        return Verdict("fail", f"{older}: {since}, and {driver.branch} is not forward-compatible", hint)
    said = f"whether {driver.branch} is forward-compatible with it is not known here"
    return Verdict("unknown", f"{older}: {since}; {said}", hint)


def _is_forward(contents: Contents, branch: int) -> bool:
    last = FORWARD.get(contents.major, {}).get(branch)
    return last is not None and (contents.major, contents.minor or 0) <= last


def _too_old(contents: Contents, gpu: Model) -> Verdict:
    needs, has = (".".join(map(str, one)) for one in (contents.capability, gpu.capability))
    usable = [name for name, one in releases().items() if pair(one.capability.value) <= gpu.capability]
    last = max(usable, default="")
    return Verdict(
        "fail",
        f"{contents.name} uses GPUs of compute capability {needs} or more, and {gpu.name} has {has}",
        f"image {last}-{TAGS[contents.variant or 'py3']} is the last that uses it" if last else "",
    )


def _too_new(contents: Contents, gpu: Model) -> Verdict | None:
    first = FIRST_CUDA.get(gpu.architecture)
    if first is None or contents.minor is None or (contents.major, contents.minor) >= first:
        return None
    variant = contents.variant or "py3"
    release = next(
        name
        for name, one in releases().items()
        if variant in one.cuda and tuple(map(int, one.cuda[variant].value.split("."))) >= first
    )
    return Verdict(
        "unknown",
        f"CUDA {contents.cuda} of {contents.name} does not know {gpu.name}, which came with CUDA {first[0]}."
        f"{first[1]}: only PTX can run, compiled when it is loaded",
        f"image {release}-{TAGS[variant]} is the first that knows it",
    )


def _not_driven(driver: Driver, gpu: Model) -> Verdict | None:
    """The verdict where the driver does not drive the GPU at all."""
    if driver.branch < gpu.first_branch:
        said, branch = f"the first branch that does is {gpu.first_branch}", max(gpu.first_branch, RECOMMENDED)
    elif gpu.last_branch and driver.branch > gpu.last_branch:
        said, branch = f"the last branch that does is {gpu.last_branch}", gpu.last_branch
    else:
        return None
    return Verdict("fail", f"driver {driver} does not drive {gpu.name}: {said}", f"driver.branch: {branch}")


def _branch(contents: Contents) -> int | None:
    """The first branch with all features of its CUDA; of the newest one where the minor is not known."""
    if contents.minor is not None:
        return branch_of((contents.major, contents.minor))
    return max((n for n, branch in BRANCHES.items() if branch.cuda[0] == contents.major), default=None)


def _first_driver(contents: Contents) -> str:
    branch, *rest = FIRST_DRIVERS.get(contents.major, (0,))
    numbers = ".".join([str(branch), *(f"{number:02d}" for number in rest)])
    return f"CUDA {contents.major} begins with driver {numbers}" if branch else "its driver is not known here"


def _remedies(contents: Contents, driver: Driver, gpu: Model | None) -> str:
    branch = max(RECOMMENDED, gpu.first_branch if gpu else 0)
    other = fitting_release(contents.variant, driver, gpu) if contents.variant else ""
    return f"driver.branch: {branch}" + (f", or image {other}" if other else "")
