"""Messages about the driver's kernel modules: building, signing and loading them."""

from __future__ import annotations

from provision.causes.message import Message

DRIVER: tuple[Message, ...] = (
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
        "reboot the host, which loads the module of the installed version; or see inv plan --hosts HOST",
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
)
