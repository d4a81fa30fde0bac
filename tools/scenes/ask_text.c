// Questions about what is written: on signs, documents and charts.
#include "questions.h"

#include "chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK(question, type, first, second, ...)                                                              \
    pd_word_question((question), (type), (const char *const[]){__VA_ARGS__},                                 \
                     (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)), (first),      \
                     (second), random)

// Whether this text, a word or a number, is held out.
static bool text_held_out(const char *text) {
    if (text[0] >= '0' && text[0] <= '9') return pd_number_held_out((int)strtol(text, NULL, 10));
    for (int word = 0; word < pd_n_words(); word++) {
        if (strcmp(pd_word(word), text) == 0) return pd_word_held_out(word);
    }
    return false;
}

// ---- signs ------------------------------------------------------------------------------------------------

static int count_signs(const pd_scene *scene, bool of_kind, bool number) {
    int n = 0;
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[i];
        n += item->kind == PD_ITEM_SIGN && (!of_kind || item->number == number);
    }
    return n;
}

// "at the top", "in the center", "at the bottom": where a sign's row is.
static const char *row_phrase(const pd_item *sign) {
    return pd_place_phrases[sign->cell / 3 * 3 + 1];
}

static void ask_text(const pd_scene *scene, const pd_item *sign, uint64_t *random, pd_question *question) {
    const char *what = pd_writing(scene, sign);
    const int n = count_signs(scene, false, false);
    const bool only_of_kind = count_signs(scene, true, sign->number) == 1;
    char first[32], second[32];
    if (n == 1 && pd_chance(random, 0.4)) {
        ASK(question, sign->number ? "number, alone" : "word, alone", NULL, NULL, "What is written here?",
            "What can you read?");
    } else if (only_of_kind && pd_chance(random, 0.4)) {
        ASK(question, sign->number ? "number, alone" : "word, alone", what, NULL, "What is the %s?",
            "Which %s can you read?");
    } else if (n > 1 && pd_chance(random, 0.4)) {
        ASK(question, sign->number ? "number at a place" : "word at a place", what, row_phrase(sign),
            "What %s is %s?", "Which %s is %s?");
    } else if (sign->board) {
        snprintf(first, sizeof first, "%s", pd_colors[sign->color].name);
        ASK(question, sign->number ? "number by color" : "word by color", what, first,
            "What %s is on the %s sign?", "Which %s is on the %s sign?");
    } else {
        snprintf(second, sizeof second, "%s %s", pd_colors[sign->color].name, what);
        ASK(question, sign->number ? "number by color" : "word by color", second, NULL, "What is the %s?",
            "Read the %s.");
    }
    pd_word_answer(question, sign->text);
    question->held_out = text_held_out(sign->text);
}

bool pd_ask_signs(const pd_scene *scene, pd_task task, int target, uint64_t *random, pd_question *question) {
    if (task == PD_TASK_POSITIONS) return pd_ask_objects(scene, task, target, false, random, question);
    int order[PD_MAX_ITEMS];
    pd_permutation(random, order, scene->n_items);
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *sign = &scene->items[order[i]];
        if (sign->kind != PD_ITEM_SIGN) continue;
        if (task == PD_TASK_WORDS && !sign->number) {
            ask_text(scene, sign, random, question);
            return true;
        }
        if (task == PD_TASK_NUMBERS && sign->number && (int)strlen(sign->text) == target + 1) {
            ask_text(scene, sign, random, question);
            return true;
        }
        if (task == PD_TASK_COLORS && sign->color == target) {
            const char *what = pd_writing(scene, sign);
            if (sign->board && count_signs(scene, false, false) == 1 && pd_chance(random, 0.5)) {
                ASK(question, "color of a sign", NULL, NULL, "What color is the sign?",
                    "What is the color of the sign?");
            } else if (sign->board) {
                ASK(question, "color of a sign", what, sign->text, "What color is the sign with the %s %s?");
            } else {
                ASK(question, "color of a word", what, sign->text, "What color is the %s %s?");
            }
            question->held_out = strstr(question->question, sign->text) && text_held_out(sign->text);
            pd_word_answer(question, pd_colors[target].name);
            return true;
        }
    }
    return false;
}

// ---- letters ----------------------------------------------------------------------------------------------

bool pd_ask_letters(const pd_scene *scene, pd_task task, int target, uint64_t *random,
                    pd_question *question) {
    const bool digit = task == PD_TASK_NUMBERS;
    int order[PD_MAX_ITEMS];
    if (target > 0) return false; // more digits than one
    pd_permutation(random, order, scene->n_items);
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[order[i]];
        if (item->number != digit) continue;
        ASK(question, digit ? "digit at a place" : "letter at a place", pd_writing(scene, item),
            pd_place_phrases[item->cell], "What %s is %s?", "Which %s is %s?");
        pd_word_answer(question, item->text);
        return true;
    }
    return false;
}

// ---- documents --------------------------------------------------------------------------------------------

static void ask_field(const pd_line *line, uint64_t *random, pd_question *question) {
    switch (line->field) {
    case PD_FIELD_PRICE:
        ASK(question, "price", line->label, NULL, "What is the price of the %s?", "How much is the %s?");
        break;
    case PD_FIELD_TOTAL:
        ASK(question, "total", NULL, NULL, "What is the total?", "How much is it in total?");
        break;
    case PD_FIELD_NAME:
        ASK(question, "name", NULL, NULL, "What is the name?", "Which name is on the form?");
        break;
    case PD_FIELD_AGE:
        ASK(question, "age", NULL, NULL, "What is the age?", "Which age is on the form?");
        break;
    case PD_FIELD_CITY:
        ASK(question, "city", NULL, NULL, "What is the city?", "Which city is on the form?");
        break;
    case PD_FIELD_ROOM:
        ASK(question, "room", NULL, NULL, "What is the room number?", "Which room is it?");
        break;
    case PD_FIELD_FROM:
        ASK(question, "from", NULL, NULL, "Which city is it from?", "Where is it from?");
        break;
    case PD_FIELD_TO:
        ASK(question, "to", NULL, NULL, "Which city does it go to?", "Where does it go?");
        break;
    case PD_FIELD_SEAT:
        ASK(question, "seat", NULL, NULL, "What is the seat number?", "Which seat is it?");
        break;
    case PD_FIELD_GATE:
        ASK(question, "gate", NULL, NULL, "What is the gate number?", "Which gate is it?");
        break;
    }
    pd_word_answer(question, line->value);
    question->held_out =
        text_held_out(line->value) || (line->field == PD_FIELD_PRICE && text_held_out(line->label));
}

// Targets: 0 total, 1 price, 2 which goods have this price, 3 name, 4 number of a form, 5 city, 6 number of a
// ticket, 7 kind of document.
bool pd_ask_document(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    const pd_document *document = &scene->document;
    if (target == 7) {
        static const char *const kinds[] = {"receipt", "menu", "form", "ticket"};
        ASK(question, "kind of document", NULL, NULL, "What kind of document is it?",
            "What document is this?");
        pd_word_answer(question, kinds[document->kind]);
        return true;
    }
    static const int target_of[] = {
        [PD_FIELD_PRICE] = 1, [PD_FIELD_TOTAL] = 0, [PD_FIELD_NAME] = 3, [PD_FIELD_AGE] = 4,
        [PD_FIELD_CITY] = 5,  [PD_FIELD_ROOM] = 4,  [PD_FIELD_FROM] = 5, [PD_FIELD_TO] = 5,
        [PD_FIELD_SEAT] = 6,  [PD_FIELD_GATE] = 6,
    };
    int order[PD_MAX_LINES];
    pd_permutation(random, order, document->n_lines);
    for (int i = 0; i < document->n_lines; i++) {
        const pd_line *line = &document->lines[order[i]];
        if (target == 2 && line->field == PD_FIELD_PRICE) {
            ASK(question, "goods by price", line->value, NULL, "What costs %s?");
            pd_word_answer(question, line->label);
            question->held_out = text_held_out(line->value) || text_held_out(line->label);
            return true;
        }
        if (target_of[line->field] == target) {
            ask_field(line, random, question);
            return true;
        }
    }
    return false;
}

// ---- charts -----------------------------------------------------------------------------------------------

// What the bar is called in an answer, and in a question.
static const char *bar_name(const pd_chart *chart, int bar) {
    return chart->names == PD_BARS_BY_COLOR ? pd_colors[chart->color[bar]].name : chart->label[bar];
}

static void bar_phrase(const pd_chart *chart, int bar, char phrase[32]) {
    static const char *const formats[] = {"the %s bar", "bar %s", "%s"};
    const char *format = formats[chart->names];
    const char *gap = strchr(format, '%');
    snprintf(phrase, 32, "%.*s%s%s", (int)(gap - format), format, bar_name(chart, bar), gap + 2);
}

// Targets: 0 largest, 1 smallest, 2 value, 3 larger: yes, 4 larger: no, 5 number of bars.
bool pd_ask_chart(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    const pd_chart *chart = &scene->chart;
    int largest = 0, smallest = 0;
    for (int i = 1; i < chart->n_bars; i++) {
        if (chart->value[i] > chart->value[largest]) largest = i;
        if (chart->value[i] < chart->value[smallest]) smallest = i;
    }
    char phrase[32], other[32], digits[PD_MAX_TEXT];
    if (target < 2) {
        const int bar = target == 0 ? largest : smallest;
        ASK(question, target == 0 ? "largest" : "smallest", target == 0 ? "largest" : "smallest", NULL,
            "Which bar is the %s?", "What is the %s bar?");
        pd_word_answer(question, bar_name(chart, bar));
        question->held_out = text_held_out(bar_name(chart, bar));
        return true;
    }
    if (target == 2) {
        const int bar = pd_pick(random, chart->n_bars);
        bar_phrase(chart, bar, phrase);
        ASK(question, "value", phrase, NULL, "What is the value of %s?", "Which number is at %s?");
        snprintf(digits, sizeof digits, "%d", chart->value[bar]);
        pd_word_answer(question, digits);
        question->held_out = pd_number_held_out(chart->value[bar]) || text_held_out(bar_name(chart, bar));
        return true;
    }
    if (target < 5) {
        const int a = pd_pick(random, chart->n_bars);
        const int b = (a + 1 + pd_pick(random, chart->n_bars - 1)) % chart->n_bars;
        const bool yes = target == 3;
        const bool a_larger = chart->value[a] > chart->value[b];
        bar_phrase(chart, a_larger == yes ? a : b, phrase);
        bar_phrase(chart, a_larger == yes ? b : a, other);
        ASK(question, "comparison", phrase, other, "Is %s larger than %s?");
        pd_word_answer(question, yes ? "yes" : "no");
        question->held_out = text_held_out(bar_name(chart, a)) || text_held_out(bar_name(chart, b));
        return true;
    }
    ASK(question, "number of bars", NULL, NULL, "How many bars are there?", "How many bars can you see?");
    snprintf(digits, sizeof digits, "%d", chart->n_bars);
    pd_word_answer(question, digits);
    return true;
}
