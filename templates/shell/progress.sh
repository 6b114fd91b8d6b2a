# shellcheck shell=sh
# Pulls and loads of images, which may go silent in the middle.

# Seconds in which a pull has to make progress: bytes that arrive, or are unpacked.
pull_patience=300

# with_progress WHAT WANTED COMMAND: runs sh text, in which $wanted is known; ends it where there is no progress. Docker's
# client tells of progress on a terminal only, which script(1) is for it. Its last lines are in $run/last.
with_progress() {
  told=$run/pulling seen=0 idle=0 shown=
  : >"$told"
  rm -f "$run/layers"
  wanted=$2 SHELL=/bin/sh script -q -e -c "$3" /dev/null </dev/null >>"$told" 2>&1 &
  pull=$!
  while sleep 2 && kill -0 "$pull" 2>/dev/null; do
    size=$(wc -c <"$told")
    if [ "$size" -gt "$seen" ]; then
      progress=$(layers_since "$seen" "$told")
      [ -n "$progress" ] || progress=$(last_lines 1 "$told")
      [ "$progress" = "$shown" ] || printf '%s\n' "$progress"
      # What was seen takes no more room in memory.
      [ "$seen" -eq 0 ] || fallocate --punch-hole --offset 0 --length "$seen" "$told"
      seen=$size idle=0 shown=$progress
    elif idle=$((idle + 2)) && [ "$idle" -ge "$pull_patience" ]; then
      kill "$pull"
      wait "$pull"
      fail "no progress in $pull_patience s: $1 was ended"
      return 1
    fi
  done
  wait "$pull"
  code=$?
  last_lines 20 "$told" >"$run/last"
  tail -n 5 "$run/last"
  rm -f "$told" "$run/layers"
  return "$code"
}

# layers_since BYTE FILE: how many layers are done, and how many bytes are there, of those that Docker's client has told
# of: "3 of 7 layers, 1.2 of 8.9 GB". What is known of each layer is in $run/layers. A line that the last look has cut in
# two is read again; the half of one is nobody's.
layers_since() {
  from=$(($1 > 400 ? $1 - 400 : 0))
  tail -c "+$((from + 1))" "$2" | tr -d '\0' | tr '\r\033' '\n' | cut -b 1-200 | awk -v state="$run/layers" '
    function bytes(text) {
      return text * (text ~ /TB/ ? 1e12 : text ~ /GB/ ? 1e9 : text ~ /MB/ ? 1e6 : text ~ /kB/ ? 1e3 : 1)
    }
    BEGIN {
      while ((getline line < state) > 0) {
        split(line, part, " ")
        got[part[1]] = part[2]; all[part[1]] = part[3]; ended[part[1]] = part[4]; layers++
      }
      close(state)
    }
    { sub(/^\[[0-9;?]*[A-Za-z]/, "") }
    substr($0, 13, 2) != ": " || substr($0, 1, 12) ~ /[^0-9a-f]/ { next }
    {
      id = substr($0, 1, 12); says = substr($0, 15)
      if (!(id in got)) {
        if (layers >= 500) next
        layers++; got[id] = all[id] = ended[id] = 0
      }
      if (says ~ /^(Downloading|Loading layer)/ && match(says, /[0-9.]+[kMGT]?B\/[0-9.]+[kMGT]?B/)) {
        split(substr(says, RSTART, RLENGTH), part, "/")
        got[id] = bytes(part[1]); all[id] = bytes(part[2])
        if (says ~ /^Loading/ && part[1] == part[2]) ended[id] = 1
      } else if (says ~ /^(Download complete|Verifying|Extracting|Pull complete|Already exists)/) {
        got[id] = all[id]
        if (says ~ /^(Pull complete|Already exists)/) ended[id] = 1
      }
    }
    END {
      for (id in got) {
        print id, got[id], all[id], ended[id] >state
        have += got[id]; want += all[id]; over += ended[id]
      }
      if (!layers) exit
      if (want >= 1e9) size = sprintf(", %.1f of %.1f GB", have / 1e9, want / 1e9)
      else if (want) size = sprintf(", %.1f of %.1f MB", have / 1e6, want / 1e6)
      printf "%d of %d layers%s\n", over, layers, size
    }'
}

# last_lines COUNT FILE: of what was written to a terminal, without what steers it.
last_lines() {
  tail -c 20000 "$2" | tr -d '\0' | tr '\r' '\n' | sed "s/$(printf '\033')\[[0-9;?]*[A-Za-z]//g" | grep '[^[:space:]]' | tail -n "$1"
}
