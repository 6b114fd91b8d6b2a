"""What a failed command's output means: the table of all known messages, and the questions to it."""

from __future__ import annotations

import re

from provision.causes.message import Message
from provision.probe import Output

NO_PROCESS = r"task [0-9a-f]{64} not found|no running task found|\bcontainer is not running"
"""When Docker takes a container for running whose process is gone; where it knows, its message has the id."""

_NO_GPU = Message(
    r'"nvidia-smi": executable file not found|nvidia-smi: not found',
    "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES",
    "the container was started without a GPU",
)

KNOWN_MESSAGES = (
    # What ends a step whatever it was doing.
    Message(
        r"(?m)^the host is being shut down or rebooted$",
        "run again when the host is back; on it, last -x shows who went down with it, and when",
        "the host is being shut down or rebooted, which ended the step",
    ),
    # The driver's kernel modules: building, signing and loading them.
    Message(
        r"Key was rejected by service|Required key not available|module verification failed",
        "Secure Boot refuses the module: install signed packages, or run mokutil --import "
        "/var/lib/dkms/mok.pub, reboot and confirm on the console",
    ),
    Message(
        r"reboot needed: kernel module",
        "stop the programs that use the GPUs and run again, or reboot: until then the loaded "
        "module and the libraries have different versions",
    ),
    Message(
        r"[Dd]river/library version mismatch|DRIVER_LIBRARY_VERSION_MISMATCH",
        "inv plan --hosts {host} shows why: a reload or a reboot is due, or a library is of no package",
        "the loaded kernel module and the driver's libraries are of different versions",
    ),
    Message(
        r"nouveau is loaded",
        "reboot the host: nouveau is now blacklisted and the initramfs rebuilt",
    ),
    Message(
        r"modprobe: FATAL: Module nvidia(-current(-open)?|-tesla\S*)? not found",
        "the module was not built for the running kernel: see dkms status, and install the kernel's headers",
    ),
    Message(
        r"Unable to locate package \w+-headers-|No match for argument: kernel-\S*devel|"
        r"Unable to find a match: kernel-\S*devel",
        "no repository has the headers of this kernel any more: install the newest kernel, reboot "
        "into it, and run again",
    ),
    Message(
        r"reboot needed: \S+ cannot be installed",
        "run again with --reboot: the kernel that the host boots next has the driver",
    ),
    Message(
        r"Unable to locate package linux-modules-nvidia-",
        "the repository has no prebuilt modules for this kernel: install the newest kernel, or set "
        "prebuilt: false",
    ),
    Message(
        r"the headers of kernel \S+ are missing|kernel headers for kernel \S+ cannot be found",
        "install the headers of that kernel, or boot a kernel that has them: modules are built "
        "against headers",
    ),
    Message(
        r"gcc(-\d+)?: (command )?not found|gcc-\d+: No such file",
        "the kernel was built with a gcc that is not installed: install that version of gcc",
    ),
    Message(
        r"GPL-incompatible module \S+ uses GPL-only symbol",
        "the proprietary modules cannot be built for this kernel: set flavour: open, or choose a "
        "newer version",
    ),
    Message(
        r"Bad return status for module build|bad exit status: \d+",
        "the driver does not compile for this kernel: choose a newer version of its branch, or "
        "boot an older kernel",
    ),
    Message(
        r"/boot/\S+ is older than",
        "the initramfs was not rebuilt: see update-initramfs.conf(5), and check that /boot can be written",
    ),
    Message(
        NO_PROCESS,
        "Docker takes a container for running whose process is gone, as when containerd's shim was killed: on"
        " the host, systemctl restart its unit, or docker restart it",
        "its process is gone, and Docker does not know",
    ),
    Message(
        r"[Cc]ontainer [0-9a-f]{12,64} is not running",
        "on the host, systemctl restart its unit, or docker restart it",
        "the container is not running",
    ),
    # Registries, before the messages of the network and the disk that are part of theirs.
    Message(
        r"no basic auth credentials|authentication required|unauthorized: |denied: requested access",
        "the registry wants a login, or rejects the one that it got: triton.registry_logins in the settings; "
        "or on the host, as root: docker login REGISTRY",
    ),
    Message(
        r"needs \S+ GB, and \S+ GB are free in ",
        "on the host, docker system df shows what takes the room: remove images that no unit needs, or give "
        "that folder a larger file system; dockerd's own is data-root in docker.daemon",
    ),
    Message(
        r"nothing of \S+ was loaded: ",
        "make the archive anew, with the image as the settings name it and no other: docker save -o "
        "NAME-TAG.tar IMAGE",
    ),
    Message(
        r"proxyconnect tcp|Proxy Authentication Required",
        "dockerd's proxy does not let it through: see http-proxy and https-proxy in daemon.json and in the "
        "environment of docker.service",
    ),
    Message(
        r"no matching manifest for|exec format error",
        "the image has nothing for this host's architecture: choose another tag",
    ),
    Message(
        r"shared memory (key|region|object)|shm_open|--shm-size",
        "the instance has too little shared memory: raise shm_size",
    ),
    # apt, dpkg and dnf, and the network and the disk below them.
    Message(
        r"another package operation is under way|Could not get lock|is another process using it",
        "wait until that process has ended, then run again",
    ),
    Message(
        r"which the plan did not show",
        "see the new plan, which shows what would be removed: inv plan --hosts {host}",
    ),
    Message(
        r"is held (at \S+ )?by ",
        "release the hold if the package may change, or choose a version that agrees with it",
    ),
    Message(
        r"the host could not fetch the key",
        "the host must reach this address, on a mirror too; or give repo: uri, key, fingerprint",
    ),
    Message(
        r"the key of \S+ has fingerprint|something else than an ASCII-armoured key|no whole OpenPGP key",
        "the file must be the publisher's: check the mirror; for a new key give repo: uri, key, fingerprint",
    ),
    Message(
        r"SHA1 is not considered secure|Policy rejected",
        "the system rejects this old kind of signature: use a repository that is signed with a newer one",
    ),
    Message(
        r"EXPKEYSIG|KEYEXPIRED|[Kk]ey( \S+)? (is|has) expired|Expired on |REVKEYSIG",
        "the key is no longer valid: give the publisher's current one in repo: key, fingerprint",
    ),
    Message(
        r"NO_PUBKEY|Missing key|Bad GPG signature|GPG check FAILED",
        "the repository is signed by another key than the one in the settings: check key and fingerprint",
    ),
    Message(
        r"BADSIG",
        "the repository does not match its signature: try again, or choose another mirror",
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
        r"is not signed",
        "the repository has no signature that the host accepts: check uri and suite in the settings",
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
        r"[Nn]o space left on device|don't have enough free space|more space needed on the",
        "the disk is full: see df -h and df -i on the host, which show /run and /tmp too",
    ),
    Message(r"(echo|printf): I/O error", "the disk is full, or it fails: df -h, df -i and dmesg on the host"),
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
    # Docker, the NVIDIA Container Toolkit and nvidia-smi, on the host and in containers. Those with a cause
    # were seen on a host with an H100, driver 580.159.04, toolkit 1.20.0 and Docker 26.1.
    Message(
        r"no progress in \d+ s: the (pull|load) of",
        "the registry, the archive or the way to it went silent: run again; layers that a pull has brought "
        "are kept",
    ),
    Message(
        r"@sha256:[0-9a-f]+ not found|@sha256:[0-9a-f]+: not found",
        "the registry has no image with this digest, whatever its tag is: check the image in the settings",
    ),
    Message(
        r"manifest unknown|not found: manifest",
        "the registry does not have this tag: check the image in the settings",
    ),
    Message(
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP: add it to docker.daemon insecure-registries",
    ),
    Message(
        r"received unexpected HTTP status: 5\d\d",
        "the registry itself is at fault: see its log, or run again later",
    ),
    Message(
        r"curl is not installed, which would fetch",
        "install curl on the host, or give a folder of the host in triton.images",
    ),
    Message(r"zstd is not installed, which would read", "install zstd on the host, or make a .tar.gz"),
    Message(
        r"error setting rlimit type",
        "the host does not allow raising this limit: set ulimits: {} for the instance",
    ),
    Message(
        r"cannot assign requested address",
        "the host does not have this address: check address in the settings; on the host: ip address",
    ),
    Message(
        r"port is already allocated|address already in use",
        "another process uses the port: on the host, ss -ltnp shows which; stop that, or choose another port",
    ),
    Message(
        r"(?<!NVML_)ERROR_LIBRARY_NOT_FOUND|couldn't find libnvidia-ml\.so",
        "provision again: inv provision --hosts {host} --roles driver",
        "the host has no libnvidia-ml.so.1",
    ),
    Message(
        r"libnvidia-ml\.so\.1: cannot open|NVMLError_LibraryNotFound|NVML Shared Library Not Found",
        "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES: inv "
        "provision --hosts {host} --roles toolkit,docker",
        "the container was started without the driver's libraries",
    ),
    Message(
        r"printed (more than \d+ MiB|a line of more than \d+ KiB)",
        "on the host: type -a nvidia-smi docker shows which programs answer; take away one that no package "
        "brought, then inv provision --hosts {host}",
        "it prints without end",
    ),
    Message(
        r"nvidia-smi \(process \d+\) has hung in the kernel",
        "reboot the host, which alone ends such a process; for its cause: dmesg | grep -i -e nvrm -e xid",
        "an earlier nvidia-smi has hung in the driver",
    ),
    Message(
        r"GPU is lost|Unable to determine the device handle",
        "reboot the host, then look at the slot and the power of that GPU; on the host: dmesg | grep -i xid",
        "a GPU is lost: it fell off the bus",
    ),
    Message(
        r"couldn't communicate with the NVIDIA driver|ERROR_DRIVER_NOT_LOADED",
        "on the host: modprobe nvidia; dkms status; dmesg | grep -i -e nvrm -e 'key was rejected'",
        "the kernel module nvidia is not loaded, or its device nodes are missing",
    ),
    Message(
        r'"?nvidia-container-runtime"?: executable file not found',
        "provision again: inv provision --hosts {host} --roles toolkit,docker",
        "the NVIDIA Container Toolkit is not installed",
    ),
    Message(
        r"unknown or invalid runtime name: nvidia",
        "reload docker.service, which reads daemon.json; else inv provision --hosts {host} --roles docker",
        "dockerd does not know the runtime nvidia",
    ),
    Message(
        r"could not select device driver",
        "restart docker.service",
        "dockerd was started before the toolkit was installed",
    ),
    Message(
        r"failed to get device handle from (index|UUID)",
        "compare gpus: in the settings with nvidia-smi -L",
        "a GPU that was asked for is not on this host",
    ),
    _NO_GPU,
    Message(
        r"Failed to initialize NVML: Unknown Error",
        "restart its unit; keep mode = auto in /etc/nvidia-container-runtime/config.toml",
        "the container has lost its devices: in the toolkit's legacy mode, systemctl daemon-reload "
        "takes them away",
    ),
    Message(
        r"Insufficient Permissions",
        "set NVreg_DeviceFileMode back to 0666, or add the user to their group",
        "this user may not open the device nodes /dev/nvidia*",
    ),
    Message(
        r"[Nn]o devices (were )?found",
        "see why the driver rejected it, on the host: dmesg | grep -i nvrm",
        "the driver shows no GPU",
    ),
    Message(
        r"No such image|Unable to find image",
        "provision again: inv provision --hosts {host} --roles triton",
        "the image is not on the host",
    ),
    Message(
        r"Cannot connect to the Docker daemon|docker daemon running",
        "on the host: journalctl -u docker.service -n 50",
        "dockerd is not running",
    ),
    Message(
        r"did not receive an exit event|endpoint with name \S+ already exists in network",
        "on the host: systemctl start containerd.service; systemctl restart docker.service, which stops "
        "containers without live-restore",
        "dockerd has lost a container, as without containerd",
    ),
    Message(
        r"nvidia-smi\S*: Permission denied",
        "on the host: chmod 755 /usr/bin/nvidia-smi",
        "nvidia-smi is not executable",
    ),
    Message(
        r"nvidia-smi.*(not found|No such file)",
        "provision again: inv provision --hosts {host} --roles driver",
        "nvidia-smi is not installed",
    ),
    Message(
        r"failed to run command .*No such file",
        "provision again: inv provision --hosts {host}",
        "it is not installed",
    ),
    Message(
        r"; the previous version (serves again|is back, and does not|could not be put back)",
        "mend what the new version said, and run again: inv plan --hosts {host} shows the change as before",
    ),
)
"""In order: the first row that matches counts."""


def hint_for(text: str) -> str | None:
    """The hint for the output of a failed command, or None."""
    return next((row.hint for row in KNOWN_MESSAGES if re.search(row.pattern, text)), None)


def cause(output: Output) -> tuple[str, str | None]:
    """Why a command failed, in a few words, and a hint where one is known."""
    text = f"{output.out}\n{output.err}"
    if output.exit_code == 137:
        return "it was killed: out of memory, or over its time limit", "on the host: dmesg | tail"
    if output.exit_code == 124:
        return (
            "it did not answer in time",
            "on the host: dmesg | tail; a GPU that fell off the bus (Xid 79) blocks the programs that use it",
        )
    for row in KNOWN_MESSAGES:
        if row.cause and re.search(row.pattern, text):
            return row.cause, row.hint
    said = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    return f"exit {output.exit_code}: {said[-1][:300]}", hint_for(text)


def cause_inside(output: Output) -> tuple[str, str | None]:
    """As :func:`cause`, for a program in a container: one that is missing there was not given to it."""
    return (_NO_GPU.cause, _NO_GPU.hint) if output.exit_code == 127 else cause(output)
