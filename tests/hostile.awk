# hostile.awk: from the declarations of lemon.h to the calls of test_hostile.c.  Each function is called with one argument
# after the other wrong, and with all of them wrong; `arg` is which, `v` how.  What an argument is by its type and its name is
# said there, in any_TYPE(name, v): a parameter of a new type does not compile until it is.
/^#ifdef LEMON_IMPLEMENTATION/ { exit }
/^LEMON_API/ { open = 1; text = "" }
open { text = text " " $0 }
open && /;/ { open = 0; declare(text) }

function trim(s) { gsub(/^ +| +$/, "", s); return s }

function declare(s,    name, type, args, n, i, depth, c, list, part) {
    sub(/\/\*.*/, "", s)
    gsub(/ +/, " ", s)
    sub(/^ *LEMON_API /, "", s)
    match(s, /lemon_[a-z0-9_]+\(/)
    name = substr(s, RSTART, RLENGTH - 1)
    type = trim(substr(s, 1, RSTART - 1))
    args = substr(s, RSTART + RLENGTH)
    sub(/\) *; *$/, "", args)
    n = 0
    part = ""
    for (i = 1; i <= length(args); i++) {
        c = substr(args, i, 1)
        if (c == "(") depth++
        if (c == ")") depth--
        if (c == "," && depth == 0) { list[n++] = trim(part); part = "" } else part = part c
    }
    list[n++] = trim(part)
    calls[++count] = name
    printf "static void hostile_%s(void) {\n    int arg, v;\n    for (arg = -1; arg <= %d; arg++)\n", name, n
    printf "        for (v = 0; v < VALUES; v++) {\n            begin(\"%s\", arg, v);\n            %s(%s(\n", name, ends(type), name
    for (i = 0; i < n; i++) printf "                %s%s\n", value(list[i], i, n), i < n - 1 ? "," : "));"
    printf "        }\n}\n\n"
}

# What is done with the result.
function ends(type) {
    if (type == "lemon_status") return "end_status"
    if (type == "void") return "end_nothing"
    return "end_other"
}

function value(p, i, n,    name, type, id) {
    if (p ~ /\(\*/) return "NULL"
    match(p, /[a-z_0-9]+$/)
    name = substr(p, RSTART)
    type = trim(substr(p, 1, RSTART - 1))
    id = type
    sub(/\*const \*/, "_list", id)
    gsub(/const /, "", id)
    sub(/ _list/, "_list", id)
    gsub(/ \*\*/, "_out", id)
    gsub(/ \*/, "_p", id)
    gsub(/[^a-z0-9_]/, "", id)
    return sprintf("any_%s(\"%s\", arg == %d || arg == %d ? v : GOOD)", id, name, i, n)
}

END {
    printf "static void (*const hostile_all[])(void) = {\n"
    for (i = 1; i <= count; i++) printf "    hostile_%s,\n", calls[i]
    printf "};\nstatic const char *const hostile_names[] = {\n"
    for (i = 1; i <= count; i++) printf "    \"%s\",\n", calls[i]
    printf "};\n"
}
