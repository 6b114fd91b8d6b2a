"""The lab's container registry: Debian's docker-registry on the bridge, over plain HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lab.execute import execute
from lab.triton_image import Release

REPOSITORY = "nvidia/tritonserver"


def program(cache: Path) -> Path:
    """The registry's program, taken out of Debian's package.

    Installing the package would start a registry on every address of this machine.
    """
    place = cache / "tools" / "docker-registry"
    if not place.exists():
        folder = cache / "tools" / "download"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # apt downloads as the user _apt.
        shutil.chown(folder, "_apt")
        execute("env", f"--chdir={folder}", "apt-get", "download", "docker-registry")
        (package,) = folder.glob("*.deb")
        execute("dpkg-deb", "--extract", str(package), str(folder))
        (folder / "usr/bin/docker-registry").rename(place)
        shutil.rmtree(folder)
    return place


def configuration(storage: Path, address: str, htpasswd: Path | None = None) -> str:
    """A configuration file for ``docker-registry serve`` (JSON is YAML).

    :param htpasswd: a file with users and bcrypt's hashes of their passwords; None: nobody needs a login.
    """
    auth = {"auth": {"htpasswd": {"realm": "lab", "path": str(htpasswd)}}} if htpasswd else {}
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": address},
            **auth,
        },
        indent=2,
    )


def push_image(
    layout: Path, release: Release, registry: str, storage: Path, say: Callable[[str], None]
) -> None:
    """Put the tags of an OCI layout into the registry, unless its storage has exactly these already."""
    wanted = (layout / "index.json").read_text(encoding="utf-8")
    marker = storage / f"pushed-{release.name}.json"
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return
    for tag in release.tags:
        say(f"pushing {REPOSITORY}:{tag}")
        target = f"docker://{registry}/{REPOSITORY}:{tag}"
        execute(
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            f"oci:{layout}:{tag}",
            target,
        )
    marker.write_text(wanted, encoding="utf-8")
