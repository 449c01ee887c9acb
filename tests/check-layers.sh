#!/bin/sh
# Every #include of ours must follow the table of rooms: own room, or the door of an allowed room.
# A room's door is its header of the same name (quantizers/quantizers.h, harness/model/model.h).
cd "$(dirname "$0")/.." || exit 1
find harness quantizers -name '*.[ch]' | sort | xargs awk '
BEGIN {
    may["base"] = ""; may["model"] = "base"; may["engine"] = "base model"; may["eval"] = "base model engine"
    may["store"] = "base"; may["report"] = "base store"; may["quantizers"] = "base model engine"
    may["cli"] = "base model engine eval store report quantizers"; may["main"] = may["cli"] " cli"
}
function room_of(path,   p) { split(path, p, "/"); return p[1] == "quantizers" ? p[1] : p[2] ~ /\.c$/ ? "main" : p[2] }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, q, "\""); inc = q[2]; room = room_of(FILENAME); n = split(inc, part, "/")
    if (n == 1) {                       # own folder, or the quantizers door
        if (inc == "quantizers.h" && room != "quantizers") { target = "quantizers"; door = 1 } else next
    } else if (part[1] == ".." || part[1] == room || (room == "engine" && part[1] == "kernels")) next
    else { target = part[1]; door = (n == 2 && part[2] == target ".h") }
    allowed = index(" " may[room] " ", " " target " ") > 0
    if (!allowed || !door) {
        printf "%s:%d: %s may not include \"%s\"%s\n", FILENAME, FNR, room, inc, allowed ? " (only the door " target "/" target ".h)" : ""
        bad = 1
    }
}
END { exit bad }' && echo "layers: every include follows the table of rooms"
