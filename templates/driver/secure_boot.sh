# shellcheck shell=sh
# needs: driver/kernels.sh
# Secure Boot.

# secure_boot_keys: who may sign modules, and whether DKMS's key is one of them.
# The key is the one that dkms takes: of its configuration; shim's own, which Ubuntu makes; or its own.
secure_boot_keys() {
  read -r forced 2>/dev/null </sys/module/module/parameters/sig_enforce
  read -r lockdown 2>/dev/null </sys/kernel/security/lockdown
  echo "enforce=${forced:-?} ${lockdown:-?}"
  key=
  for file in /etc/dkms/framework.conf /etc/dkms/framework.conf.d/*.conf; do
    [ ! -r "$file" ] || while read -r line || [ -n "$line" ]; do
      case $line in mok_certificate=*) key=${line#*=} key=${key#[\"\']} key=${key%%[\"\']*} ;; esac
    done <"$file"
  done
  for file in /var/lib/shim-signed/mok/MOK.der "$dkms_tree/mok.pub"; do
    if [ -z "$key" ] && [ -e "$file" ]; then key=$file; fi
  done
  echo "key=$key"
  if [ -d /sys/module/nvidia ]; then find_installed signer; echo "loaded=$installed"; fi
  if [ -n "$key" ]; then echo "said=$(timeout -k 5 20 mokutil --test-key "$key" 2>&1 | tail -n 1)"; fi
}
