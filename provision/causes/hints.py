"""Known messages of failed commands, and what to do about them."""

from __future__ import annotations

import re

HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Key was rejected by service|Required key not available|module verification failed",
        "Secure Boot refuses the module: take signed packages, or mokutil --import /var/lib/dkms/mok.pub,"
        " reboot and confirm on the console",
    ),
    (
        r"reboot needed: kernel module",
        "stop what uses the GPUs and run again, or reboot: until then module and libraries do not fit",
    ),
    (
        r"[Dd]river/library version mismatch",
        "the module that runs is of another version than the libraries: inv plan shows the reload or reboot",
    ),
    (r"nouveau is loaded", "reboot the host: nouveau is blacklisted now, and its initramfs rebuilt"),
    (
        r"modprobe: FATAL: Module nvidia(-current(-open)?|-tesla\S*)? not found",
        "the module was not built for the running kernel: see dkms status, and install the kernel's headers",
    ),
    (
        r"Unable to locate package \w+-headers-|No match for argument: kernel-\S*devel|"
        r"Unable to find a match: kernel-\S*devel",
        "no repository has the headers of this kernel any more: install the newest kernel, reboot into it,"
        " and run again",
    ),
    (
        r"reboot needed: \S+ cannot be installed",
        "run again with --reboot: the driver is there for the kernel that the host boots next",
    ),
    (
        r"Unable to locate package linux-modules-nvidia-",
        "the repository has no ready modules for this kernel: install the newest, or set prebuilt: false",
    ),
    (
        r"the headers of kernel \S+ are missing|kernel headers for kernel \S+ cannot be found",
        "install the headers of that kernel, or boot one that has them: modules are built against headers",
    ),
    (
        r"gcc(-\d+)?: (command )?not found|gcc-\d+: No such file",
        "the kernel was built with a compiler that the host lacks: install that version of gcc",
    ),
    (
        r"GPL-incompatible module \S+ uses GPL-only symbol",
        "the proprietary modules cannot be built for this kernel: flavour: open, or a newer version",
    ),
    (
        r"Bad return status for module build|bad exit status: \d+",
        "the driver does not compile for this kernel: take a newer version of its branch, or an older kernel",
    ),
    (
        r"/boot/\S+ is older than",
        "the initramfs is not rebuilt here: see update-initramfs.conf(5), and whether /boot can be written",
    ),
    (
        r"another package operation is under way|Could not get lock|is another process using it",
        "let that process end, or look what it waits for, and run again",
    ),
    (
        r"which the plan did not show",
        "look at the new plan: inv plan shows now what would be removed",
    ),
    (
        r"is held by somebody",
        "end the hold if the package may move, or choose a version that goes with it",
    ),
    (
        r"SHA1 is not considered secure|Policy rejected",
        "the system refuses this old kind of signature: use a repository that is signed with a newer one",
    ),
    (
        r"NO_PUBKEY|is not signed|BADSIG|EXPKEYSIG|Missing key|Bad GPG signature|GPG check FAILED",
        "the repository is signed by another key than the one in the settings: check key and fingerprint",
    ),
    (
        r"Conflicting values set for option Signed-By",
        "an older source file names the same repository: remove it",
    ),
    (
        r"Release file .* (is expired|is not valid yet)",
        "the mirror is no longer updated, or the host's clock is wrong: see timedatectl",
    ),
    (
        r"Hash Sum mismatch|File has unexpected size|[Cc]hecksum doesn't match",
        "the mirror is being updated or broken: try again, or choose another",
    ),
    (
        r"does not have a Release file|404 +Not Found|Status code: 404",
        "the server has no such repository or file: check uri and suite in the settings",
    ),
    (
        r"(Could not|Unable to|Couldn't) connect|Temporary failure resolving|Could(n't| not) resolve host|"
        r"Connection (refused|timed out)|Timeout was reached",
        "the host cannot reach the server: check the mirror's address, the route and the proxy",
    ),
    (
        r"No space left on device|don't have enough free space|more space needed on the",
        "the disk is full: see df -h on the host",
    ),
    (
        r"needs to be reinstalled, but I can't find an archive",
        "its installation was cut: dpkg --remove --force-remove-reinstreq PACKAGE, and run again",
    ),
    (
        r"All matches were filtered out",
        "a lock or another module stream hides it: see dnf versionlock list and dnf module list",
    ),
    (
        r"(Unable to locate package |Package ')(libcuda1|nvidia-smi|(lib)?nvidia-tesla-|nvidia-\S+-server)",
        "the archive has it in components that apt's sources have to name: on Debian contrib, non-free and"
        " non-free-firmware, on Ubuntu restricted and multiverse",
    ),
    (
        r"Version '.*' for '.*' was not found",
        "the repository does not have this version: see apt-cache policy",
    ),
    (
        r"Unable to locate package|no installation candidate|Unable to find a match|"
        r"missing groups or modules",
        "no configured repository has this package: check repo in the settings",
    ),
    (
        r"[Uu]nmet dependencies|held broken packages|caused by held packages|conflicting requests",
        "other versions stand in the way: see apt-cache policy, or dnf list, of the packages named",
    ),
    (
        r"error processing package|scriptlet failed",
        "a package's own script failed: what it printed is above, or in the log of the step on the host",
    ),
    (
        r"manifest unknown|not found: manifest",
        "the registry does not have this tag: check the image in the settings",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP: add it to docker.daemon insecure-registries",
    ),
    (
        r"error setting rlimit type",
        "the host does not allow raising this limit: set ulimits: {} for the instance",
    ),
    (
        r"could not select device driver",
        "dockerd was started before the toolkit was installed: restart docker.service",
    ),
    (r"unknown or invalid runtime name: nvidia", "dockerd has not loaded daemon.json: reload docker.service"),
    (r"port is already allocated|address already in use", "another process has the port: choose another"),
)
"""Regular expression on the last lines of output, and its hint; the first that matches counts."""


def hint_for(output: str) -> str | None:
    """The hint for the output of a failed command, or None."""
    return next((hint for pattern, hint in HINTS if re.search(pattern, output)), None)
