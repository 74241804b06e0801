# Prints FILE as a C string literal named NAME. Usage: sh embed.sh NAME FILE
printf 'static const char %s[] =\n' "$1"
sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/    "/' -e 's/$/\\n"/' "$2"
echo '    ;'
