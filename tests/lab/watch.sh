#!/bin/sh
# Keeps one host powered: boots it, and boots it again when it asked for a reboot.
# usage: watch.sh CGROUP MACHINE LINK systemd-nspawn ARGUMENT...
#
# systemd-nspawn reboots a host by itself only where /run is a tmpfs; elsewhere it refuses to empty its own folder
# there ("Attempted to remove disk file system") and ends with 133, the status by which a container asks for a reboot.
# Any other status is a power-off (0), a failed boot, or a power cut (above 128: a signal).
cgroup=$1 machine=$2 link=$3
shift 3
status=133
while [ "$status" -eq 133 ]; do
	rm -rf --one-file-system "/run/systemd/nspawn/propagate/$machine"
	ip link delete "$link" 2>/dev/null
	mkdir -p "$cgroup/boot"
	sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup/boot" "$@"
	status=$?
	echo 1 >"$cgroup/boot/cgroup.kill"
	while grep -q 'populated 1' "$cgroup/boot/cgroup.events"; do sleep 0.02; done
	find "$cgroup/boot" -depth -type d -exec rmdir {} \;
	echo "lab: boot ended with status $status"
done
exit "$status"
