#!/bin/sh
# Keeps one host powered: boots it, and boots it again when it asked for a reboot.
# usage: watch.sh CGROUP MACHINE LINK systemd-nspawn ARGUMENT...
#
# systemd-nspawn reboots a host by itself only where /run is a tmpfs; elsewhere it refuses to empty its own folder
# there ("Attempted to remove disk file system"), and ends with status 1. Status 0 is a power-off; anything above 128
# is a signal, that is a power cut.
cgroup=$1 machine=$2 link=$3
shift 3
short=0
while :; do
	rm -rf --one-file-system "/run/systemd/nspawn/propagate/$machine"
	ip link delete "$link" 2>/dev/null
	mkdir -p "$cgroup/boot"
	started=$(date +%s)
	sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup/boot" "$@"
	status=$?
	echo 1 >"$cgroup/boot/cgroup.kill"
	while grep -q 'populated 1' "$cgroup/boot/cgroup.events"; do sleep 0.02; done
	find "$cgroup/boot" -depth -type d -exec rmdir {} \;
	echo "lab: boot ended with status $status"
	[ "$status" -eq 1 ] || exit "$status"
	# A host that ends at once, time after time, cannot boot at all.
	if [ $(($(date +%s) - started)) -gt 1 ]; then short=0; else short=$((short + 1)); fi
	[ "$short" -lt 5 ] || exit 1
done
