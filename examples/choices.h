/*  choices.h - questions with a choice of answers, one JSON object a line:

        {"prompt": "Tom had three", "choices": [" apples.", " apple."], "answer": 0}

    Used by lemon eval --choices.  A file is read into memory whole and taken apart in place. */
#ifndef CHOICES_H
#define CHOICES_H

#include <stdlib.h>
#include <string.h>

enum { CHOICES_MOST = 64 };

typedef struct choice_item {
    const char *prompt, *choices[CHOICES_MOST];
    long n_choices, answer;
} choice_item;

static char *choice_blanks(char *p) { return p + strspn(p, " \t\r"); }

/*  Four hexadecimal digits; -1: they are none. */
static long choice_hex(const char *p) {
    char digits[5] = {0};
    if (strspn(p, "0123456789abcdefABCDEF") < 4) return -1;
    memcpy(digits, p, 4);
    return strtol(digits, NULL, 16);
}

static char *choice_utf8(char *out, long c) {
    if (c < 0x80) { *out++ = (char)c; return out; }
    if (c < 0x800) *out++ = (char)(0xc0 | c >> 6);
    else if (c < 0x10000) *out++ = (char)(0xe0 | c >> 12), *out++ = (char)(0x80 | (c >> 6 & 63));
    else *out++ = (char)(0xf0 | c >> 18), *out++ = (char)(0x80 | (c >> 12 & 63)), *out++ = (char)(0x80 | (c >> 6 & 63));
    *out++ = (char)(0x80 | (c & 63));
    return out;
}

/*  What follows a backslash at *p, to out: never longer than it was.  NULL: no escape that JSON knows. */
static char *choice_escape(char **p, char *out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = **p ? strchr(names, **p) : NULL;
    long c, low;
    if (name) { ++*p; *out = values[name - names]; return out + 1; }
    if (**p != 'u' || (c = choice_hex(*p + 1)) <= 0) return NULL;
    *p += 5;
    if (c >= 0xd800 && c < 0xdc00 && (*p)[0] == '\\' && (*p)[1] == 'u' && (low = choice_hex(*p + 2)) >= 0xdc00 &&
        low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        *p += 6;
    }
    return c >= 0xd800 && c < 0xe000 ? NULL : choice_utf8(out, c);
}

/*  The string that begins at p, unescaped in place; what comes behind it, or NULL where none begins or ends. */
static char *choice_string(char *p, const char **text) {
    char *out;
    if (*p != '"') return NULL;
    *text = out = ++p;
    while (*p && *p != '"') {
        if (*p != '\\') { *out++ = *p++; continue; }
        p++;
        if ((out = choice_escape(&p, out)) == NULL) return NULL;
    }
    if (*p == 0) return NULL;
    *out = 0;
    return p + 1;
}

static char *choice_list(char *p, choice_item *item) {
    if (*p != '[') return NULL;
    for (p = choice_blanks(p + 1);; p = choice_blanks(p + 1)) {
        if (item->n_choices == CHOICES_MOST || !(p = choice_string(p, &item->choices[item->n_choices++]))) return NULL;
        p = choice_blanks(p);
        if (*p == ']') return p + 1;
        if (*p != ',') return NULL;
    }
}

/*  What comes behind a value of any kind, which is passed over, not checked; NULL: there is none. */
static char *choice_skip(char *p, int depth) {
    const char close = *p == '{' ? '}' : *p == '[' ? ']' : '"';
    size_t n = strspn(p, "+-.0123456789Eaeflnrstu");    /* numbers, true, false, null */
    if (n) return p + n;
    if ((*p != '"' && close == '"') || depth == 0) return NULL;
    for (p = choice_blanks(p + 1); *p != close; p = choice_blanks(p)) {
        if (*p == 0) return NULL;
        if (close == '"') { p += 1 + (*p == '\\' && p[1]); continue; }
        if ((p = choice_skip(p, depth - 1)) == NULL) return NULL;
        p = choice_blanks(p);
        p += *p == ',' || *p == ':';
    }
    return p + 1;
}

/*  One line, which ends in 0, as an item; keys that mean nothing here are passed over.  0: it is none. */
static int choice_parse(char *p, choice_item *item) {
    const char *key;
    memset(item, 0, sizeof *item);
    item->answer = -1;
    p = choice_blanks(p);
    if (*p != '{') return 0;
    do {
        if ((p = choice_string(choice_blanks(p + 1), &key)) == NULL) return 0;
        p = choice_blanks(p);
        if (*p != ':') return 0;
        p = choice_blanks(p + 1);
        if (strcmp(key, "prompt") == 0) p = choice_string(p, &item->prompt);
        else if (strcmp(key, "choices") == 0) p = item->n_choices ? NULL : choice_list(p, item);
        else if (strcmp(key, "answer") == 0) item->answer = *p >= '0' && *p <= '9' ? strtol(p, &p, 10) : -1;
        else p = choice_skip(p, 64);
        if (p == NULL) return 0;
        p = choice_blanks(p);
    } while (*p == ',');
    return *p == '}' && *choice_blanks(p + 1) == 0 && item->prompt && item->n_choices >= 2 && item->answer >= 0 &&
           item->answer < item->n_choices;
}

#endif
