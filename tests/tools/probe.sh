# Probes optional libraries once and prints make variables; says what a missing one drops.
# Usage: CC=cc sh probe.sh > build/config.mk
cc=${CC:-cc}
libs= cflags=
# Static archives where they are there: one binary then runs on another distribution too.
have() { # name, header, archives, what is lost; falls back to the shared library
    if printf '#include <%s>\nint main(void){return 0;}\n' "$2" | $cc -x c - -o /dev/null $3 2>/dev/null; then
        libs="$libs $3"; cflags="$cflags -DHAVE_$1=1"
        return
    fi
    set -- "$1" "$2" "$(echo "$3" | sed 's/-l:lib\([a-z0-9]*\)\.a/-l\1/g')" "$4"
    if printf '#include <%s>\nint main(void){return 0;}\n' "$2" | $cc -x c - -o /dev/null $3 2>/dev/null; then
        libs="$libs $3"; cflags="$cflags -DHAVE_$1=1"
    else
        cflags="$cflags -DHAVE_$1=0"
        echo "moeprof: no $2 here: $4" >&2
    fi
}
have SQLITE sqlite3.h -l:libsqlite3.a "profiles cannot be written or read (Debian: libsqlite3-dev)"
have ZSTD zstd.h -l:libzstd.a "profiles keep no kernel events (Debian: libzstd-dev)"
have JANSSON jansson.h -l:libjansson.a "no model description, no MFU, no --json (Debian: libjansson-dev)"
have NCURSES ncurses.h "-l:libncursesw.a -l:libtinfo.a" "top prints text only (Debian: libncurses-dev)"
echo "TOOL_LIBS := $libs"
echo "TOOL_CFLAGS := $cflags"
