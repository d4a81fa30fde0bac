// Documents and charts: lines and bars.
#include "scene.h"

#include "chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- documents --------------------------------------------------------------------------------------------

static pd_line *add_line(pd_document *document, pd_field field, const char *label) {
    pd_line *line = &document->lines[document->n_lines++];
    line->field = field;
    snprintf(line->label, sizeof line->label, "%s", label);
    return line;
}

static void add_number(pd_document *document, pd_field field, const char *label, int number) {
    pd_line *line = add_line(document, field, label);
    snprintf(line->value, sizeof line->value, "%d", number);
}

static void add_word(pd_document *document, pd_field field, const char *label, pd_word_class class_of,
                     bool held_out, uint64_t *random) {
    pd_line *line = add_line(document, field, label);
    snprintf(line->value, sizeof line->value, "%s", pd_word(pd_draw_word(class_of, held_out, random)));
}

static bool has_text(const pd_document *document, const char *text) {
    for (int i = 0; i < document->n_lines; i++) {
        if (strcmp(document->lines[i].label, text) == 0 || strcmp(document->lines[i].value, text) == 0)
            return true;
    }
    return false;
}

// Goods and prices, all different; returns the sum.
static int add_goods(pd_document *document, int n, bool held_out, uint64_t *random) {
    int sum = 0;
    while (document->n_lines < n) {
        const char *goods = pd_word(pd_draw_word(PD_WORD_GOODS, held_out, random));
        const int price = pd_draw_number(1, pd_chance(random, 0.3) ? 9 : 99, held_out, random);
        char digits[PD_MAX_TEXT];
        snprintf(digits, sizeof digits, "%d", price);
        if (has_text(document, goods) || has_text(document, digits)) continue;
        add_number(document, PD_FIELD_PRICE, goods, price);
        sum += price;
    }
    return sum;
}

static void make_receipt(pd_document *document, bool held_out, uint64_t *random) {
    const int n = 2 + pd_pick(random, 3);
    int sum;
    do {
        document->n_lines = 0;
        sum = add_goods(document, n, held_out, random);
    } while (!held_out && pd_number_held_out(sum));
    add_number(document, PD_FIELD_TOTAL, "total", sum);
}

static void make_form(pd_document *document, bool held_out, uint64_t *random) {
    int order[4];
    pd_permutation(random, order, 4);
    const int n = 3 + pd_pick(random, 2);
    for (int i = 0; i < n; i++) {
        switch (order[i]) {
        case 0:
            add_word(document, PD_FIELD_NAME, "name", PD_WORD_NAME, held_out, random);
            break;
        case 1:
            add_number(document, PD_FIELD_AGE, "age", pd_draw_number(5, 99, held_out, random));
            break;
        case 2:
            add_word(document, PD_FIELD_CITY, "city", PD_WORD_CITY, held_out, random);
            break;
        default:
            add_number(document, PD_FIELD_ROOM, "room", pd_draw_number(1, 999, held_out, random));
        }
    }
}

static void make_ticket(pd_document *document, bool held_out, uint64_t *random) {
    do {
        document->n_lines = 0;
        add_word(document, PD_FIELD_FROM, "from", PD_WORD_CITY, held_out, random);
        add_word(document, PD_FIELD_TO, "to", PD_WORD_CITY, held_out, random);
    } while (strcmp(document->lines[0].value, document->lines[1].value) == 0);
    const bool gate_first = pd_chance(random, 0.5);
    for (int i = 0; i < 2; i++) {
        if ((i == 0) == gate_first) {
            add_number(document, PD_FIELD_GATE, "gate", pd_draw_number(1, 99, held_out, random));
        } else {
            add_number(document, PD_FIELD_SEAT, "seat", pd_draw_number(1, 999, held_out, random));
        }
    }
}

double pd_document_height(const pd_document *document) {
    return (document->n_lines + 1) * document->pitch + 22 +
           (document->kind == PD_RECEIPT ? PD_RULE_SPACE : 0);
}

void pd_compose_document(pd_scene *scene, bool held_out, uint64_t *random) {
    pd_document *document = &scene->document;
    document->kind = (pd_document_kind)pd_pick(random, PD_N_DOCUMENTS);
    switch (document->kind) {
    case PD_RECEIPT:
        make_receipt(document, held_out, random);
        break;
    case PD_MENU:
        add_goods(document, 3 + pd_pick(random, 3), held_out, random);
        break;
    case PD_FORM:
        make_form(document, held_out, random);
        break;
    case PD_TICKET:
    case PD_N_DOCUMENTS:
        make_ticket(document, held_out, random);
        break;
    }
    document->width = pd_between(random, 180, 204);
    document->left = pd_between(random, 8, PD_SCENE_SIDE - 8 - document->width);
    document->cap_height = pd_between(random, 14, 15.5);
    document->pitch = pd_between(random, 26, 29);
    const double height = pd_document_height(document);
    document->top = pd_between(random, 5, PD_SCENE_SIDE - 5 - height);
    document->font = pd_pick(random, PD_N_FONTS);
    document->bold = pd_chance(random, 0.4);
    document->paper = pd_pick(random, 3);
}

// ---- charts -----------------------------------------------------------------------------------------------

// Bars that are compared differ by this much at least, of 99.
enum { CLEAR_DIFFERENCE = 6 };

static bool clearly_different(const pd_chart *chart, int n, int value) {
    for (int i = 0; i < n; i++) {
        if (abs(chart->value[i] - value) < CLEAR_DIFFERENCE) return false;
    }
    return true;
}

// Whether goods are of at most five letters and not yet among the first n labels.
static bool good_label(const pd_chart *chart, int n, const char *word) {
    if (strlen(word) > 5) return false;
    for (int i = 0; i < n; i++) {
        if (strcmp(chart->label[i], word) == 0) return false;
    }
    return true;
}

void pd_compose_chart(pd_scene *scene, bool held_out, uint64_t *random) {
    pd_chart *chart = &scene->chart;
    chart->names = (pd_bar_names)pd_pick(random, 3);
    chart->n_bars = 2 + pd_pick(random, PD_MAX_BARS - 1);
    chart->font = pd_pick(random, PD_N_FONTS);
    int colors[PD_N_COLORS];
    pd_permutation(random, colors, PD_N_COLORS);
    for (int i = 0; i < chart->n_bars; i++) {
        do {
            chart->value[i] = pd_draw_number(10, 99, held_out, random);
        } while (!clearly_different(chart, i, chart->value[i]));
        chart->color[i] = colors[chart->names == PD_BARS_BY_COLOR ? i : 0];
        const char *label = "";
        if (chart->names == PD_BARS_BY_WORD) {
            do {
                label = pd_word(pd_draw_word(PD_WORD_GOODS, held_out, random));
            } while (!good_label(chart, i, label));
        } else if (chart->names == PD_BARS_BY_LETTER) {
            static const char *const letters[PD_MAX_BARS] = {"A", "B", "C", "D", "E"};
            label = letters[i];
        }
        snprintf(chart->label[i], sizeof chart->label[i], "%s", label);
    }
}
