"""Names and numbers of GPUs in the resources of a container, as the API reads them. Pure.

A quantity is a number with a suffix or an exponent (apimachinery, ``resource.Quantity``). Of GPUs the API
takes whole numbers (https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/).
"""

from __future__ import annotations

import difflib
import re
from fractions import Fraction

from provision.inventory.values import Value

GPU = "nvidia.com/gpu"

MOST = 1024
"""More GPUs than any node has, shared ones too."""

_MIG = re.compile(r"nvidia\.com/mig-\d+g\.\d+gb(\.[a-z][a-z0-9.]*)?", re.ASCII)
_NAMES = re.compile(r"nvidia\.com/(gpu(\.shared)?|pgpu)", re.ASCII)
_SAID_GPU = re.compile(r"(alphakubernetesio)?(nvidia(com)?)?gpus?")
_SUFFIXES = {suffix: Fraction(10) ** (3 * power) for power, suffix in enumerate(("n", "u", "m", ""), -3)}
_SUFFIXES |= {suffix: Fraction(1000) ** power for power, suffix in enumerate("kMGTPE", 1)}
_SUFFIXES |= {f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"([+-]?\d{1,18}(?:\.\d{0,9})?)(?:([A-Za-z]{0,2})|[eE]([+-]?\d))", re.ASCII)


class QuantityError(ValueError):
    """Why a quantity asks for no whole number of GPUs; half a sentence."""


def is_mig(name: str) -> bool:
    """Whether a resource is MIG devices of one profile."""
    return _MIG.fullmatch(name) is not None


def is_gpu(name: str) -> bool:
    """Whether a resource is GPUs of NVIDIA's device plugin, or parts of them."""
    return _NAMES.fullmatch(name) is not None or is_mig(name)


def meant(name: str) -> str | None:
    """The resource that a name misspells; None where it is right, or means something else."""
    if is_gpu(name):
        return None
    plain = name.strip().lower()
    if re.match(r"(nvidia\W?com\W)?mig\W", plain):
        return "nvidia.com/mig-1g.10gb"
    if _SAID_GPU.fullmatch(re.sub(r"[^a-z]", "", plain)):
        return GPU
    close = abs(len(plain) - len(GPU)) <= 1 and difflib.SequenceMatcher(None, plain, GPU).ratio() >= 0.9
    return GPU if close else None


def count(value: Value) -> int:
    """How many GPUs a quantity is.

    :raises QuantityError: if it is none of them, or no whole number of them.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise QuantityError("is no number")
    number = _number(value)
    if number.denominator != 1:
        raise QuantityError("is no whole number, and GPUs cannot be divided")
    if number < 0:
        raise QuantityError("is less than none")
    if number > MOST:
        raise QuantityError("is more than any node has")
    return int(number)


def _number(value: float | str) -> Fraction:
    if isinstance(value, int):
        return Fraction(max(-1, min(value, MOST + 1)))
    if isinstance(value, float):
        if value != value or abs(value) > MOST:  # noqa: PLR0124  # not a number
            raise QuantityError("is no number of GPUs")
        return Fraction(value)
    found = _QUANTITY.fullmatch(value)
    if found is None or (found[2] or "") not in _SUFFIXES:
        raise QuantityError("is no number")
    return Fraction(found[1]) * _SUFFIXES[found[2] or ""] * Fraction(10) ** int(found[3] or 0)
