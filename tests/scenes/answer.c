#include "answer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GAPS = 2, MAX_FACTS = 12, MAX_WORD = 32, MAX_TEXT = 128 };

// "at the top left a large red circle" or "at the top a red sign with the word OPEN".
typedef struct {
    char size[MAX_WORD], color[MAX_WORD], noun[MAX_WORD], place[MAX_WORD];
    char what[MAX_WORD]; // of writing: "word", "number", "letter" or "digit"
    char text[MAX_WORD]; // and which
} fact;

typedef struct {
    char kind[MAX_WORD]; // "objects", "chart", "receipt", …
    fact facts[MAX_FACTS];
    int n;
} facts;

typedef struct {
    char text[MAX_GAPS][MAX_TEXT];
} gaps;

// Whether the text has this form; each '*' stands for something, which goes to gaps.
static bool has_form(const char *form, const char *text, gaps *g, int n) {
    for (; *form && *form != '*'; form++, text++) {
        if (*form != *text) return false;
    }
    if (!*form) return !*text;
    if (n == MAX_GAPS) return false;
    for (size_t length = 1; length < MAX_TEXT && text[length - 1]; length++) {
        if (!has_form(form + 1, text + length, g, n + 1)) continue;
        memcpy(g->text[n], text, length);
        g->text[n][length] = '\0';
        return true;
    }
    return false;
}

static bool has_any_form(const char *const *forms, const char *text, gaps *g) {
    for (; *forms; forms++) {
        if (has_form(*forms, text, g, 0)) return true;
    }
    return false;
}
#define FORM(...) has_any_form((const char *const[]){__VA_ARGS__, NULL}, question, &g)

static void copy(char *to, const char *from, size_t size) {
    if (size >= MAX_WORD) size = MAX_WORD - 1;
    memcpy(to, from, size);
    to[size] = '\0';
}

// ---- captions ---------------------------------------------------------------------------------------------

static void read_fact(const char *text, fact *f) {
    char item[MAX_TEXT];
    snprintf(item, sizeof item, "%.*s", MAX_TEXT - 1, text);
    char *thing = item;
    if (strncmp(item, "at the ", 7) == 0 || strncmp(item, "in the ", 7) == 0) {
        char *place = item + 7, *article = strstr(place, " a ");
        if (!article) article = strstr(place, " an ");
        char *the = strstr(place, " the ");
        if (the && (!article || the < article)) article = the;
        if (article) {
            copy(f->place, place, (size_t)(article - place));
            thing = article + 1;
        }
    }
    char words[8][MAX_WORD];
    int n = 0;
    for (char *word = strtok(thing, " "); word && n < 8; word = strtok(NULL, " "))
        copy(words[n++], word, strlen(word));
    if (n == 2) { // a dog
        strcpy(f->noun, words[1]);
    } else if (n == 7) { // a red sign with the word OPEN
        strcpy(f->color, words[1]);
        strcpy(f->noun, "sign");
        strcpy(f->what, words[5]);
        strcpy(f->text, words[6]);
    } else if (n == 4 && strcmp(words[0], "the") == 0) { // the red word OPEN
        strcpy(f->color, words[1]);
        strcpy(f->what, words[2]);
        strcpy(f->text, words[3]);
    } else if (n == 4) { // a large red circle
        strcpy(f->size, words[1]);
        strcpy(f->color, words[2]);
        strcpy(f->noun, words[3]);
    }
}

static void read_caption(const char *caption, facts *all) {
    char text[600];
    snprintf(text, sizeof text, "%s", caption);
    text[strcspn(text, ".")] = '\0';
    *all = (facts){.kind = "objects"};
    char *rest = strchr(text, ':');
    if (rest) { // a receipt: TEA 12, total 12
        copy(all->kind, text + 2, strcspn(text + 2, " :"));
        rest++;
    } else {
        rest = text;
    }
    while (rest && all->n < MAX_FACTS) {
        fact *f = &all->facts[all->n++];
        char *end = strstr(rest, ", ");
        if (end) *end = '\0';
        while (*rest == ' ')
            rest++;
        if (strcmp(all->kind, "objects") == 0) {
            read_fact(rest, f);
        } else {
            const size_t gap = strcspn(rest, " ");
            copy(f->noun, rest, gap);
            copy(f->text, rest + gap + 1, strlen(rest + gap + 1));
        }
        rest = end ? end + 2 : NULL;
    }
}

// ---- who is meant -----------------------------------------------------------------------------------------

static bool same(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

// "red circle", "circle", "red shape", "dog".
static bool is_called(const fact *f, const char *name) {
    if (f->what[0]) return false;
    char whole[2 * MAX_WORD + 1];
    if (f->color[0]) {
        snprintf(whole, sizeof whole, "%s %s", f->color, f->noun);
        if (same(name, whole) || same(name, f->noun)) return true;
        snprintf(whole, sizeof whole, "%s shape", f->color);
        return same(name, whole);
    }
    return same(name, f->noun);
}

// Whether `many` is the plural of a name that the fact goes by.
static bool are_called(const fact *f, const char *many) {
    char one[MAX_TEXT];
    const size_t length = strlen(many);
    if (length >= sizeof one) return false;
    if (is_called(f, many)) return true; // fish
    static const struct { const char *many, *one; } endings[] = {{"ies", "y"}, {"es", ""}, {"s", ""}};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t ending = strlen(endings[i].many);
        if (length <= ending || !same(many + length - ending, endings[i].many)) continue;
        snprintf(one, sizeof one, "%.*s%s", (int)(length - ending), many, endings[i].one);
        if (is_called(f, one)) return true;
    }
    return false;
}

// The only one of that name.
static const fact *find(const facts *all, const char *name) {
    const fact *found = NULL;
    for (int i = 0; i < all->n; i++) {
        if (!is_called(&all->facts[i], name)) continue;
        if (found) return NULL;
        found = &all->facts[i];
    }
    return found;
}

// The only writing of this sort ("": any) that has this colour, place, text; NULL: whatever it is.
static const fact *find_writing(const facts *all, const char *what, const char *color, const char *place,
                                const char *text, bool sign) {
    const fact *found = NULL;
    for (int i = 0; i < all->n; i++) {
        const fact *f = &all->facts[i];
        if (!f->what[0] || (what && !same(f->what, what)) || (color && !same(f->color, color)) ||
            (place && !same(f->place, place)) || (text && !same(f->text, text)) ||
            (sign && !same(f->noun, "sign")))
            continue;
        if (found) return NULL;
        found = f;
    }
    return found;
}

static int column(const char *place) {
    return strstr(place, "left") ? 0 : strstr(place, "right") ? 2 : 1;
}

static int row(const char *place) {
    return strstr(place, "top") ? 0 : strstr(place, "bottom") ? 2 : 1;
}

// ---- questions --------------------------------------------------------------------------------------------

static void say(char answer[ANSWER_SIZE], const char *text) {
    snprintf(answer, ANSWER_SIZE, "%s", text);
}

static void say_number(char answer[ANSWER_SIZE], int number) {
    snprintf(answer, ANSWER_SIZE, "%d", number);
}

static const char *without_article(const char *name) {
    if (strncmp(name, "an ", 3) == 0) return name + 3;
    return strncmp(name, "a ", 2) == 0 ? name + 2 : name;
}

static bool answer_relation(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    gaps g;
    bool across = FORM("Is the * left or right of the *?");
    const bool which = across || FORM("Is the * above or below the *?");
    int sign = 0;
    if (!which) {
        if ((across = FORM("Is the * left of the *?")))
            sign = -1;
        else if ((across = FORM("Is the * right of the *?")))
            sign = 1;
        else if (FORM("Is the * above the *?"))
            sign = -1;
        else if (FORM("Is the * below the *?"))
            sign = 1;
        else
            return false;
    }
    const fact *a = find(all, g.text[0]), *b = find(all, g.text[1]);
    if (!a || !b) return true;
    const int way = across ? column(a->place) - column(b->place) : row(a->place) - row(b->place);
    if (way == 0) return true;
    if (which)
        say(answer, across ? (way < 0 ? "left" : "right") : (way < 0 ? "above" : "below"));
    else
        say(answer, (way < 0) == (sign < 0) ? "yes" : "no");
    return true;
}

// "word", "number", "letter" or "digit".
static const char *asked_sort(const char *question) {
    static const char *const sorts[] = {"word", "number", "letter"};
    for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++) {
        if (strstr(question, sorts[i])) return sorts[i];
    }
    return "digit";
}

static bool answer_writing(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    gaps g;
    const fact *f = NULL;
    if (FORM("What is written here?", "What can you read?")) {
        f = find_writing(all, NULL, NULL, NULL, NULL, false);
    } else if (FORM("Which * can you read?", "What is the word?", "What is the number?")) {
        f = find_writing(all, asked_sort(question), NULL, NULL, NULL, false);
    } else if (FORM("What * is on the * sign?", "Which * is on the * sign?")) {
        f = find_writing(all, g.text[0], g.text[1], NULL, NULL, true);
    } else if (FORM("What word is *?", "Which word is *?", "What number is *?", "Which number is *?",
                    "What letter is *?", "Which letter is *?", "What digit is *?", "Which digit is *?")) {
        f = find_writing(all, asked_sort(question), NULL, g.text[0] + 7, NULL, false);
    } else if (FORM("What is the * word?", "Read the * word.", "What is the * number?",
                    "Read the * number.")) {
        f = find_writing(all, asked_sort(question), g.text[0], NULL, NULL, false);
    } else {
        return false;
    }
    if (f) say(answer, f->text);
    return true;
}

static bool answer_color(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    gaps g, inner;
    if (!FORM("What color is the *?", "What is the color of the *?")) return false;
    const char *name = g.text[0];
    const fact *f;
    if (same(name, "sign")) {
        f = find_writing(all, NULL, NULL, NULL, NULL, true);
    } else if (has_form("sign with the * *", name, &inner, 0)) {
        f = find_writing(all, inner.text[0], NULL, NULL, inner.text[1], true);
    } else if (has_form("word *", name, &inner, 0)) {
        f = find_writing(all, "word", NULL, NULL, inner.text[0], false);
    } else if (has_form("number *", name, &inner, 0)) {
        f = find_writing(all, "number", NULL, NULL, inner.text[0], false);
    } else {
        f = find(all, name);
    }
    if (f) say(answer, f->color);
    return true;
}

static void answer_objects(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    gaps g;
    const fact *f, *other;
    if (answer_relation(all, question, answer) || answer_color(all, question, answer)) return;
    if (FORM("What is the * shape?", "Which shape is *?", "What shape is the * one?")) {
        char name[MAX_TEXT + 8];
        snprintf(name, sizeof name, "%s shape", g.text[0]);
        if ((f = find(all, name))) say(answer, f->noun);
    } else if (FORM("What size is the *?", "Is the * small or large?")) {
        if ((f = find(all, g.text[0]))) say(answer, f->size);
    } else if (FORM("Which is larger, the * or the *?")) {
        f = find(all, g.text[0]);
        other = find(all, g.text[1]);
        if (f && other && !same(f->size, other->size)) say(answer, g.text[same(f->size, "large") ? 0 : 1]);
    } else if (FORM("Where is the *?", "What is the position of the *?")) {
        if ((f = find(all, g.text[0]))) say(answer, f->place);
    } else if (FORM("How many * are there?", "How many * can you see?")) {
        int n = 0;
        for (int i = 0; i < all->n; i++)
            n += same(g.text[0], "objects") || are_called(&all->facts[i], g.text[0]);
        say_number(answer, n);
    } else if (FORM("Is there *?", "Can you see *?")) {
        bool there = false;
        for (int i = 0; i < all->n; i++)
            there = there || is_called(&all->facts[i], without_article(g.text[0]));
        say(answer, there ? "yes" : "no");
    } else if (FORM("What is this?", "What is in the picture?")) {
        if (all->n == 1) say(answer, all->facts[0].noun);
    } else if (answer_writing(all, question, answer)) {
        return;
    } else if (FORM("What is at the *?", "Which object is at the *?", "What is in the *?",
                    "Which object is in the *?")) {
        for (int i = 0; i < all->n; i++) {
            if (same(all->facts[i].place, g.text[0])) say(answer, all->facts[i].noun);
        }
    }
}

static void answer_document(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    static const struct {
        const char *label, *forms[3];
    } fields[] = {
        {"total", {"What is the total?", "How much is it in total?"}},
        {"name", {"What is the name?", "Which name is on the form?"}},
        {"age", {"What is the age?", "Which age is on the form?"}},
        {"city", {"What is the city?", "Which city is on the form?"}},
        {"room", {"What is the room number?", "Which room is it?"}},
        {"from", {"Which city is it from?", "Where is it from?"}},
        {"to", {"Which city does it go to?", "Where does it go?"}},
        {"seat", {"What is the seat number?", "Which seat is it?"}},
        {"gate", {"What is the gate number?", "Which gate is it?"}},
    };
    gaps g;
    const char *label = NULL, *value = NULL;
    int sum = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (has_any_form(fields[i].forms, question, &g)) label = fields[i].label;
    }
    if (FORM("What kind of document is it?", "What document is this?"))
        say(answer, all->kind);
    else if (FORM("What costs *?"))
        value = g.text[0];
    else if (!label && FORM("What is the price of the *?", "How much is the *?"))
        label = g.text[0];
    for (int i = 0; i < all->n; i++) {
        const fact *f = &all->facts[i];
        if (label && same(f->noun, label)) say(answer, f->text);
        if (value && same(f->text, value) && !same(f->noun, "total")) say(answer, f->noun);
        if (!same(f->noun, "total")) sum += atoi(f->text);
    }
    if (label && same(label, "total")) say_number(answer, sum); // not what is printed: what it must be
}

// "the red bar", "bar A", "TEA".
static const fact *find_bar(const facts *all, const char *phrase) {
    gaps g;
    const char *name = phrase;
    if (has_form("the * bar", phrase, &g, 0) || has_form("bar *", phrase, &g, 0)) name = g.text[0];
    const fact *found = NULL;
    for (int i = 0; i < all->n; i++) {
        if (same(all->facts[i].noun, name)) found = &all->facts[i];
    }
    return found;
}

static void answer_chart(const facts *all, const char *question, char answer[ANSWER_SIZE]) {
    gaps g;
    const fact *largest = &all->facts[0], *smallest = &all->facts[0];
    for (int i = 1; i < all->n; i++) {
        if (atoi(all->facts[i].text) > atoi(largest->text)) largest = &all->facts[i];
        if (atoi(all->facts[i].text) < atoi(smallest->text)) smallest = &all->facts[i];
    }
    if (FORM("How many bars are there?", "How many bars can you see?")) {
        say_number(answer, all->n);
    } else if (FORM("What is the value of *?", "Which number is at *?")) {
        const fact *bar = find_bar(all, g.text[0]);
        if (bar) say(answer, bar->text);
    } else if (FORM("Which bar is the *?", "What is the * bar?")) {
        say(answer, same(g.text[0], "largest") ? largest->noun : smallest->noun);
    } else if (FORM("Is * larger than *?")) {
        const fact *a = find_bar(all, g.text[0]), *b = find_bar(all, g.text[1]);
        if (a && b) say(answer, atoi(a->text) > atoi(b->text) ? "yes" : "no");
    }
}

void answer_from_caption(const char *caption, const char *question, char answer[ANSWER_SIZE]) {
    facts all;
    read_caption(caption, &all);
    say(answer, "?");
    if (same(all.kind, "objects"))
        answer_objects(&all, question, answer);
    else if (same(all.kind, "chart"))
        answer_chart(&all, question, answer);
    else
        answer_document(&all, question, answer);
}
