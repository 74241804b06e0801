# Prints FILE as a C string literal named NAME. Usage: sh embed.sh NAME FILE
# Python loses what only a reader needs, a tenth of it: comments that have a line of their own, and four spaces become a tab.
# Line numbers stay, for tracebacks.
case $2 in
*.py) compact() { unexpand -t 4 --first-only "$1" | sed 's/^[[:blank:]]*#.*$//'; } ;;
*) compact() { cat "$1"; } ;;
esac
printf 'static const char %s[] =\n' "$1"
compact "$2" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/    "/' -e 's/$/\\n"/'
echo '    ;'
