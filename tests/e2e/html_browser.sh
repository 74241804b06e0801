# The page in headless Chromium: no console message, no request, no error; contrast of all text, in both
# themes, at 400 and 1400 px; nothing wider than the page; works without scripts; tables sort. Says so and
# passes when there is no Chromium (the only line that this script may print).
. "$(dirname "$0")/common.bash"

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ]; then
    echo "  skip  html_browser: no Chromium here (Debian: apt install chromium)"
    exit 0
fi
(cd "$root" && make -s B="$B" "$B/gen_profile") >make.out 2>&1 || { cat make.out; exit 1; }

# page NAME [gen_profile options]..: NAME.html of a made-up profile.
page() {
    local name=$1
    shift
    "$B/gen_profile" "$name.moeprof" "$@" >/dev/null
    moeprof report --html "$name.html" "$name.moeprof" 2>/dev/null
}
page eager layers=4 experts=32 checkpoint
page hostile hostile layers=2 experts=8
page wide layers=94 experts=256 steps=4 grouped
page empty steps=0
page one steps=1 layers=1 experts=4
page unrouted no-routing layers=2 experts=8
page arms ab=6 layers=2 experts=16
moeprof report --html pair.html eager.moeprof one.moeprof 2>/dev/null

# browse: frame.html in a browser of its own that finds no host; the DOM after the scripts ran goes to dom,
# what the console said (a refused request too) to log.
browse() {
    HOME=$T timeout 60 "$chromium" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$T/profile" \
        --allow-file-access-from-files --enable-logging=stderr --v=0 --host-resolver-rules="MAP * ~NOTFOUND" --window-size=1400,3000 \
        --virtual-time-budget=5000 --dump-dom "file://$T/frame.html" >dom 2>log || fail "Chromium failed: $(tail -3 log)"
}

# What is checked runs in the page itself: the same file with one more script at its end.
for name in eager hostile wide empty one unrouted arms pair; do
    { sed '/<\/body>/,$d' $name.html; echo '<script>'; cat "$root/tests/html/check.js"; echo '</script></body></html>'; } >checked.html
    for width in 400 1400; do
        sed "s/WIDTH/$width/" "$root/tests/html/frame.html" >frame.html
        browse
        grep -q 'id="result">ok<' dom || fail "$name at $width px: $(sed -n 's/.*id="result">\([^<]*\)<.*/\1/p' dom)"
        ! grep -q 'CONSOLE' log || fail "$name: the console said: $(grep -m3 CONSOLE log)"
    done
done
