#!/bin/sh
# Turns a fresh root file system into a bare server, as a provider hands it over. Run by mmdebstrap: $1 is the root.
set -eu
root=$1

# The account of a cloud image: a key (added for each host), no password, sudo.
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo admin
chroot "$root" usermod --password '*' admin
install -d -m 700 "$root/home/admin/.ssh"
chroot "$root" chown -R admin:admin /home/admin/.ssh
cat >"$root/etc/ssh/sshd_config.d/10-server.conf" <<'END'
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
END
rm -f "$root"/etc/ssh/ssh_host_*

install -d "$root/usr/lib/systemd/system/sysinit.target.wants" "$root/usr/share/lab-gpu"

# The GPUs' bus: systemd-nspawn mounts the machine's own sysfs, so ours has to come on top of it at every boot.
cat >"$root/usr/lib/systemd/system/sys-bus-pci-devices.mount" <<'END'
[Unit]
Description=The PCI bus of this server
DefaultDependencies=no
Before=sysinit.target
[Mount]
What=/usr/share/lab-gpu/pci
Where=/sys/bus/pci/devices
Type=none
Options=bind,ro
END
ln -s ../sys-bus-pci-devices.mount "$root/usr/lib/systemd/system/sysinit.target.wants/"

# A kernel loads nouveau for NVIDIA's GPUs when it boots, unless the administrator has it blacklisted; servers of this
# lab do so where their hardware's description says so.
cat >"$root/usr/lib/systemd/system/load-nouveau.service" <<'END'
[Unit]
Description=The kernel loads nouveau
DefaultDependencies=no
After=sys-bus-pci-devices.mount
Before=sysinit.target systemd-modules-load.service
[Service]
Type=oneshot
ExecCondition=grep -q '"nouveau"' /usr/share/lab-gpu/gpus.json
ExecCondition=sh -c '! modprobe --showconfig | grep -q "^blacklist nouveau"'
ExecStart=mkdir -p /sys/module/nouveau/holders
ExecStart=sh -c 'echo live >/sys/module/nouveau/initstate; echo 1 >/sys/module/nouveau/refcnt'
END
ln -s ../load-nouveau.service "$root/usr/lib/systemd/system/sysinit.target.wants/"

# systemd-networkd waits for udev where /sys is writable, and there is no udev in a container: show it a read-only /sys.
install -d "$root/usr/lib/systemd/system/systemd-networkd.service.d"
printf '[Service]\nBindReadOnlyPaths=/sys\n' >"$root/usr/lib/systemd/system/systemd-networkd.service.d/container.conf"
chroot "$root" systemctl enable systemd-networkd.service

# Timers would take apt's lock at moments of their own; the kernel's file systems are the machine's, not the host's.
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount dev-hugepages.mount
chroot "$root" systemctl set-default multi-user.target

# What names this machine or its mirrors goes; each host gets its own.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root/etc/apt/apt.conf.d/99mmdebstrap"
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
