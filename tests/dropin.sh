#!/bin/sh
# dropin.sh: lemon.h as others use it: included in ten files, two copies in one program, from C++ and from Python, and by
# the ways into other builds that the README shows (CMake, Meson), as far as their tools are there.
cd "$(dirname "$0")" || exit 1
work=$PWD/build/dropin root=$(cd .. && pwd)
rm -rf "$work"
mkdir -p "$work"
passed=0 failed=0 skipped=0
CC=${CC:-cc}
result() { # STATUS NAME MORE
    if [ "$1" -eq 0 ]; then echo "ok   $2"; passed=$((passed + 1)); else echo "FAIL $2: $3"; failed=$((failed + 1)); fi
}
skip() { echo "skip $1"; skipped=$((skipped + 1)); }
log() { tail -n 1 "$work/log" | cut -c 1-300; }

# Ten files include it, one of them with the implementation.
files=
for i in 0 1 2 3 4 5 6 7 8 9; do
    { [ $i -ne 7 ] || echo '#define LEMON_IMPLEMENTATION'; echo '#include "lemon.h"'; echo "const char *name_$i(void);"
      echo "const char *name_$i(void) { return lemon_status_name((lemon_status)($i % 8)); }"; } > "$work/file$i.c"
    files="$files $work/file$i.c"
done
{ echo '#include <string.h>'; for i in 0 1 2 3 4 5 6 7 8 9; do echo "const char *name_$i(void);"; done
  echo 'int main(void) { return strcmp(name_0(), "ok") != 0 || strcmp(name_8(), name_0()) != 0 || name_9() == 0; }'; } > "$work/ten.c"
# shellcheck disable=SC2086
$CC -std=c99 -O0 -Wall -Wextra -Werror -I"$root" $files "$work/ten.c" -o "$work/ten" -lm -pthread > "$work/log" 2>&1 && "$work/ten"
result $? "ten files include it, one has the implementation" "$(log)"

# Two copies of different versions: each answers with its own.
for copy in one two; do
    mkdir -p "$work/$copy"
    sed "s/LEMON_VERSION \"[^\"]*\"/LEMON_VERSION \"copy $copy\"/" "$root/lemon.h" > "$work/$copy/lemon.h"
    { echo '#define LEMON_STATIC'; echo '#define LEMON_IMPLEMENTATION'; [ $copy = one ] || echo '#define LEMON_NO_SIMD'
      echo '#include "lemon.h"'; echo "const char *$copy(int *ok);"
      echo "const char *$copy(int *ok) { lemon_ctx *c = lemon_open(NULL); lemon_model *m = NULL;"
      echo "    *ok = lemon_load(c, \"$root/examples/data/teacher.lemon\", &m) == LEMON_OK;"
      echo "    lemon_model_free(c, m); lemon_close(c); return LEMON_VERSION; }"; } > "$work/$copy.c"
done
printf '#include <string.h>\nconst char *one(int *ok);\nconst char *two(int *ok);\nint main(void) { int a, b; return strcmp(one(&a), "copy one") || strcmp(two(&b), "copy two") || !a || !b; }\n' > "$work/both.c"
$CC -std=c99 -O1 -Wall -Wextra -Werror -I"$work/one" -c "$work/one.c" -o "$work/one.o" > "$work/log" 2>&1 &&
    $CC -std=c99 -O1 -Wall -Wextra -Werror -I"$work/two" -c "$work/two.c" -o "$work/two.o" >> "$work/log" 2>&1 &&
    $CC "$work/both.c" "$work/one.o" "$work/two.o" -o "$work/both" -lm -pthread >> "$work/log" 2>&1 && "$work/both"
result $? "two copies of different versions work in one program" "$(log)"
[ "$(nm -g --defined-only "$work/one.o" | awk '{ print $NF }')" = one ]
result $? "LEMON_STATIC exports nothing" "$(nm -g --defined-only "$work/one.o" | head -n 3)"

# C++ and Python: the same text as the tool's, a student that the tool reads, errors that name the file.
make -s -C ../examples lemon || exit 1
text=$(../examples/lemon generate "$root/examples/data/teacher.lemon" --prompt "Once upon a time" -n 20 --temp 0 --json --quiet 2> /dev/null |
    tail -n 1 | sed 's/.*"text": *"\([^"]*\)".*/\1/')
binding() { # NAME OUTPUT STUDENT
    grep -qxF "text$text" "$2"
    result $? "$1 generates what the tool generates" "$(head -n 1 "$2"), expected $text"
    params=$(../examples/lemon info "$3" --json --quiet | tail -n 1 | sed 's/.*"params": *\([0-9]*\).*/\1/')
    [ -n "$params" ] && grep -qxF "student $params" "$2"
    result $? "$1 fuses, saves and loads" "$(grep student "$2"), expected $params"
    grep -q '^error there is no such file: ' "$2"
    result $? "$1 tells errors" "$(tail -n 1 "$2")"
}
CXX=${CXX:-c++}
if command -v "$CXX" > /dev/null; then
    $CXX -std=c++11 -O1 -Wall -Wextra -Wpedantic -Wshadow -Werror -I.. ../examples/bindings/demo.cpp -o "$work/demo" -pthread > "$work/log" 2>&1 &&
        "$work/demo" ../examples/data/teacher.lemon "$work/cpp.lemon" > "$work/cpp.out" 2>> "$work/log"
    result $? "lemon.hpp compiles and runs" "$(log)"
    binding C++ "$work/cpp.out" "$work/cpp.lemon"
    [ "$(wc -l < ../examples/bindings/lemon.hpp)" -le 100 ]
    result $? "lemon.hpp has at most 100 lines" "$(wc -l < ../examples/bindings/lemon.hpp)"
else skip "C++: there is no $CXX"; fi
if command -v python3 > /dev/null; then
    $CC -std=c99 -O1 -shared -fPIC -DLEMON_IMPLEMENTATION -x c ../lemon.h -o "$work/liblemon.so" -lm -pthread > "$work/log" 2>&1 &&
        python3 ../examples/bindings/lemon.py "$work/liblemon.so" ../examples/data/teacher.lemon "$work/py.lemon" > "$work/py.out" 2>> "$work/log"
    result $? "lemon.py runs" "$(log)"
    binding Python "$work/py.out" "$work/py.lemon"
    [ "$(wc -l < ../examples/bindings/lemon.py)" -le 100 ]
    result $? "lemon.py has at most 100 lines" "$(wc -l < ../examples/bindings/lemon.py)"
    nm -D --defined-only "$work/liblemon.so" | awk '{ print $NF }' | grep -v '^lemon_' > "$work/names"
    [ ! -s "$work/names" ]
    result $? "the shared library exports only lemon_" "$(head -n 3 "$work/names")"
else skip "Python: there is no python3"; fi

# The README's lines for CMake and Meson, in a project of one file; what they fetch is this very tree.
git -C "$root" rev-parse HEAD > "$work/head" 2> /dev/null
lines() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" "$root/README.md" | sed '/^```/d'; }
printf '#define LEMON_IMPLEMENTATION\n#include "lemon.h"\nint main(void) { return lemon_status_name(LEMON_OK) == 0; }\n' > "$work/app.c"
if command -v cmake > /dev/null && [ -s "$work/head" ]; then
    mkdir -p "$work/cmake"
    printf '#include "lemon.h"\nint main(void) { return lemon_status_name(LEMON_OK) == 0; }\n' > "$work/cmake/main.c"
    printf '#define LEMON_IMPLEMENTATION\n#include "lemon.h"\n' > "$work/cmake/lemon.c"
    { lines cmake | sed "s|https://example.org/lemon.h.git|file://$root|; s|GIT_TAG [^)]*|GIT_TAG $(cat "$work/head")|"; } > "$work/cmake/CMakeLists.txt"
    cmake -S "$work/cmake" -B "$work/cmake/build" > "$work/log" 2>&1 && cmake --build "$work/cmake/build" -v >> "$work/log" 2>&1 && "$work/cmake/build/app"
    result $? "the README's lines for CMake" "$(log)"
    grep -q -e '-O3 .*lemon\.c' "$work/log"
    result $? "which optimise lemon.h in a build of no type" "$(grep -m 1 'lemon\.c' "$work/log")"
    [ "$(lines cmake | wc -l)" -le 8 ]
    result $? "they are five, and three" "$(lines cmake | wc -l)"
else skip "CMake: it is not there, or this is no clone"; fi
if command -v meson > /dev/null && command -v ninja > /dev/null && [ -s "$work/head" ]; then
    mkdir -p "$work/meson/subprojects/packagefiles/lemon"
    cp "$work/app.c" "$work/meson"
    lines ini | sed "s|https://example.org/lemon.h.git|file://$root|; s|^revision.*|revision = $(cat "$work/head")|" > "$work/meson/subprojects/lemon.wrap"
    lines meson > "$work/meson/subprojects/packagefiles/lemon/meson.build"
    printf "project('app', 'c')\nexecutable('app', 'app.c', dependencies: subproject('lemon').get_variable('lemon'))\n" > "$work/meson/meson.build"
    (cd "$work/meson" && meson setup build && ninja -C build) > "$work/log" 2>&1 && "$work/meson/build/app"
    result $? "the README's lines for Meson" "$(log)"
    [ "$(lines ini | grep -c =)" -le 3 ] && [ "$(lines meson | wc -l)" -le 3 ]
    result $? "they are three and three" "$(lines ini | grep -c =), $(lines meson | wc -l)"
else skip "Meson: it is not there, or this is no clone"; fi
# And without either: the README's three lines of shell.
mkdir -p "$work/your/project"
printf '#include "lemon.h"\nint main(void) { return lemon_status_name(LEMON_OK) == 0; }\n' > "$work/your/project/main.c"
{ echo set -e; lines sh | grep -A 2 '^cp lemon.h your/project' | sed 's/ -O3 / -O0 /'; } > "$work/three.sh"
(cp "$root/lemon.h" "$work" && cd "$work" && sh three.sh && your/project/main) > "$work/log" 2>&1
result $? "the README's three lines of shell" "$(log)"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
