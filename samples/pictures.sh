# The README's pictures, from the recorded H100 runs: `make pictures`. Wants Chromium for the page.
set -e
B=${B:-build}
in=samples/profiles/qwen3-30b-eager.moeprof
out=samples/pictures
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

mkdir -p $out
"$B/top_svg" $in 1 110 34 >$out/top.svg

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    { echo "pictures: no Chromium here, so $out/report.png stays as it is"; exit 0; }
"$B/moeprof" report --html "$T/report.html" $in
HOME=$T timeout 60 "$chromium" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
    --hide-scrollbars --user-data-dir="$T/profile" --window-size=1100,1456 --screenshot="$T/report.png" \
    "file://$T/report.html" >"$T/log" 2>&1 || { tail -3 "$T/log"; exit 1; }
cp "$T/report.png" $out/report.png
ls -l $out/*
