"""Messages of apt, dpkg and dnf, and of the network and the disk below them."""

from __future__ import annotations

from provision.causes.message import Message

PACKAGES: tuple[Message, ...] = (
    Message(
        r"another package operation is under way|Could not get lock|is another process using it",
        "wait until that process has ended, then run again",
    ),
    Message(
        r"which the plan did not show",
        "see the new plan, which shows what would be removed: inv plan --hosts HOST",
    ),
    Message(
        r"is held (at \S+ )?by ",
        "release the hold if the package may change, or choose a version that agrees with it",
    ),
    Message(
        r"SHA1 is not considered secure|Policy rejected",
        "the system rejects this old kind of signature: use a repository that is signed with a newer one",
    ),
    Message(
        r"NO_PUBKEY|is not signed|BADSIG|EXPKEYSIG|Missing key|Bad GPG signature|GPG check FAILED",
        "the repository is signed by another key than the one in the settings: check key and fingerprint",
    ),
    Message(
        r"Conflicting values set for option Signed-By",
        "an older source file names the same repository: remove it",
    ),
    Message(
        r"Release file .* (is expired|is not valid yet)",
        "the mirror is no longer updated, or the host's clock is wrong: see timedatectl",
    ),
    Message(
        r"Hash Sum mismatch|File has unexpected size|[Cc]hecksum doesn't match",
        "the mirror is being updated or is damaged: try again, or choose another",
    ),
    Message(
        r"does not have a Release file|404 +Not Found|Status code: 404",
        "the server has no such repository or file: check uri and suite in the settings",
    ),
    Message(
        r"(Could not|Unable to|Couldn't) connect|Temporary failure resolving|Could(n't|"
        r" not) resolve host|Connection (refused|timed out)|Timeout was reached",
        "the host cannot reach the server: check the mirror's address, the route and the proxy",
    ),
    Message(
        r"No space left on device|don't have enough free space|more space needed on the",
        "the disk is full: see df -h on the host",
    ),
    Message(
        r"needs to be reinstalled, but I can't find an archive",
        "its installation was interrupted: dpkg --remove --force-remove-reinstreq PACKAGE, then run again",
    ),
    Message(
        r"All matches were filtered out",
        "a version lock or a module stream hides the package: see dnf versionlock list and dnf module list",
    ),
    Message(
        r"(Unable to locate package |Package ')(libcuda1|nvidia-smi|(lib)?nvidia-tesla-|"
        r"nvidia-\S+-server)",
        "the archive has it in a component that apt's sources do not name: contrib, non-free and "
        "non-free-firmware on Debian, restricted and multiverse on Ubuntu",
    ),
    Message(
        r"Version '.*' for '.*' was not found",
        "the repository does not have this version: see apt-cache policy",
    ),
    Message(
        r"Unable to locate package|no installation candidate|Unable to find a match|"
        r"missing groups or modules",
        "no configured repository has this package: check repo in the settings",
    ),
    Message(
        r"[Uu]nmet dependencies|held broken packages|caused by held packages|conflicting requests",
        "other versions stand in the way: see apt-cache policy (or dnf list) of the packages named",
    ),
    Message(
        r"error processing package|scriptlet failed",
        "a package's own script failed: see its output above, or the log of this step on the host",
    ),
)
