#!/bin/sh
# Turns a fresh root file system into the disk of a cloud image with Secure Boot. Run by mmdebstrap: $1 is the root, $2 the
# identifier of its file system, $3 that of the boot partition, the rest are packages of a newer kernel, to be upgraded to.
set -eu
root=$1 system=$2 boot=$3
shift 3

mkdir -p "$root/srv/newer-kernel" "$root/boot/efi" "$root/boot/grub"
(cd "$root/srv/newer-kernel" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download "$@")

cat >"$root/etc/fstab" <<END
UUID=$system / ext4 errors=remount-ro 0 1
UUID=$boot /boot/efi vfat umask=0077 0 1
END

cat >"$root/etc/default/grub" <<'END'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=ttyS0 net.ifnames=0"
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
END

# The first menu; update-grub on the machine itself writes all later ones.
kernel=$(basename "$root"/boot/vmlinuz-*)
cat >"$root/boot/grub/grub.cfg" <<END
search --no-floppy --fs-uuid --set=root $system
linux /boot/$kernel root=UUID=$system ro console=ttyS0 net.ifnames=0
initrd /boot/initrd.img-${kernel#vmlinuz-}
boot
END

# Cloud images ask one source only, and leave the wait for a network to what needs one.
printf 'datasource_list: [NoCloud, None]\n' >"$root/etc/cloud/cloud.cfg.d/90-source.cfg"
chroot "$root" systemctl enable systemd-networkd.service
chroot "$root" systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer \
	e2scrub_all.timer
chroot "$root" systemctl set-default multi-user.target

# What names this machine or its mirrors goes.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root/etc/apt/apt.conf.d/99mmdebstrap"
rm -f "$root/etc/resolv.conf" "$root/etc/hostname" "$root"/etc/ssh/ssh_host_* "$root"/var/cache/apt/archives/*.deb
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
