# shellcheck shell=sh
# Builds a module with DKMS, and loads it; says how that ended, and who signed it.
mkdir -p /usr/src/small-1.0 && cd /usr/src/small-1.0 || exit
cat >small.c <<'END'
#include <linux/module.h>
static int __init start(void) { return 0; }
static void __exit end(void) { }
module_init(start); module_exit(end);
MODULE_LICENSE("GPL");
END
echo 'obj-m := small.o' >Makefile
cat >dkms.conf <<'END'
PACKAGE_NAME=small
PACKAGE_VERSION=1.0
BUILT_MODULE_NAME[0]=small
DEST_MODULE_LOCATION[0]=/updates
AUTOINSTALL=yes
END
dkms install small/1.0 >/dev/null || exit
modprobe small 2>&1
modinfo -F signer small
