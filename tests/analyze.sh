#!/bin/sh
# analyze.sh: what compilers and checkers that do not run the code say about lemon.h: gcc's analyzer, clang-tidy (bugprone, cert,
# clang-analyzer) and cppcheck.  One that is not installed is skipped.  What is switched off, and why:
#   bugprone-easily-swappable-parameters   shapes are numbers next to each other; names and the legend of letters tell them apart
#   bugprone-narrowing-conversions         -Wconversion says the same, and is heeded
#   bugprone-reserved-identifier, cert-dcl37-c, cert-dcl51-cpp    lemon__name is this header's mark of what is private, and only
#                                          C++ reserves it; check.h defines _GNU_SOURCE
#   bugprone-implicit-widening-of-multiplication-result    products of numbers that lemon_config_check bounds, and of constants
#   bugprone-branch-clone, bugprone-macro-parentheses      cases that stand side by side on purpose; macros of declarations
#   bugprone-assignment-in-if-condition, bugprone-suspicious-string-compare   `if (memcmp(...))` is C
#   cert-err33-c, cert-err34-c             results of snprintf into buffers of the right size; numbers are checked by what follows
#   cert-msc*, cert-flp30-c                random numbers are a seeded generator of our own; a loop over floats that is meant
#   clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling   it asks for memcpy_s, which no libc here has
#   clang-analyzer-optin.performance.Padding     the order of fields is for readers
#   bugprone-misplaced-widening-cast       casts for printf, of sums that were checked
#   bugprone-not-null-terminated-result    the text goes on behind what is copied
#   bugprone-suspicious-memory-comparison, cert-exp42-c, cert-flp37-c    configs are 11 words without gaps, and compared by their bits
#   gcc: dereference of NULL 'f.method', '0'     the name of the method was looked up by lemon__fuse_check before
#   cppcheck zerodiv, uninitvar, ctuuninitvar, pointerOutOfBounds    b != 0 stands before the division; structs are filled member by member, or by
#                                          what returned LEMON_OK, across calls too (memcheck runs through them); a pointer to an array's end in a size that memcpy takes
#   cppcheck shiftTooManyBitsSigned        what compilers make of >> on a negative number is what is meant there
#   bugprone-signed-char-misuse, cert-str34-c    bytes of q8 are signed on purpose
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=build/analyze
mkdir -p $scratch
printf '#define LEMON_IMPLEMENTATION\n#include "../../../lemon.h"\n' > $scratch/lemon.c

judge() {       # NAME PATTERN BUT: passes if its log has no line of the pattern that is not one of those
    log=$scratch/$1.log
    have "$1" || { skip "$1"; return; }
    found=$(grep -E "$2" "$log" | grep -c -v -E "$3")
    if [ "$found" -eq 0 ]; then ok "$1 finds nothing"
    else fail "$1 finds nothing" "$found lines in $log, $(grep -E "$2" "$log" | grep -v -E "$3" | head -n 1)"; fi
}

# All three at once: each takes a core for a minute or two.
have() { command -v "$1" > /dev/null; }
if have gcc; then
    gcc -std=c99 -O1 -fanalyzer -c $scratch/lemon.c -o $scratch/lemon.o > $scratch/gcc.log 2>&1 &
fi
if have clang-tidy; then
    clang-tidy --quiet --checks='-*,bugprone-*,cert-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions,-bugprone-reserved-identifier,-cert-dcl37-c,-cert-dcl51-cpp,-bugprone-implicit-widening-of-multiplication-result,-bugprone-branch-clone,-bugprone-macro-parentheses,-bugprone-assignment-in-if-condition,-bugprone-suspicious-string-compare,-cert-err33-c,-cert-err34-c,-cert-msc30-c,-cert-msc32-c,-cert-msc50-cpp,-cert-msc51-cpp,-cert-flp30-c,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,-clang-analyzer-optin.performance.Padding,-bugprone-misplaced-widening-cast,-bugprone-not-null-terminated-result,-bugprone-suspicious-memory-comparison,-cert-exp42-c,-cert-flp37-c,-bugprone-signed-char-misuse,-cert-str34-c' \
        --header-filter='lemon\.h' $scratch/lemon.c -- -std=c99 > $scratch/clang-tidy.log 2>&1 &
fi
if have cppcheck; then
    cppcheck --quiet --std=c99 --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem -DLEMON_IMPLEMENTATION \
        -D__x86_64__ -D__linux__ -D__unix__ -D__GNUC__=12 --language=c $scratch/lemon.c > $scratch/cppcheck.log 2>&1 &
fi
wait
judge gcc "warning:" "dereference of NULL .(f.method|0)."
judge clang-tidy "lemon.h.*warning:" "^$"
judge cppcheck "(error|warning|portability):" "\[(zerodiv|uninitvar|ctuuninitvar|pointerOutOfBounds|shiftTooManyBitsSigned)\]"
done_checking
