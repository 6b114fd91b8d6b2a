"""Renews ``provision/gpu/advisories.tsv`` from a checkout of NVIDIA's security bulletins.

    git clone --depth 1 https://github.com/NVIDIA/product-security
    .venv/bin/python -m tools.refresh_advisories product-security

Each bulletin is a CSAF 2.0 document, ``YEAR/NUMBER/NUMBER.json``. Of its products only those count that the
product installs. Read the difference in git before you commit it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from provision.gpu.advisories import Advisory, number
from provision.gpu.triton_releases import releases

FILE = Path(__file__).resolve().parent.parent / "provision" / "gpu" / "advisories.tsv"

SINCE = 2023
"""First year whose bulletins are read: that of the first Triton release that the product knows."""

PRODUCTS = {
    "Triton Inference Server": "tritonserver",
    "NVIDIA Triton Inference Server": "tritonserver",
    "NVIDIA Container Toolkit": "nvidia-container-toolkit",
    "Tesla": "nvidia-driver",
}
"""Names of products in bulletins, and what we call them."""

VERSION = re.compile(r"\d+(?:\.\d+)+")
_NUMBERS = r"[vr]?(?P<{}>\d+(?:\.\d+)+)"
_SINCE, _LAST, _BEFORE = (_NUMBERS.format(name) for name in ("since", "last", "before"))
FORMS = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"All (?:\w+ )?versions? prior to {_BEFORE}",
        rf"All (?:\w+ )?versions? (?:up|prior) to and including {_LAST}",
        rf"{_SINCE}(?: to | through |\s*-\s*){_LAST}",
        r"[vr]?(?P<since>(?P<last>\d+(?:\.\d+)+))",
    )
)
"""How bulletins write which versions are affected; what stands in parentheses is left out."""


class UnreadableError(Exception):
    """A bulletin about one of our products says something that this program does not understand."""


@dataclass(frozen=True)
class Product:
    """Versions of a product, as a bulletin names them.

    :ivar group: platform and product, which affected and fixed versions share.
    """

    component: str
    group: str
    versions: str


def products(branches: Sequence[Mapping[str, Any]], platform: str = "") -> Iterator[tuple[str, Product]]:
    """The versions of our products in a product tree, by their ids."""
    for branch in branches:
        component = PRODUCTS.get(branch["name"], "")
        ours = component and (component != "nvidia-driver" or platform.startswith("Linux"))
        if branch["category"] == "product_version" and ours:
            found = branch["product"]
            yield found["product_id"], Product(component, f"{platform}: {branch['name']}", found["name"])
        yield from products(branch.get("branches", ()), branch["name"])


def advisories(document: Mapping[str, Any]) -> Iterator[Advisory]:
    """What a bulletin says of our products.

    :raises UnreadableError: if the versions of one cannot be told.
    """
    tracking = document["document"]["tracking"]
    known = dict(products(document["product_tree"].get("branches", ())))
    for vulnerability in document.get("vulnerabilities", ()):
        status = vulnerability.get("product_status", {})
        affected = [known[id_] for id_ in status.get("known_affected", ()) if id_ in known]
        fixed = [known[id_] for id_ in status.get("fixed", ()) if id_ in known]
        scores = [score["cvss_v3"]["baseScore"] for score in vulnerability.get("scores", ())]
        for product in affected:
            since, until = span(product, [other.versions for other in fixed if other.group == product.group])
            yield Advisory(
                product.component,
                vulnerability["cve"],
                since,
                until,
                max(scores, default=0.0),
                tracking["id"],
                tracking["initial_release_date"][:10],
                " ".join(product.versions.split()),
            )


def span(product: Product, fixed: Sequence[str]) -> tuple[str, str]:
    """The first version that is affected (empty: any) and the first that is not (empty: none is known).

    :raises UnreadableError: if the versions are in no known form.
    """
    text = " ".join(re.sub(r"\(.*?\)", "", product.versions).split())
    found = next((match for form in FORMS if (match := form.fullmatch(text))), None)
    if found is None:
        raise UnreadableError(f"{product.group}: affected are {product.versions!r}, in no known form")
    named = {key: _release(product, version) for key, version in found.groupdict().items()}
    since = f"{named_branch(found)}.0" if product.component == "nvidia-driver" else named.get("since", "")
    if "before" in named:
        return since, named["before"]
    last = named["last"]
    versions = (_release(product, version) for other in fixed for version in VERSION.findall(other))
    later = sorted((version for version in versions if number(version) > number(last)), key=number)
    return since if any(number(since)) else "", later[0] if later else ""


def named_branch(found: re.Match[str]) -> str:
    """The driver branch of the last version of an affected range."""
    return (found.groupdict().get("before") or found["last"]).partition(".")[0]


def _release(product: Product, version: str) -> str:
    """A version of Triton's server as the release of its container; any other as it is."""
    if product.component == "tritonserver" and number("1") < number(version) < number("10"):
        return next(
            (name for name, found in releases().items() if found.server.value == f"{version}.0"), version
        )
    return version


def table(folder: Path) -> str:
    """The whole file, from a checkout.

    :raises UnreadableError: naming the bulletin.
    """
    found: dict[tuple[str, str, str], Advisory] = {}
    newest = ""
    for file in sorted(folder.glob("20*/*/*.json")):
        if file.stem != file.parent.name or int(file.parent.parent.name) < SINCE:
            continue
        document = json.loads(file.read_text("utf-8"))
        newest = max(newest, document["document"]["tracking"]["initial_release_date"][:10])
        try:
            for one in advisories(document):
                # A bulletin that repeats an earlier one adds nothing.
                found.setdefault((one.component, one.cve, one.fixed), one)
        except (UnreadableError, LookupError) as error:
            raise UnreadableError(f"{file}: {error}") from error
    head = (
        "# Known vulnerabilities of what we install: NVIDIA's security bulletins (NVIDIA/product-security).\n"
        f"# Written by tools/refresh_advisories.py. Newest bulletin: {newest}.\n"
        f"{chr(9).join(field.name for field in fields(Advisory))}\n"
    )
    rows = sorted(found.values(), key=lambda one: (one.component, number(one.fixed), one.bulletin, one.cve))
    return head + "".join("\t".join(map(str, astuple(row))) + "\n" for row in rows)


def main(argv: Sequence[str]) -> int:
    """Write the file; exit code 2 if the checkout holds no bulletins, or one cannot be read."""
    folder = Path(argv[0]) if len(argv) == 1 else None
    if folder is None or not any(folder.glob("20*/*/*.json")):
        sys.stderr.write("usage: python -m tools.refresh_advisories CHECKOUT-OF-NVIDIA/product-security\n")
        return 2
    try:
        FILE.write_text(table(folder), "utf-8")
    except UnreadableError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
