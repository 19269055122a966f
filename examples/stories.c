/* stories.c - an endless, seeded generator of small English stories, to train tiny language models on.
 *
 *     cc -std=c99 -O2 stories.c -o stories
 *     ./stories --seed 1 --count 10000 > train.txt
 *
 * Every story is simulated first and told from the simulation: a hero, a friend and a grown-up have a kind, a trait and
 * tastes; things have a size, a color, a material and a holder; places have hiding spots. Episodes read and change that
 * state, so what is said late in a story follows from what was said early: where the toy was put, what color the friend
 * likes, how many plums are left, whose trait decides how a problem is solved. A model has to remember in order to
 * predict, which is what makes the text a useful test of capacity and not only of grammar.
 *
 * The text depends on (seed, story number) and on nothing else: integers only, our own random numbers, and never two
 * draws inside one expression, since C leaves their order open. Compiles as C99 and as C++11; needs only libc.
 *
 * Contents:  1 words   2 world   3 random numbers   4 phrasing   5 scenes   6 episodes   7 story   8 main
 *
 * To add a word, add it to its table. To add an episode, add a row to EPISODES: what must be true, where it happens,
 * what changes in the world, the moral and the text.
 *
 * Templates.  say(s, "...") tells a sentence:
 *     {one|two|}    one alternative at random; they nest
 *     <one|two>     the alternative that the world has decided: number s->way
 *     [A] [he A]    people: A hero, B friend, C grown-up, D small animal. Forms: he him his He kind trait home went
 *                   sound food color
 *     [x] [full x]  things: x the hero's, y the friend's, z v w others. Forms: full ("small red tin boat"), one (a noun
 *                   with one of those adjectives), use, used, color, mat, broke, mend
 *     [p] [in p]    the place; [high p] its landmark; [q] the place near the hero's home; [h] [i] [j] three spots
 *     [f] [one f]   a food, plural and singular; [n] [f n] a number and the food agreeing with it (also m, k)
 *     [1] .. [5]    words (themselves templates) that the episode has set
 * put() sees to capitals at the start of a sentence or quotation and to "a" before a vowel. The one case it cannot know
 * is what follows  !"  or  ?"  since that may go on (he said): a new sentence needs [He A] there. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#define LENGTH(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* ---- 1  words -------------------------------------------------------------------------------------------------- */

enum { HE, SHE, IT };
static const char *const PRONOUNS[][4] = {
    {"he", "him", "his", "He"}, {"she", "her", "her", "She"}, {"it", "it", "its", "It"},
};

static const char *const NAMES[2][14] = {
    {"Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Jack", "Finn", "Oscar", "Toby", "Noah", "Luke", "Pip", "Milo"},
    {"Mia", "Lily", "Anna", "Rosie", "Ella", "Zoe", "Ruby", "Nora", "Lucy", "Emma", "Sue", "Daisy", "Coco", "Ivy"},
};

typedef struct { const char *name; int sex; } Elder;
static const Elder ELDERS[] = {{"Mom", SHE}, {"Dad", HE}, {"Grandma", SHE}, {"Grandpa", HE}};

typedef struct { const char *noun[2], *home, *went, *sound; } Kind; /* noun: by sex; sound: what gives a hider away */
static const Kind KINDS[] = {
    {{"boy", "girl"}, "house", "ran", "giggle"},            {{"cat", "cat"}, "house", "crept", "meow"},
    {{"dog", "dog"}, "house", "ran", "bark"},               {{"rabbit", "rabbit"}, "burrow", "hopped", "sneeze"},
    {{"fox", "fox"}, "den", "trotted", "cough"},            {{"bear", "bear"}, "cave", "marched", "growl"},
    {{"mouse", "mouse"}, "hole", "hurried", "squeak"},      {{"duck", "duck"}, "nest", "waddled", "quack"},
    {{"squirrel", "squirrel"}, "nest", "skipped", "sneeze"}, {{"otter", "otter"}, "den", "hurried", "whistle"},
    {{"frog", "frog"}, "hut", "hopped", "croak"},           {{"pony", "pony"}, "barn", "trotted", "snort"},
};

enum { M_SHARE, M_TRUTH, M_CARE, M_SLOW, M_ASK, M_WAIT, M_FORGIVE, M_KIND, M_FAVOR, M_BRAVE, M_THINK, M_FUN, M_HELP,
       M_GIVE, M_STEADY, M_TRY };
static const char *const MORALS[] = { /* each completes "learned that ..."; in the order of the enum */
    "{it is good to share|food tastes better when it is shared|sharing makes everyone happy}",
    "{it is best to tell the truth|the truth is better than a lie|a true word makes the heart light}",
    "{it is wise to be careful|a little care saves a lot of trouble}",
    "{it is better to go slowly|it is wise to look first}",
    "{it is good to ask for help|asking for help is not silly|nobody has to do everything alone}",
    "{good things take time|it is worth it to wait|waiting is hard, but it is worth it}",
    "{good friends forgive each other|a friend is worth more than a toy|anyone can make a mistake}",
    "{it is good to be kind|a kind act is never lost|kindness makes friends}",
    "{kindness comes back|even a small friend can be a big help}",
    "{you can be brave even when you are afraid|a brave heart finds a way}",
    "{it helps to think first|a good idea can solve a big problem}",
    "{everything is more fun with a friend|it is good to have a friend}",
    "{work is easy when friends help|two can do more than one}",
    "{giving is as nice as getting|the best gift comes from the heart|it feels good to make a friend happy}",
    "{it is better to go on than to boast|slow and steady wins the race}",
    "{it is good to go on trying|you can do it if you do not give up}",
};

enum { BRAVE, CLEVER, CAREFUL, KIND, SHY, HASTY, GREEDY, PROUD, TRAITS };
typedef struct { const char *word; int moral, flaw; } Trait; /* moral: what solving things in this way teaches */
static const Trait TRAIT[TRAITS] = {
    {"brave", M_BRAVE, 0}, {"clever", M_THINK, 0}, {"careful", M_CARE, 0},  {"kind", M_KIND, 0},
    {"shy", M_ASK, 1},     {"hasty", M_SLOW, 1},   {"greedy", M_SHARE, 1},  {"proud", M_ASK, 1},
};

static const char *const COLORS[] = {"red", "blue", "green", "yellow", "orange", "pink", "purple", "white", "black",
                                     "brown"};
static const char *const SIZES[] = {"small", "big", "tiny", "old", "new"};
static const char *const NUMBERS[] = {"no", "one", "two", "three", "four", "five", "six", "seven"};

typedef struct { const char *word, *broke, *mend; } Material;
static const Material MATERIALS[] = {
    {"wooden", "cracked", "glue"},       {"paper", "tore", "tape"},         {"cloth", "ripped", "a needle and thread"},
    {"glass", "broke", "strong glue"},   {"tin", "got bent", "a hammer"},   {"clay", "broke", "wet clay"},
};
enum { WOOD = 1, PAPER = 2, CLOTH = 4, GLASS = 8, TIN = 16, CLAY = 32 }; /* 1 << index into MATERIALS */

typedef struct { const char *noun, *use, *used; unsigned materials; int light; } Noun; /* light: the wind can take it */
enum { TOYS = 18, POTS = 5 };
static const Noun NOUNS[TOYS + POTS] = {
    {"boat", "sail", "sailed", WOOD | PAPER | TIN, 0},        {"kite", "fly", "flew", PAPER | CLOTH, 1},
    {"doll", "play with", "played with", WOOD | CLOTH, 0},    {"drum", "play", "played", WOOD | TIN, 0},
    {"train", "push", "pushed", WOOD | TIN, 0},               {"car", "push", "pushed", WOOD | TIN, 0},
    {"wagon", "pull", "pulled", WOOD | TIN, 0},               {"cup", "drink from", "drank from", TIN | GLASS, 0},
    {"hat", "wear", "wore", CLOTH | PAPER, 1},                {"flag", "wave", "waved", CLOTH | PAPER, 1},
    {"lamp", "light", "lit", TIN | GLASS | CLAY, 0},          {"bell", "ring", "rang", TIN | GLASS | CLAY, 0},
    {"whistle", "blow", "blew", WOOD | TIN | CLAY, 0},        {"horse", "play with", "played with", WOOD | CLOTH, 0},
    {"robot", "play with", "played with", TIN | WOOD, 0},     {"puppet", "play with", "played with", CLOTH | PAPER, 1},
    {"ball", "roll", "rolled", WOOD | CLOTH | GLASS, 0},      {"top", "spin", "spun", WOOD | TIN, 0},
    {"jar", "fill", "filled", GLASS | CLAY, 0},               {"vase", "fill", "filled", GLASS | CLAY, 0},
    {"plate", "use", "used", GLASS | CLAY | WOOD, 0},         {"bowl", "use", "used", GLASS | CLAY | WOOD, 0},
    {"clock", "use", "used", GLASS | WOOD | TIN, 0},
};

typedef struct { const char *plural, *single; } Food;
static const Food FOODS[] = {
    {"apples", "apple"},   {"cookies", "cookie"}, {"berries", "berry"},    {"nuts", "nut"}, {"pears", "pear"},
    {"plums", "plum"},     {"carrots", "carrot"}, {"cherries", "cherry"},  {"buns", "bun"}, {"oranges", "orange"},
};

enum { SPOTS = 4, HOME = 0 };
typedef struct { const char *noun, *in, *high, *animal, *spots[SPOTS]; } Place;
static const Place PLACES[] = {
    {"home", "at home", "shelf", "the mouse", {"under the bed", "behind the door", "in the basket", "on the shelf"}},
    {"park", "in the park", "lamp post", "the pigeon",
     {"under the bench", "behind the swing", "in the sand box", "beside the fountain"}},
    {"beach", "at the beach", "high rock", "the crab",
     {"in the sand", "behind the rocks", "under an old boat", "beside the shells"}},
    {"garden", "in the garden", "apple tree", "the bird",
     {"under the roses", "behind the shed", "in the tall grass", "beside the gate"}},
    {"river", "by the river", "old bridge", "the turtle",
     {"under the bridge", "behind a log", "in the reeds", "on a flat stone"}},
    {"forest", "in the forest", "tallest tree", "the deer",
     {"in a hollow tree", "under the leaves", "behind a bush", "beside the path"}},
    {"hill", "on the hill", "pine tree", "the lamb",
     {"behind a big stone", "under the pine tree", "in the long grass", "beside the fence"}},
    {"farm", "at the farm", "barn roof", "the chick", {"in the barn", "under a cart", "behind the hay", "by a well"}},
    {"lake", "by the lake", "willow tree", "the swan",
     {"under the willow", "behind the reeds", "in a row boat", "on the dock"}},
    {"meadow", "in the meadow", "oak tree", "the calf",
     {"among the flowers", "behind the oak tree", "under a bush", "in a ditch"}},
};

static const char *const PASTIMES[] = {"chased a butterfly", "picked flowers", "watched the clouds", "sang a song",
                                       "counted the birds", "danced in the sun", "jumped over stones"};

typedef struct { const char *trouble, *help, *thanks; } Rescue;
static const Rescue RESCUES[] = {
    {"its leg was hurt", "tied a soft cloth around its leg", "tied a cloth around my leg"},
    {"it had lost its mother", "found its mother", "found my mother"},
    {"it was stuck in an old net", "opened the net with great care", "opened the net"},
    {"it was very thirsty", "brought it some cool water", "brought me water"},
    {"it was cold", "made it a warm bed of grass", "made me a warm bed"},
    {"it was very hungry", "gave it some bread", "gave me bread"},
};

typedef struct { const char *item, *from; } Ingredient;
static const Ingredient INGREDIENTS[] = {
    {"eggs", "the hen"}, {"milk", "the cow"}, {"honey", "the bees"}, {"flour", "the miller"},
    {"butter", "the shop"}, {"sugar", "the baker"}, {"jam", "the cook"},
};

typedef struct { const char *reason, *answer; } Motive; /* why a crow steals, and what sets it right */
static const Motive MOTIVES[] = {
    {"I am lonely", "\"{Come and play with me|You can be my friend}!\" said [A]."},
    {"I am {so |very |}hungry", "[A] gave it a [one f]."},
    {"I love [color x] things", "So [A] {found|picked} a [color x] {leaf|flower} for it."},
    {"Nobody gives me anything", "So [A] gave it a {button|soft feather|shiny coin}."},
};

/* How a hero of each trait gets something down from a high place, and finds the way home in the dark. */
static const char *const STUCK_WAYS[TRAITS] = {
    "[A] was not afraid. [he A] climbed up and brought it down.",
    "[A] had an idea. [he A] put a long board against the [high p], and <the kitten|the [x]> {slid|came} down.",
    "[A] found a ladder, {checked|tested} every step and brought it down.",
    "[A] asked an old farmer so kindly that the farmer brought it down.",
    "[A] was too shy to ask for help. But [B] stood by [him A] and asked a farmer, and the farmer brought it down.",
    "[A] jumped up at once and fell into the mud. Then [B] climbed up slowly and brought it down.",
    "A farmer could help, but [A] did not want to pay. At last [he A] gave a [one f], and the farmer brought it down.",
    "\"I need no help,\" said [A], and [he A] fell three times. At last [he A] asked [B], and [he B] brought it down.",
};
static const char *const DARK_WAYS[TRAITS] = {
    "[A] {sang a song|looked at the stars} and walked on until [he A] saw the light of [his A] [home A].",
    "[A] had an idea. [he A] followed [his A] own footprints back to the [q].",
    "But careful [A] had {left|dropped} white stones, and [he A] followed them back to the [q].",
    "\"You are always kind to us,\" said an old owl, and it showed [him A] the way to the [q].",
    "[A] was too shy to call for help. At last [he A] called, and [C] came with a lamp.",
    "[A] ran and fell into the mud. Then [he A] waited for the moon and walked slowly to the [q].",
    "\"Give me a [one f],\" said an old goat. [A] did not want to, but [he A] shared, and it took [him A] to the [q].",
    "\"I know the way,\" said [A], but [he A] was wrong. At last [he A] called for help, and [C] came with a lamp.",
};

/* ---- 2  world -------------------------------------------------------------------------------------------------- */

typedef struct { const char *name; int sex, kind, trait, food, color; } Person;
typedef struct { int noun, size, color, material; } Thing;

enum { HERO, FRIEND, ELDER, ANIMAL, PEOPLE };
enum { MINE, YOURS, GIFT, OTHER, THIRD, THINGS };                     /* the template slots x y z v w */
enum { KNOWS_FOOD = 1, KNOWS_COLOR = 2, KNOWS_THING = 4 };            /* what the reader has been told of the friend */
enum { MORNING, AFTERNOON, EVENING };
enum { TEXT_MAX = 8192, WORDS = 5, COUNTS = 3 };

typedef struct {
    uint64_t rng;
    Person who[PEOPLE];
    Thing thing[THINGS];
    unsigned nouns;            /* bit per noun in use, so that no two things of a story share one */
    int has_toy, broken;       /* does the hero hold thing x; is it whole */
    int wet, dirty;            /* left open by an episode, settled by the next one or by the ending */
    int known, facts;          /* has the friend been introduced; KNOWS_ bits */
    int place, home;           /* where the scene is; the place near which the hero lives */
    int spot[3];               /* hiding spots h, i, j of the place, all different */
    int food, count[COUNTS];   /* the food at hand, and numbers n, m, k */
    int rescue;                /* RESCUES index of the animal that owes the hero a favor, or -1 */
    int flower;                /* color of the flower grown, or -1 */
    int gift;                  /* has z been given to the friend */
    int time, episode;         /* of day; how many episodes have been told */
    int moral[2];              /* of the episode before last and of the last, or -1 */
    int reformed;              /* has a flaw of the hero's been overcome */
    int way;                   /* how the episode goes; the alternative told by < | > */
    const char *word[WORDS];
    const char *error;         /* first template or buffer fault: a bug in this file */
    size_t len;
    char text[TEXT_MAX];
} Story;

/* ---- 3  random numbers ----------------------------------------------------------------------------------------- */

/* The finishing step of splitmix64 (Steele, Lea, Flood 2014): a bijection whose output looks random. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A number in [0, n). Only the high 32 bits are scaled; for the small n here the bias is far below one in a million. */
static int pick(Story *s, int n)
{
    s->rng += UINT64_C(0x9E3779B97F4A7C15);
    return (int)(((mix(s->rng) >> 32) * (uint64_t)n) >> 32);
}

static int pick_other(Story *s, int n, int not_this)
{
    int k = pick(s, n - 1);
    return k >= not_this ? k + 1 : k;
}

/* The first `want` entries of a random order of 0 .. n-1 (n at most 16). */
static void pick_some(Story *s, int n, int want, int *out)
{
    int order[16];
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = 0; i < want; i++) {
        int j = i + pick(s, n - i);
        out[i] = order[j];
        order[j] = order[i];
    }
}

/* ---- 4  phrasing ----------------------------------------------------------------------------------------------- */

static void fault(Story *s, const char *what)
{
    if (!s->error) s->error = what;
}

static char back(const Story *s, size_t n) /* the n-th last character; a line feed before the beginning */
{
    return s->len >= n ? s->text[s->len - n] : '\n';
}

static int is_end(char c) { return c == '.' || c == '!' || c == '?'; }

/* Does the next character begin a sentence or a quotation? */
static int at_start(const Story *s)
{
    char a = back(s, 1), b = back(s, 2), c = back(s, 3);
    if (a == '\n') return 1;
    if (a == '"') return b == ' ' || b == '\n';
    return a == ' ' && (is_end(b) || (b == '"' && c == '.'));
}

static int after_article(const Story *s)
{
    char a = back(s, 2), b = back(s, 3);
    return back(s, 1) == ' ' && (a == 'a' || a == 'A') && (b == ' ' || b == '\n' || b == '"');
}

static void put_raw(Story *s, char c)
{
    if (s->len + 1 < TEXT_MAX) s->text[s->len++] = c;
    else fault(s, "story too long");
}

/* One character, with capitals, "an" and double spaces put right. */
static void put(Story *s, char c)
{
    char last = back(s, 1);
    if (c == ' ' && (last == ' ' || last == '\n')) return;
    if (strchr("aeiou", c) && after_article(s)) {
        s->len--;
        put_raw(s, 'n');
        put_raw(s, ' ');
    }
    if (c >= 'a' && c <= 'z' && at_start(s)) c = (char)(c - 'a' + 'A');
    put_raw(s, c);
}

static void put_text(Story *s, const char *t)
{
    while (*t) put(s, *t++);
}

/* Tells the text that follows `form` in a list of pairs; the list ends with NULL. */
static void tell_form(Story *s, const char *form, const char *const *pairs)
{
    while (*pairs && strcmp(*pairs, form)) pairs += 2;
    if (*pairs) put_text(s, pairs[1]);
    else fault(s, "unknown form in a template");
}

static void tell_person(Story *s, const char *form, const Person *p)
{
    const Kind *kind = &KINDS[p->kind];
    const char *const *pronoun = PRONOUNS[p->sex];
    const char *const pairs[] = {
        "", p->name, "he", pronoun[0], "him", pronoun[1], "his", pronoun[2], "He", pronoun[3],
        "kind", p->sex == IT ? p->name + strlen("the ") : kind->noun[p->sex], "trait", TRAIT[p->trait].word,
        "home", kind->home, "went", kind->went, "sound", kind->sound, "food", FOODS[p->food].plural,
        "color", COLORS[p->color], NULL,
    };
    tell_form(s, form, pairs);
}

static void tell_thing(Story *s, const char *form, const Thing *t)
{
    const Noun *noun = &NOUNS[t->noun];
    const Material *material = &MATERIALS[t->material];
    const char *const adjectives[] = {SIZES[t->size], COLORS[t->color], material->word};
    const char *const pairs[] = {
        "", noun->noun, "use", noun->use, "used", noun->used, "color", adjectives[1], "mat", adjectives[2],
        "broke", material->broke, "mend", material->mend, NULL,
    };
    int one = strcmp(form, "one") ? -1 : pick(s, 3), full = !strcmp(form, "full");
    for (int i = 0; i < 3; i++)
        if (full || i == one) {
            put_text(s, adjectives[i]);
            put(s, ' ');
        }
    tell_form(s, full || one >= 0 ? "" : form, pairs);
}

static void tell_place(Story *s, const char *form, const Place *p)
{
    const char *const pairs[] = {"", p->noun, "in", p->in, "high", p->high, NULL};
    tell_form(s, form, pairs);
}

static void tell_food(Story *s, const char *form, int count)
{
    const Food *food = &FOODS[s->food];
    const char *const pairs[] = {"", NUMBERS[count], "f", count == 1 ? food->single : food->plural, NULL};
    tell_form(s, form, pairs);
}

static void expand(Story *s, const char *t, const char *end);

/* A token is a slot letter, or a form, a space and a slot letter. */
static void expand_token(Story *s, const char *t, const char *end)
{
    static const char people[] = "ABCD", things[] = "xyzvw", spots[] = "hij", counts[] = "nmk", words[] = "12345";
    char form[8] = "", slot = end[-1];
    const char *at;
    size_t n = (size_t)(end - t);
    if (n > sizeof form + 1) { fault(s, "token too long"); return; }
    if (n > 2) memcpy(form, t, n - 2);
    if ((at = strchr(people, slot)) != NULL) tell_person(s, form, &s->who[at - people]);
    else if ((at = strchr(things, slot)) != NULL) tell_thing(s, form, &s->thing[at - things]);
    else if ((at = strchr(spots, slot)) != NULL) put_text(s, PLACES[s->place].spots[s->spot[at - spots]]);
    else if ((at = strchr(counts, slot)) != NULL) tell_food(s, form, s->count[at - counts]);
    else if ((at = strchr(words, slot)) != NULL) {
        const char *word = s->word[at - words];
        expand(s, word, word + strlen(word));
    }
    else if (slot == 'p') tell_place(s, form, &PLACES[s->place]);
    else if (slot == 'q') tell_place(s, form, &PLACES[s->home]);
    else if (slot == 'f') put_text(s, *form ? FOODS[s->food].single : FOODS[s->food].plural);
    else fault(s, "unknown slot");
}

/* The next `stop` outside any inner braces, or `end`. */
static const char *find_outside(const char *t, const char *end, char stop)
{
    int depth = 0;
    for (; t < end; t++) {
        if (depth == 0 && *t == stop) return t;
        if (*t == '{' || *t == '<') depth++;
        if (*t == '}' || *t == '>') depth--;
    }
    return end;
}

/* Alternative number `way`, or a random one if that is negative. */
static void expand_choice(Story *s, const char *t, const char *end, int way)
{
    int choices = 1;
    for (const char *p = find_outside(t, end, '|'); p < end; p = find_outside(p + 1, end, '|')) choices++;
    if (way < 0) way = pick(s, choices);
    if (way >= choices) { fault(s, "no such way in a template"); return; }
    while (way-- > 0) t = find_outside(t, end, '|') + 1;
    expand(s, t, find_outside(t, end, '|'));
}

static void expand(Story *s, const char *t, const char *end)
{
    while (t < end) {
        const char *close = end;
        if (*t == '{') expand_choice(s, t + 1, close = find_outside(t + 1, end, '}'), -1);
        else if (*t == '<') expand_choice(s, t + 1, close = find_outside(t + 1, end, '>'), s->way);
        else if (*t == '[') expand_token(s, t + 1, close = find_outside(t + 1, end, ']'));
        else { put(s, *t++); continue; }
        if (close == end) { fault(s, "unclosed bracket in a template"); return; }
        t = close + 1;
    }
}

static void say(Story *s, const char *template_text)
{
    put(s, ' ');
    expand(s, template_text, template_text + strlen(template_text));
}

/* ---- 5  scenes: what several episodes need ---------------------------------------------------------------------- */

static int is_flawed(const Person *p) { return TRAIT[p->trait].flaw; }

static Thing make_thing(Story *s, int first, int count)
{
    Thing t;
    do t.noun = first + pick(s, count);
    while (s->nouns & (1u << t.noun));
    s->nouns |= 1u << t.noun;
    do t.material = pick(s, LENGTH(MATERIALS));
    while (!(NOUNS[t.noun].materials & (1u << t.material)));
    t.size = pick(s, LENGTH(SIZES));
    t.color = pick_other(s, LENGTH(COLORS), s->thing[MINE].color);
    return t;
}

static void set_place(Story *s, int place)
{
    s->place = place;
    pick_some(s, SPOTS, 3, s->spot);
}

/* Wet friends get dry and a dirty hero gets clean, before anything else is told. */
static void settle_weather(Story *s)
{
    if (s->wet) say(s, "{At home|Then} [C] gave them {dry|warm|soft} towels and {hot soup|warm milk}.");
    if (s->dirty) say(s, "{[A] was dirty, so [he A] took|[C] saw the mud and gave [him A]} a {warm|hot} bath.");
    s->wet = s->dirty = 0;
}

static void mend_toy(Story *s)
{
    if (s->broken) say(s, "{Later [C]|[C]|[A] and [B]} mended the [one x] with [mend x].");
    s->broken = 0;
}

/* The clause that dates an episode; a day runs morning, afternoon, evening, and after the evening comes a new day. */
static void when(Story *s)
{
    if (s->episode == 0) say(s, "one {|sunny |warm |bright }{day|morning},");
    else if (s->time == EVENING || pick(s, 2)) {
        s->time = MORNING;
        say(s, "{the next {day|morning}|two days later},");
    }
    else if (++s->time == AFTERNOON) say(s, "{later|later that day|in the afternoon},");
    else say(s, "{late in the day|when the sun was low},");
}

static void meet_friend(Story *s, const char *how)
{
    static const char *const facts[] = {
        "who {loved|liked} [food B].", "who {loved|liked} {|all }[color B] things.", "who had a [full y].",
    };
    int fact = pick(s, LENGTH(facts));
    if (s->known) return;
    say(s, how);
    say(s, "[B], a {||little }[trait B] [kind B]");
    say(s, facts[fact]);
    s->known = 1;
    s->facts |= 1 << fact;
}

static void go_alone(Story *s)
{
    set_place(s, 1 + pick_other(s, LENGTH(PLACES) - 1, s->place - 1));
    when(s);
    say(s, "[A] {[went A]|went} to the [p].");
}

static void go_together(Story *s)
{
    if (!s->known) {
        go_alone(s);
        meet_friend(s, "{there|on the way} [he A] met");
        return;
    }
    set_place(s, 1 + pick_other(s, LENGTH(PLACES) - 1, s->place - 1));
    when(s);
    say(s, "[A] and [B] {went to the [p]|played [in p]|met [in p]}.");
}

static void stay_home(Story *s)
{
    set_place(s, HOME);
    when(s);
}

static void begin_birthday(Story *s) /* not "later that day": birthdays begin in the morning */
{
    if (s->episode > 0) s->time = EVENING;
    stay_home(s);
}

static void go_out_late(Story *s)
{
    set_place(s, 1 + pick_other(s, LENGTH(PLACES) - 1, s->home - 1));
    say(s, s->episode == 0 ? "one evening" : s->time == EVENING ? "the next evening" : "that evening");
    s->time = EVENING;
}

/* ---- 6  episodes: first what happens in the world, then how it is told ------------------------------------------- */

static int any_time(const Story *s) { return s->len > 0; }
static int with_friend(const Story *s) { return s->known; }
static int with_toy(const Story *s) { return s->has_toy && !s->broken; }
static int can_trade(const Story *s) { return with_toy(s) && !s->gift; }
static int can_donate(const Story *s) { return can_trade(s) && s->known && s->episode && !(s->facts & KNOWS_THING); }
static int can_rescue(const Story *s) { return s->rescue < 0; }

static int hero_is(const Story *s, int trait) { return s->who[HERO].trait == trait; }

static void by_trait(Story *s, const char *const *ways)
{
    s->food = pick(s, LENGTH(FOODS));
    s->word[0] = ways[s->who[HERO].trait];
    s->dirty = hero_is(s, HASTY);
    s->reformed |= is_flawed(&s->who[HERO]);
}

static void rain(Story *s)
{
    int paper = with_toy(s) && (1 << s->thing[MINE].material) == PAPER;
    s->way = hero_is(s, CAREFUL) ? 0 : s->who[FRIEND].trait == CAREFUL ? 1 : paper ? 3 : 2;
    s->wet = s->way >= 2;
    s->broken |= s->way == 3;
}

static void lose(Story *s) { s->word[0] = PASTIMES[pick(s, LENGTH(PASTIMES))]; }

static void break_toy(Story *s)
{
    s->way = is_flawed(&s->who[FRIEND]);
    s->word[0] = s->who[FRIEND].trait == HASTY ? "was too hasty and dropped it" : "{slipped|fell}";
    s->broken = 1;
}

static void share(Story *s)
{
    int favorite = pick(s, 2);
    s->food = favorite ? s->who[FRIEND].food : pick(s, LENGTH(FOODS));
    s->count[0] = 3 + pick(s, 4);
    s->count[1] = 1 + pick(s, s->count[0] - 1);
    s->count[2] = s->count[0] - s->count[1];
    s->word[0] = s->food == s->who[FRIEND].food ? "I love [f]!" : "Thank you, [A]!";
    if (s->food == s->who[FRIEND].food) s->facts |= KNOWS_FOOD;
    s->way = hero_is(s, GREEDY);
    s->reformed |= s->way;
}

/* Two things in a shop, of different colors; the right one has the color the friend likes. */
static void give_present(Story *s)
{
    s->thing[GIFT] = make_thing(s, 0, TOYS);
    s->thing[GIFT].color = s->who[FRIEND].color;
    s->thing[OTHER] = make_thing(s, 0, TOYS);
    s->thing[OTHER].color = pick_other(s, LENGTH(COLORS), s->who[FRIEND].color);
    s->way = (s->facts & KNOWS_COLOR) != 0;
    s->facts |= KNOWS_COLOR;
    s->gift = 1;
}

/* Thing x is always what the hero holds, so no later episode has to know of the trade; its text speaks from the end. */
static void trade(Story *s)
{
    Thing mine = s->thing[MINE];
    s->thing[MINE] = s->thing[YOURS];
    s->thing[YOURS] = mine;
    s->way = (s->facts & KNOWS_THING) != 0;
    s->facts |= KNOWS_THING;
}

static void get_stuck(Story *s)
{
    s->way = with_toy(s) && NOUNS[s->thing[MINE].noun].light;
    by_trait(s, STUCK_WAYS);
}

static void rescue(Story *s)
{
    s->rescue = pick(s, LENGTH(RESCUES));
    s->who[ANIMAL].name = PLACES[s->place].animal;
    s->word[0] = RESCUES[s->rescue].trouble;
    s->word[1] = RESCUES[s->rescue].help;
    s->way = hero_is(s, SHY) ? 1 : hero_is(s, HASTY) ? 2 : 0;
}

static void dark(Story *s)
{
    s->way = s->rescue >= 0;
    if (s->way) s->word[0] = RESCUES[s->rescue].thanks;
    else by_trait(s, DARK_WAYS);
}

static void bake(Story *s)
{
    int k[3];
    pick_some(s, LENGTH(INGREDIENTS), 3, k);
    for (int i = 0; i < 3; i++) s->word[i] = INGREDIENTS[k[i]].item;
    for (int i = 0; i < 2; i++) s->word[3 + i] = INGREDIENTS[k[i]].from;
}

static void race(Story *s)
{
    int boasts = hero_is(s, PROUD) || hero_is(s, HASTY);
    s->way = boasts ? 2 : pick(s, 2);
    s->reformed |= boasts;
}

static void grow(Story *s)
{
    s->flower = pick(s, LENGTH(COLORS));
    s->word[0] = COLORS[s->flower];
    s->count[0] = 2 + pick(s, 5);
    s->way = hero_is(s, HASTY) || hero_is(s, GREEDY);
    s->reformed |= hero_is(s, HASTY);
    s->time = EVENING; /* weeks pass: what comes next must not be "later that day" */
}

static void steal(Story *s)
{
    const Motive *motive = &MOTIVES[pick(s, LENGTH(MOTIVES))];
    s->food = pick(s, LENGTH(FOODS));
    s->word[0] = motive->reason;
    s->word[1] = motive->answer;
}

static void break_pot(Story *s)
{
    s->thing[THIRD] = make_thing(s, TOYS, POTS);
    s->way = is_flawed(&s->who[HERO]);
}

static void donate(Story *s)
{
    s->thing[YOURS] = s->thing[MINE];
    s->facts |= KNOWS_THING;
    s->has_toy = 0;
    s->way = hero_is(s, GREEDY);
    s->reformed |= s->way;
}

enum { BY_TRAIT = -1 };
typedef struct {
    int (*can)(const Story *);  /* may it happen now */
    void (*go)(Story *);        /* tells when, where and with whom */
    void (*happen)(Story *);    /* changes the world; sets way, words and counts; NULL: nothing changes */
    int moral[4];               /* by way; BY_TRAIT: what the hero's trait teaches */
    const char *text;
} Episode;

static const Episode EPISODES[] = {
    {any_time, go_together, rain, {M_CARE, M_CARE, M_FUN, M_FUN},
     "{Soon|Then} {dark|black|gray} clouds came, and it {began|started} to rain. <But careful [A] had {brought|packed} "
     "a [color A] umbrella, and they stayed dry.|But careful [B] had {brought|packed} a [color B] umbrella, and they "
     "stayed dry.|They {had no umbrella and|ran home, but they} got wet.|They got wet. The paper [x] got wet too, "
     "and it tore.>"},
    {with_toy, go_together, lose, {M_CARE},
     "[A] put the [one x] [h] and [1]. Then [he A] {forgot|did not know} where it was. [he A] looked [i] and [j]. \"I "
     "{lost|cannot find} my [full x]!\" [he A] cried. \"Where was it before you [1]?\" asked [B]. Then [A] knew. It "
     "was [h]!"},
    {with_toy, go_together, break_toy, {M_FORGIVE, M_TRUTH},
     "\"{May|Can} I [use x] your [one x]?\" asked [B]. But [B] [1], and the [mat x] [x] [broke x]. <\"I am {so |very "
     "|}sorry,\" said [B].|[B] {was scared and |}hid it [h]. \"I did not see it,\" [he B] said. But the lie {hurt|made "
     "[him B] sad}. \"I broke it. It is [h],\" [he B] cried.> [A] was sad, but [he A] {forgave [B]|gave [B] a hug}."},
    {any_time, go_together, share, {M_SHARE, M_SHARE},
     "[A] had [n] [f n]. [B] {had none|had no food} and was hungry. <{\"{You can have|Take} [m],\" said [A]. Now [A] "
     "had [k] left.|[A] {gave [B] [m] and kept [k]|kept [k] and gave [B] [m]}.}|[A] ate [k] alone, and [his A] belly "
     "hurt. [he A] {saw [B]'s sad face and gave [him B]|gave [B]} the other [m].> \"[1]\" said [B]."},
    {with_friend, begin_birthday, give_present, {M_GIVE, M_GIVE},
     "it was [B]'s birthday. <\"What color do you like?\" asked [A]. \"[color B]!\" said [B].|> {At|In} the shop [A] "
     "saw {a [color z] [z] and a [color v] [v]|a [color v] [v] and a [color z] [z]}. [he A] {chose|took} the [z], "
     "because [B] {loved|liked} [color B]. \"{Thank you|I love it|What a pretty [z]}!\" {said|cried} [B]."},
    {can_trade, go_together, trade, {M_FUN, M_FUN},
     "<[B] had a [full x].|> [A] {wanted|liked} the [one x], and [B] {wanted|liked} the [one y]. \"Let us trade!\" "
     "said {[A]|[B]}. {Now|So} {[A] had the [one x], and [B] had the [one y]|[A] [used x] the [x], and [B] [used y] "
     "the [y]}."},
    {any_time, go_together, NULL, {M_FUN},
     "They played hide and seek, and [B] hid [h]. [A] looked [i] and [j]. Then [he A] heard a {|little |small }[sound "
     "B]. \"I {can hear|found} you!\" [he A] {cried|laughed}. [B] was [h]!"},
    {any_time, go_together, get_stuck, {BY_TRAIT, BY_TRAIT},
     "<A {tiny|little|gray} kitten was stuck on the [high p].|The {strong |}wind blew the [one x] {on to|to the "
     "top of} the [high p].> [1] <The kitten {purred|was safe}.|{\"My [one x] is safe!\" said [A].|The [x] was "
     "safe.}>"},
    {can_rescue, go_alone, rescue, {M_KIND, M_KIND, M_KIND},
     "[h] [he A] {found|saw} a little [kind D]. It {was crying|cried}, because [1]. <[A]|[A] was shy, but [he A]|[A] "
     "was in a hurry, but [he A] stopped and> [2]. \"I will {not|never} forget you,\" said [D]."},
    {any_time, go_out_late, dark, {BY_TRAIT, M_FAVOR},
     "[A] {stayed too long|was alone} [in p]. It {got|grew} dark, and [he A] could not find the way home. <[1]|Then "
     "[D] came. \"You [1]. Now I {will|can} help you,\" it said, and it {showed [him A] the way|led [him A] all the "
     "way} to the [q].>"},
    {with_friend, stay_home, bake, {M_HELP},
     "[A] {baked|made} a cake for [C]. [he A] needed [1], [2] and [3]. [he A] got {the [1] from [4] and the [2] from "
     "[5]|the [2] from [5] and the [1] from [4]}, but [he A] {had no|could not find any} [3]. Then [B] brought the "
     "[3], and the cake {was|tasted} {very good|good|sweet}."},
    {any_time, go_together, race, {M_KIND, M_TRY, M_STEADY},
     "\"Let us race to the [high p]!\" said {[A]|[B]}. <Then [B] fell and {hurt [his B] leg|began to cry}. [A] "
     "{stopped|ran back} and helped [him B] up. They came to the [high p] together.|[A] {was tired|wanted to stop}, "
     "but [he A] did not give up. [he A] came to the [high p] first.|[A] was far ahead{|. \"I am the best!\" [he A] "
     "cried} and {stopped|sat down} to rest. But [B] did not stop and came to the [high p] first.>"},
    {any_time, stay_home, grow, {M_WAIT, M_WAIT},
     "[C] gave [A] a seed. \"It will be a [1] flower{|, if you wait},\" said [C]. <[A] {gave it water|watered it} "
     "every {day|morning}.|[A] could not wait and dug it up {too soon|the next day}. It was dead. [C] gave [him A] {a "
     "new|another} one, and now [he A] waited.> After [n] weeks [he A] had a {|tall |lovely }[1] flower."},
    {with_toy, go_alone, steal, {M_KIND},
     "A {|big |black }crow took the [one x] and flew to the [high p]. \"{Why did you take|Why do you want} my [full "
     "x]?\" {asked|cried} [A]. \"[1],\" said the crow. [2] The crow gave the [x] back."},
    {any_time, stay_home, break_pot, {M_TRUTH, M_TRUTH},
     "[A] {ran|jumped|danced} around and {hit|bumped} [C]'s [full w]. It fell and [broke w]. <[A] {was afraid, but [he "
     "A] did not lie|did not lie}. \"I broke the [w],\" [he A] said.|[A] {was scared and |}hid it [h]. \"I did not do "
     "it,\" [he A] said. But [C] found it [h]. [A] {cried|turned red} and told the truth.> [C] {was not angry|forgave "
     "[him A]}{|, and they mended the [w] with [mend w]}."},
    {with_toy, stay_home, NULL, {M_ASK},
     "[A] put the [one x] [h] and went {outside|out to play}. Then [C] cleaned the [home A] and put the [x] [i]. [A] "
     "came back and looked [h]. {The [x] was {gone|not there}!|No [x]!} \"{Where is my|Have you seen my} [full x]?\" "
     "[he A] asked. \"{I put it|It is} [i],\" said [C]."},
    {can_donate, stay_home, donate, {M_GIVE, M_GIVE},
     "[B] was {sick|sick in bed}. \"I have {nothing to play with|no toys},\" [he B] said. <|[A] did not want to give "
     "anything away, but [B] looked so sad.> \"{Take|You can have} my [full y],\" said [A]. [B] {smiled and |}felt "
     "better."},
};

/* ---- 7  story --------------------------------------------------------------------------------------------------- */

static Person make_person(Story *s, int sex)
{
    Person p;
    p.sex = sex;
    p.name = NAMES[sex][pick(s, LENGTH(NAMES[0]))];
    p.kind = pick(s, 2) ? 0 : pick(s, LENGTH(KINDS));
    p.trait = pick(s, TRAITS);
    p.food = pick(s, LENGTH(FOODS));
    p.color = pick(s, LENGTH(COLORS));
    return p;
}

/* Hero and friend differ in sex, which keeps every "he" and "she" between them clear. */
static void make_world(Story *s)
{
    int hero_sex = pick(s, 2);
    const Elder *elder = &ELDERS[pick(s, LENGTH(ELDERS))];
    s->who[HERO] = make_person(s, hero_sex);
    s->who[FRIEND] = make_person(s, hero_sex == HE ? SHE : HE);
    s->who[ELDER] = s->who[ANIMAL] = s->who[HERO];
    s->who[ELDER].name = elder->name;
    s->who[ELDER].sex = elder->sex;
    s->who[ANIMAL].sex = IT;
    s->thing[MINE] = make_thing(s, 0, TOYS);
    s->thing[YOURS] = make_thing(s, 0, TOYS);
    s->home = 1 + pick(s, LENGTH(PLACES) - 1);
    s->has_toy = 1;
    s->rescue = s->flower = s->moral[0] = s->moral[1] = -1;
}

static void tell_opening(Story *s)
{
    say(s, "{{once upon a time|once} there was|long ago there lived} a {||little }[trait A] [kind A] {named|called} "
           "[A].");
    say(s, "[he A] lived {|in a {|small |cozy }[home A] }near the [q] with [C] and {had a|loved [his A]} [full x].");
    set_place(s, HOME);
    if (pick(s, 3)) meet_friend(s, "[his A] {best |}friend was");
}

/* A favor owed wants to be returned: then the dark, where the animal helps, is six times as likely. */
static const Episode *choose_episode(Story *s, unsigned *used)
{
    int open[LENGTH(EPISODES) + 5], n = 0;
    for (int i = 0; i < LENGTH(EPISODES); i++) {
        int copies = s->rescue >= 0 && EPISODES[i].happen == dark ? 6 : 1;
        if ((*used & (1u << i)) || !EPISODES[i].can(s)) continue;
        while (copies-- > 0) open[n++] = i;
    }
    n = open[pick(s, n)];
    *used |= 1u << n;
    return &EPISODES[n];
}

static void tell_episode(Story *s, const Episode *e)
{
    int moral;
    e->go(s);
    s->way = 0;
    if (e->happen) e->happen(s);
    say(s, e->text);
    moral = e->moral[s->way];
    s->moral[0] = s->moral[1];
    s->moral[1] = moral == BY_TRAIT ? TRAIT[s->who[HERO].trait].moral : moral;
    s->episode++;
}

/* What remains of the story, in things. */
static void tell_keepsake(Story *s)
{
    if (!s->has_toy) say(s, "[A] had no [y] {now|any more}, but [he A] was {not sad|glad}.");
    else say(s, "[A] {put|laid} the [full x] {by|beside} [his A] bed.");
    if (s->gift) say(s, "[B] {slept beside|hugged} the [color z] [z].");
    else if (s->flower >= 0) {
        s->word[0] = COLORS[s->flower];
        say(s, "The [1] flower slept in the moonlight.");
    }
}

static void tell_moral(Story *s)
{
    int first = s->moral[0], last = s->moral[1];
    s->word[0] = MORALS[last];
    s->word[1] = first >= 0 ? MORALS[first] : "";
    if (first >= 0 && first != last && pick(s, 5) == 0) say(s, "[A] {had learned|knew} that [2], and that [1].");
    else say(s, "{[A] {had learned|knew} that [1].|\"[1],\" {[he A]|[A]} {said|thought}.}");
    if (s->reformed) say(s, "[He A] was {never|not} {|so }[trait A] again.");
}

static void tell_ending(Story *s)
{
    settle_weather(s);
    mend_toy(s);
    if ((s->facts & KNOWS_FOOD) && pick(s, 4) == 0)
        say(s, "{There were|They all had} [food B] for dinner, because [B] {loved|liked} them.");
    say(s, "{that night|at bedtime},");
    tell_keepsake(s);
    tell_moral(s);
}

static void write_story(Story *s, uint64_t seed, uint64_t index)
{
    static const int lengths[] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4};
    unsigned used = 0;
    int episodes;
    memset(s, 0, sizeof *s);
    s->rng = mix(mix(seed) + index);
    make_world(s);
    tell_opening(s);
    episodes = lengths[pick(s, LENGTH(lengths))];
    while (s->episode < episodes) {
        put(s, '\n');
        settle_weather(s);
        if (pick(s, 2)) mend_toy(s);
        tell_episode(s, choose_episode(s, &used));
    }
    put(s, '\n');
    tell_ending(s);
    s->text[s->len] = '\0';
}

/* ---- 8  main ----------------------------------------------------------------------------------------------------- */

static const char USAGE[] =
    "usage: stories [--seed S] [--count N] [--start I] [--pairs] [--help]\n"
    "Print N stories (default 1000), each followed by the line <|endoftext|>. The same seed (default 1) gives the\n"
    "same stories everywhere. Story i depends only on the seed and i; --start I (default 0) begins with story I.\n"
    "--pairs: questions on such stories instead, each with a right and a wrong answer, for lemon eval --choices.\n";

typedef struct { uint64_t seed, count, start; int pairs; } Options;

static int fail(int code, const char *what, const char *detail)
{
    fprintf(stderr, "stories: error: %s%s\n", what, detail);
    return code;
}

/* A decimal number and nothing else: strtoull alone would let "-1" and " 7" pass. */
static int parse_number(const char *text, uint64_t *out)
{
    unsigned long long value;
    char *end;
    if (*text < '0' || *text > '9') return 0;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || *end || value > UINT64_MAX) return 0;
    *out = (uint64_t)value;
    return 1;
}

/* Returns 0 to go on, 1 when help was asked for, 2 after an error. */
static int parse_options(int argc, char **argv, Options *o)
{
    for (int i = 1; i < argc; i++) {
        uint64_t *value = NULL;
        if (!strcmp(argv[i], "--help")) return 1;
        if (!strcmp(argv[i], "--pairs")) {
            o->pairs = 1;
            continue;
        }
        if (!strcmp(argv[i], "--seed")) value = &o->seed;
        if (!strcmp(argv[i], "--count")) value = &o->count;
        if (!strcmp(argv[i], "--start")) value = &o->start;
        if (!value) return fail(2, "unknown argument ", argv[i]);
        if (i + 1 == argc) return fail(2, "a number must follow ", argv[i]);
        i++;
        if (!parse_number(argv[i], value)) return fail(2, "not a number from 0 to 2^64 - 1: ", argv[i]);
    }
    return 0;
}

/* ---- pairs: questions with two answers that differ in as little as can be, the right one first or second ---------- */

static void tell(Story *s, const char *template_text) /* without the blank behind it that say() leaves */
{
    expand(s, template_text, template_text + strlen(template_text));
}

static void print_json(const char *t)
{
    putchar('"');
    for (; *t; t++) {
        if (*t == '\n') fputs("\\n", stdout);
        else if (*t == '"' || *t == '\\') printf("\\%c", *t);
        else putchar(*t);
    }
    putchar('"');
}

enum { PAIRS = 4 };
static const char *const PAIR_KINDS[PAIRS] = {"number", "pronoun", "falls", "whose"};

/* Agreement: number by count, pronoun by name; cause before effect: what a material does when it falls; who has what.
 * Told in the words of the stories, so that no answer is unlikely for its style. */
static void make_pair(Story *s, int kind, const char **right, const char **wrong)
{
    static char mine[64], yours[64];
    const char *own = MATERIALS[s->thing[MINE].material].broke;
    int other = pick(s, LENGTH(MATERIALS));
    size_t from;
    if (kind == 0) {
        s->food = pick(s, LENGTH(FOODS));
        s->word[0] = NUMBERS[3 + pick(s, 4)];
        tell(s, "one day, [A] had [1]");
        snprintf(mine, sizeof mine, "%s.", FOODS[s->food].plural);      /* the stop: else one begins the other */
        snprintf(yours, sizeof yours, "%s.", FOODS[s->food].single);
        *right = mine;
        *wrong = yours;
    } else if (kind == 1) {
        tell(s, "one evening [A] was alone [in p]. It grew dark, and");
        *right = PRONOUNS[s->who[HERO].sex][0];
        *wrong = PRONOUNS[s->who[HERO].sex == HE ? SHE : HE][0];
    } else if (kind == 2) {
        while (!strcmp(MATERIALS[other].broke, own)) other = pick(s, LENGTH(MATERIALS));
        tell(s, "one day, \"May I [use x] your [x]?\" asked [B]. But [B] fell, and the [mat x] [x]");
        *right = own;
        *wrong = MATERIALS[other].broke;
    } else {
        from = s->len;                                     /* the answers, told where the question then begins */
        tell(s, "the [full x]");
        snprintf(mine, sizeof mine, "%.*s", (int)(s->len - from - 4), s->text + from + 4);
        s->len = from;
        tell(s, "the [full y]");
        snprintf(yours, sizeof yours, "%.*s", (int)(s->len - from - 4), s->text + from + 4);
        s->len = from;
        tell(s, "one day, [B] had a [full y]. [A] and [B] played all day.\nThat night, [A] put the");
        *right = mine;
        *wrong = yours;
    }
}

static int print_pairs(const Options *o)
{
    static Story story;
    Story *s = &story;
    for (uint64_t i = o->start; i < o->start + o->count; i++) {
        const char *right = "", *wrong = "";
        int first;
        memset(s, 0, sizeof *s);
        s->rng = mix(mix(o->seed ^ UINT64_C(0x5041495253)) + i);
        make_world(s);
        tell_opening(s);
        put(s, '\n');
        if (s->place == HOME) set_place(s, s->home);
        make_pair(s, (int)(i % PAIRS), &right, &wrong);
        s->text[s->len] = '\0';
        if (s->error) return fail(1, "internal: ", s->error);
        first = pick(s, 2);
        fputs("{\"prompt\": ", stdout);
        print_json(s->text);
        printf(", \"choices\": [\" %s\", \" %s\"], \"answer\": %d, \"kind\": \"%s\"}\n", first ? wrong : right,
               first ? right : wrong, first, PAIR_KINDS[i % PAIRS]);
    }
    return 0;
}

static int print_stories(const Options *o)
{
    static Story story;
    for (uint64_t i = 0; i < o->count; i++) {
        write_story(&story, o->seed, o->start + i);
        if (story.error) return fail(1, "internal: ", story.error);
        if (printf("%s\n<|endoftext|>\n", story.text) < 0) return fail(1, "cannot write to standard output", "");
    }
    return 0;
}

int main(int argc, char **argv)
{
    Options options = {1, 1000, 0, 0};
    int status = parse_options(argc, argv, &options);
    if (status == 2) return 2;
#ifdef _WIN32
    _setmode(_fileno(stdout), _O_BINARY); /* the same bytes everywhere: no carriage returns */
#endif
    if (status == 1) fputs(USAGE, stdout);
    else if ((status = options.pairs ? print_pairs(&options) : print_stories(&options)) != 0) return status;
    if (fflush(stdout) || ferror(stdout)) return fail(1, "cannot write to standard output", "");
    return 0;
}
