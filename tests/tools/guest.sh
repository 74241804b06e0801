# What the guest library may be: its exports, its dependencies, its size, what it must not call.
# Usage: guest.sh LIBMOEPROF.SO
so=$1
bad=0
complain() { echo "guest: $1" >&2; bad=1; }

exports=$(nm -D --defined-only "$so" | awk '{print $3}' | sort | tr '\n' ' ')
[ "$exports" = "InitializeInjection moeprof_attach " ] || complain "exports '$exports'"

needed=$(readelf -d "$so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -Ev '^(libc|libdl|libpthread|libm|ld-linux.*)\.so')
[ -z "$needed" ] || complain "needs more than libc: $needed"

for f in exit _exit abort puts printf putchar perror __assert_fail system popen fork sleep; do
    nm -D --undefined-only "$so" | sed 's/@.*//' | awk '{print $2}' | grep -qx "$f" && complain "calls $f"
done

tmp=$(mktemp)
strip -o "$tmp" "$so" && size=$(stat -c %s "$tmp")
rm -f "$tmp"
[ "${size:-999999}" -le 409600 ] || complain "is $size bytes stripped, more than 400 KiB"
exit $bad
