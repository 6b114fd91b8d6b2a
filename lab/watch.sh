#!/bin/sh
# Keeps one host powered: boots it, and boots it again when it asked for a reboot.
# usage: watch.sh CGROUP MACHINE LINK REFUSAL systemd-nspawn ARGUMENT...
#
# While the file REFUSAL is there, a host that asked for a reboot stays off.
#
# systemd-nspawn reboots a host by itself only where /run is a tmpfs; elsewhere it refuses to empty its own folder
# there ("Attempted to remove disk file system") and ends with 133, the status by which a container asks for a reboot.
# Any other status is a power-off (0), a failed boot, or a power cut (above 128: a signal).
cgroup=$1 machine=$2 link=$3 refusal=$4
shift 4
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
	while [ "$status" -eq 133 ] && [ -e "$refusal" ]; do sleep 0.1; done
done
exit "$status"
