# The README's picture of top is what its recording gives today: when this fails, look at what changed, then
# `make pictures`.
set -e
B=${B:-build}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

make -s B="$B" "$B/top_svg" >"$T/log" 2>&1 || { cat "$T/log"; exit 1; }
"$B/top_svg" samples/profiles/qwen3-30b-eager.moeprof 1 110 34 >"$T/top.svg"
cmp "$T/top.svg" samples/pictures/top.svg
python3 -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' "$T/top.svg"
for picture in $(grep -oE '\]\(samples/pictures/[^)]*' README.md | sed 's/](//'); do
    [ -s "$picture" ] && [ "$(wc -c <"$picture")" -le 204800 ]
done
