"""Model repositories on a host: what would keep an instance from loading its models."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.errors import Refusal, visible
from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource
from provision.resources.file import Directory
from provision.roles.triton.arguments import TRUE, last, options
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import CANARY_MODEL, expected_models
from provision.roles.triton.model_config import Unread, read_config
from provision.roles.triton.unit import models_signal

MODELS = "triton/models.sh"


@dataclass(frozen=True)
class Model:
    """A folder of a repository.

    :ivar versions: names of folders that begin with a digit.
    :ivar has_config: whether it has a config.pbtxt.
    :ivar config: its content, where it was read.
    :ivar odd: whether its config.pbtxt is no regular file.
    :ivar linked: whether a part of it is a link; the container may see something else then.
    """

    versions: tuple[str, ...] = ()
    has_config: bool = False
    config: bytes | None = None
    linked: bool = False
    odd: bool = False


@dataclass(frozen=True)
class Repository:
    """What is in the folder of a repository; nothing where there is none.

    :ivar whole: whether all of its models are known.
    """

    models: Mapping[str, Model] = field(default_factory=dict)
    whole: bool = True


@dataclass(frozen=True)
class Fault:
    """What keeps a model from being loaded.

    :ivar at: the file or folder, with the line where there is one.
    :ivar sure: whether Triton refuses it in any case.
    """

    at: str
    why: str
    sure: bool = True

    def __str__(self) -> str:
        return visible(f"{self.at}: {self.why}")


def probe_of(folders: Sequence[str]) -> Probe:
    """The probe that reads these repositories."""
    return Probe("models", words("model_repositories", *dict.fromkeys(folders)), (MODELS,), in_place=True)


def parse(answer: Output) -> dict[str, Repository]:
    """Read the answer of :func:`probe_of`: the repositories that are there.

    :raises ValueError: if it is not one.
    """
    head, mark, archive = answer.stdout.partition(b"\0\0")
    if not mark and answer.stdout != b"\0":
        raise ValueError(f"the list of models is cut off: {answer.err[-200:]}")
    found: dict[str, dict[str, Model]] = {}
    whole = True
    models: dict[str, Model] = {}
    model = ""
    for word in head.split(b"\0") if mark else ():
        letter, _, name = word.decode("utf-8", "surrogateescape").partition(" ")
        if letter == "r":
            models = found.setdefault(name, {})
        elif letter in ("m", "l"):
            model = name
            models[name] = Model(linked=letter == "l")
        elif letter == "v":
            models[model] = replace(models[model], versions=(*models[model].versions, name))
        elif letter == "c":
            models[model] = replace(models[model], has_config=True)
        elif letter == "o":
            models[model] = replace(models[model], odd=True)
        else:
            whole = False
    for path, content in _files(archive):
        folder, _, model = path.rpartition("/")[0].rpartition("/")
        if (known := found.get(folder, {}).get(model)) and known.has_config:
            found[folder][model] = replace(known, config=content)
    return {folder: Repository(models, whole) for folder, models in found.items()}


def _files(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of the files of an archive, which may be cut off anywhere."""
    import tarfile  # noqa: PLC0415  # few hosts have configurations

    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errors="surrogateescape") as files:
            for member in files:
                file = files.extractfile(member) if member.isreg() else None
                content = file.read() if file else b""
                if file and len(content) == member.size:
                    yield f"/{member.name.lstrip('/')}", content
    except (tarfile.TarError, ValueError, EOFError):
        return


def of_python(repository: Repository) -> list[str]:
    """The models whose configuration names the python backend."""
    read = {name: read_config(model.config) for name, model in repository.models.items() if model.config}
    return [
        name for name, config in read.items() if not isinstance(config, Unread) and config.backend == "python"
    ]


def faults(folder: str, instance: Instance, repository: Repository, gpus: int) -> list[Fault]:
    """What keeps the models from being loaded that the instance cannot be ready without.

    By the rules of Triton's core (model_repository_manager.cc, model_lifecycle.cc, model_config_utils.cc).

    :param gpus: how many GPUs its container has at most.
    """
    given = options(instance.args)
    if any(_target(mount).startswith("/models/") for mount in instance.mounts):
        return []  # the container has another repository
    expected = expected_models(instance)
    tolerant = last(given, "exit-on-error", "true") not in TRUE
    needed = expected if tolerant else instance.loads if instance.loads is not None else ["*"]
    names = list(repository.models) if "*" in needed else [name.partition("/")[0] for name in needed]
    found = []
    for name in dict.fromkeys([*names, *named_models(instance)]):
        model = repository.models.get(name)
        if model is not None:
            path = f"{folder}/{name}"
            found += list(_of_model(path, name, model, instance, gpus)) if name in names else []
            if repository.whole and not _has_other_configs(instance):
                found += _of_versions(path, model, _versions_of(name, instance))
        elif repository.models and repository.whole and name != CANARY_MODEL:
            # Where there is nothing at all, something may still be mounted.
            found.append(Fault(folder, f"model {name} is not there"))
    return found


def named_models(instance: Instance) -> list[str]:
    """The models that the settings expect or load by name. One to load that is not there ends Triton."""
    expected = [name.partition("/")[0] for name in expected_models(instance)]
    asked = [canary.model for canary in instance.canaries]
    return [name for name in dict.fromkeys([*expected, *(instance.loads or ()), *asked]) if name != "*"]


def _versions_of(name: str, instance: Instance) -> list[int]:
    """The versions of a model that the settings name."""
    expected = (one.partition("/") for one in expected_models(instance))
    asked = [canary.version for canary in instance.canaries if canary.model == name and canary.version]
    return sorted({*asked, *(int(version) for model, _, version in expected if model == name and version)})


def _of_versions(path: str, model: Model, named: Sequence[int]) -> Iterator[Fault]:
    """Those that the settings name and Triton does not load; as a rule it loads the latest alone."""
    config = read_config(model.config or b"")
    unclear = model.linked or (model.has_config and model.config is None)
    there = _numbers(model)
    if not named or not there or unclear or isinstance(config, Unread):
        return
    if config.HasField("model_repository_agents"):
        return  # an agent may bring them
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    latest = sorted(there)[-(policy.latest.num_versions if choice == "latest" else 1) :]
    loaded = {"all": there, "specific": there & set(policy.specific.versions)}.get(choice, set(latest))
    for version in named:
        if version not in there:
            has = ", ".join(map(str, sorted(there)))
            yield Fault(path, f"the settings name version {version}, and there is {has}")
        elif version not in loaded:
            takes = ", ".join(map(str, sorted(loaded))) or "none"
            yield Fault(
                path, f"the settings name version {version}, and by its version_policy Triton loads {takes}"
            )


def _has_other_configs(instance: Instance) -> bool:
    return any(option.name == "model-config-name" for option in options(instance.args))


def _usable(model: Model) -> list[str]:
    """The folders that Triton takes for versions."""
    return [version for version in model.versions if version == "0" or not version.startswith("0")]


def _numbers(model: Model) -> set[int]:
    return {int(digits[0]) for version in _usable(model) if (digits := re.match("[0-9]+", version))}


def _target(mount: str) -> str:
    source, _, rest = mount.partition(":")
    return rest.partition(":")[0] or source


def _config_of(model: Model) -> Any:
    """What its config.pbtxt says, as far as it was read."""
    if model.odd:
        return Unread(0, "it is not a regular file", sure=True)
    return None if model.config is None else read_config(model.config)


def _of_model(path: str, name: str, model: Model, instance: Instance, gpus: int) -> Iterator[Fault]:
    if model.linked:
        return
    other = _has_other_configs(instance)
    config = None if other else _config_of(model)
    if isinstance(config, Unread):
        at = f"{path}/config.pbtxt" + (f":{config.line}" if config.line else "")
        yield Fault(at, config.why, config.sure)
        return
    if not model.has_config and not other and _without_completion(instance):
        yield Fault(path, "it has no config.pbtxt, and Triton is told not to complete it")
    if config is not None:
        yield from _of_config(f"{path}/config.pbtxt", name, config, gpus)
    if config is not None and config.HasField("model_repository_agents"):
        return  # an agent may bring its versions
    if model.has_config and config is None:
        return
    if not _usable(model):
        yield Fault(path, "it has no version: no folder with a number as its name, such as 1")
        return
    wanted = list(config.version_policy.specific.versions) if config is not None else []
    numbers = _numbers(model)
    if wanted and not numbers & set(wanted):
        yield Fault(f"{path}/config.pbtxt", f"version_policy wants {wanted}, and there is {sorted(numbers)}")


def _of_config(at: str, name: str, config: Any, gpus: int) -> Iterator[Fault]:
    if config.name and config.name != name:
        yield Fault(at, f"name is {config.name!r}, and must be {name!r}, as its folder")
    if config.HasField("ensemble_scheduling"):
        return
    for group in config.instance_group:
        if group.kind != group.KIND_GPU:
            continue  # KIND_AUTO without such a GPU is on the CPU
        if not gpus:
            yield Fault(at, "instance_group has KIND_GPU, and the instance has no GPU")
        elif absent := [gpu for gpu in group.gpus if gpu not in range(gpus)]:
            has = "GPU 0 alone" if gpus == 1 else f"GPUs 0 to {gpus - 1}"
            yield Fault(at, f"instance_group wants GPU {absent[0]}, and the container has {has}")


def _without_completion(instance: Instance) -> bool:
    given = options(instance.args)
    strict = last(given, "strict-model-config", "false") in TRUE
    return instance.under_mpi or strict or any(one.name == "disable-auto-complete-config" for one in given)


@dataclass(frozen=True)
class ModelRepository(Resource[Repository]):
    """The models of an instance, which are not ours: nothing changes them here.

    :ivar starts: ids of the changes that start the instance, or stop and start it.
    :ivar gpus: how many GPUs its container has at most.
    """

    unit: str
    folder: str
    instance: Instance
    gpus: int
    starts: tuple[str, ...]
    kind: ClassVar[str] = "models"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.unit}"

    @classmethod
    def probe(cls, resources: Sequence[ModelRepository]) -> Probe:
        """Read all repositories."""
        return probe_of([r.folder for r in resources])

    @classmethod
    def states(cls, resources: Sequence[ModelRepository], answer: Output) -> Mapping[str, Repository]:
        """What is in each.

        :raises ValueError: as :func:`parse`.
        """
        found = parse(answer)
        return {r.id: found.get(r.folder, Repository()) for r in resources}

    def bare(self) -> Repository:
        return Repository()

    def change(self, state: Repository, planned: Planned) -> Change | None:
        """None.

        :raises Refusal: if the plan starts the instance, and Triton would not load a model; or would restart
            one that is up without its models.
        """
        found = [fault for fault in self._faults(state, planned) if fault.sure]
        if found and self._is_started(planned):
            least = "" if state.whole else "at least "
            more = f"; and {least}{len(found) - 1} more" if len(found) > 1 else ""
            raise Refusal(
                f"{self.unit} cannot start: {found[0]}{more}",
                hint="mend the model on the host, or the settings; what serves was left as it is",
            )
        if not self._is_restarted(planned) or self._are_brought(planned):
            return None
        gone = planned.positions((f"{Directory(self.folder).id}:create",))
        if gone and not planned.positions((models_signal(self.unit),)):
            raise Refusal(
                f"{self.unit} is up, and {self.folder} is not there: a restart would leave it without models",
                hint=f"bring the folder back with its models, or make an empty one on the host: mkdir -p"
                f" {quote(self.folder)}; what serves was left as it is",
            )
        named = self._named
        if named and not state.models:
            raise Refusal(
                f"{self.unit} is up, and would not get ready again: {self.folder} has no model,"
                f" and the settings name {', '.join(named)}",
                hint="bring the models back, or mount their folder; what serves was left as it is",
            )
        return None

    def notes(self, state: Repository, planned: Planned) -> Sequence[str]:
        """What the next start would meet, and that there is nothing to serve."""
        found = [f"{self.unit}: {warning(fault)}" for fault in self._faults(state, planned)]
        if state.models or self._are_brought(planned):
            return found
        if serves_nothing(self.instance):
            found.append(f"{self.unit}: {nothing_in(self.folder)}")
        elif named := self._named:
            found.append(
                f"{self.unit}: {self.folder} has no model, and a start would wait for {', '.join(named)}"
            )
        return found

    @property
    def _named(self) -> list[str]:
        return [model for model in named_models(self.instance) if model != CANARY_MODEL]

    def _is_started(self, planned: Planned) -> bool:
        return bool(planned.positions(self.starts)) or any(change.reboot for change in planned.changes)

    def _is_restarted(self, planned: Planned) -> bool:
        """Whether the plan stops an instance that is up; one that is down may wait for a mount."""
        comes_up = any(one.startswith("service:") and planned.positions((one,)) for one in self.starts)
        return bool(planned.positions(self.starts)) and not comes_up

    def _are_brought(self, planned: Planned) -> bool:
        """Whether the plan brings models, as a site's own role does."""
        return any(one.resource.partition(":")[2].startswith(f"{self.folder}/") for one in planned.changes)

    def _faults(self, state: Repository, planned: Planned) -> list[Fault]:
        if self._are_brought(planned):
            return []
        return faults(self.folder, self.instance, state, self.gpus)


def warning(fault: Fault) -> str:
    """What a fault means for an instance that serves."""
    if fault.sure:
        return f"it would not start again: {fault}"
    return f"{fault}, unless its Triton is newer than the one that this program knows"


def serves_nothing(instance: Instance) -> bool:
    """Whether an instance with an empty repository has nothing that it should serve."""
    return instance.expect is None and instance.loads in (None, ["*"])


def nothing_in(folder: str) -> str:
    """What is wrong with an empty repository."""
    return f"no model is in {folder} (expect: [] is for a server without)"
