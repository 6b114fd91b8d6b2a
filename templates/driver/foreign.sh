# shellcheck shell=sh
# needs: driver/library.sh
# A driver that came past the package manager.

# foreign_driver UNINSTALL: the version of the loaded module, where NVIDIA's installer has left that program; and the
# libraries of another version that programs load, and no package has: a word and its text in every line.
foreign_driver() {
  loaded=
  if [ -r /sys/module/nvidia/version ]; then read -r loaded </sys/module/nvidia/version; fi
  if [ -x "$1" ]; then echo "installer $loaded"; fi
  for link in $(library_links); do
    library=$(readlink -f "$link")
    # Whom a file belongs to takes dpkg long to tell.
    if [ "${library##*.so.}" != "$loaded" ] && belongs_to_nobody "$library"; then echo "library $library"; fi
  done
}

# belongs_to_nobody FILE: no package has it.
belongs_to_nobody() {
  if command -v dpkg-query >/dev/null; then set -- dpkg-query -S "$1"; else set -- rpm -qf "$1"; fi
  LC_ALL=C timeout -k 5 20 "$@" >/dev/null 2>&1
  [ $? -eq 1 ]
}
