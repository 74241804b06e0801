# Probes optional libraries once and prints make variables; says what a missing one drops.
# Usage: CC=cc sh probe.sh > build/config.mk
cc=${CC:-cc}
libs= cflags=
have() { # name, header, link flags, what is lost
    if printf '#include <%s>\nint main(void){return 0;}\n' "$2" | $cc -x c - -o /dev/null $3 2>/dev/null; then
        libs="$libs $3"; cflags="$cflags -DHAVE_$1=1"
    else
        cflags="$cflags -DHAVE_$1=0"
        echo "moeprof: no $2 here: $4" >&2
    fi
}
have SQLITE sqlite3.h -lsqlite3 "profiles cannot be written or read (Debian: libsqlite3-dev)"
have ZSTD zstd.h -lzstd "profiles keep no kernel events (Debian: libzstd-dev)"
have JANSSON jansson.h -ljansson "no model description, no MFU, no --json (Debian: libjansson-dev)"
have NCURSES ncurses.h -lncursesw "top prints text only (Debian: libncurses-dev)"
have CURL curl/curl.h -lcurl "no push to OTLP endpoints (Debian: libcurl4-openssl-dev)"
echo "TOOL_LIBS := $libs"
echo "TOOL_CFLAGS := $cflags"
