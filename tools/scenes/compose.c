// Scenes of objects, emoji and signs: what stands in which cell of a 3 x 3 grid.
#include "scene.h"

#include "chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const pd_scene_names[PD_N_SCENES + 1] = {"objects", "emoji",   "signs", "document",
                                                     "chart",   "letters", NULL};

static const double cell_side = (double)PD_SCENE_SIDE / 3;

int pd_draw_word(pd_word_class class_of, bool held_out, uint64_t *random) {
    const bool want = held_out && pd_chance(random, 0.5);
    int word;
    do {
        word = pd_pick(random, pd_n_words());
    } while (pd_word_class_of(word) != class_of || pd_word_held_out(word) != want);
    return word;
}

int pd_draw_number(int low, int high, bool held_out, uint64_t *random) {
    const bool want = held_out && high >= 10 && pd_chance(random, 0.5);
    int number;
    do {
        number = low + pd_pick(random, high - low + 1);
    } while (pd_number_held_out(number) != want);
    return number;
}

// ---- things in cells --------------------------------------------------------------------------------------

// Puts an item of this diameter somewhere near the middle of its cell, so that there is no doubt about its
// place.
static void place(pd_item *item, int cell, double diameter, uint64_t *random) {
    double slack = (cell_side - 1.1 * diameter) / 2 - 1; // the points of a star reach beyond its circle
    if (slack > 13) slack = 13;
    if (slack < 0) slack = 0;
    item->cell = cell;
    item->diameter = diameter;
    const int column = cell % 3, row = cell / 3;
    item->x = cell_side * (column + 0.5) + pd_between(random, -slack, slack);
    item->y = cell_side * (row + 0.5) + pd_between(random, -slack, slack);
}

static void draw_pair(pd_item *item, bool held_out, uint64_t *random) {
    if (held_out && pd_chance(random, 0.5)) {
        item->color = pd_pick(random, PD_N_COLORS);
        for (item->shape = 0; !pd_pair_held_out(item->color, item->shape);)
            item->shape++;
        return;
    }
    do {
        item->color = pd_pick(random, PD_N_COLORS);
        item->shape = pd_pick(random, PD_N_SHAPES);
    } while (pd_pair_held_out(item->color, item->shape) ||
             (!pd_pair_popular(item->color, item->shape) && pd_chance(random, 0.5)));
}

// Draws again until the pair has this colour or shape; -1: any.
static void draw_pair_with(pd_item *item, int color, int shape, bool held_out, uint64_t *random) {
    do {
        draw_pair(item, held_out, random);
    } while ((color >= 0 && item->color != color) || (shape >= 0 && item->shape != shape));
}

static void make_shape(pd_item *item, int cell, int color, int shape, bool held_out, uint64_t *random) {
    item->kind = PD_ITEM_SHAPE;
    draw_pair_with(item, color, shape, held_out, random);
    item->large = pd_chance(random, 0.5);
    place(item, cell, item->large ? pd_between(random, 54, 64) : pd_between(random, 28, 35), random);
    item->turn = pd_between(random, -0.15, 0.15);
}

static int draw_emoji(int category, uint64_t *random) {
    int emoji;
    do {
        emoji = pd_pick(random, PD_N_EMOJI);
    } while ((category >= 0 && (int)pd_emoji_list[emoji].category != category) ||
             (!pd_emoji_popular(emoji) && pd_chance(random, 0.5)));
    return emoji;
}

static bool has_emoji(const pd_scene *scene, int emoji) {
    for (int i = 0; i < scene->n_items; i++) {
        if (scene->items[i].kind == PD_ITEM_EMOJI && scene->items[i].emoji == emoji) return true;
    }
    return false;
}

static void make_emoji(pd_item *item, int cell, int emoji, double diameter, uint64_t *random) {
    item->kind = PD_ITEM_EMOJI;
    item->emoji = emoji;
    place(item, cell, diameter, random);
    item->turn = pd_between(random, -0.1, 0.1);
}

static int compare_cells(const void *a, const void *b) {
    return ((const pd_item *)a)->cell - ((const pd_item *)b)->cell;
}

static void sort_items(pd_scene *scene) {
    qsort(scene->items, (size_t)scene->n_items, sizeof *scene->items, compare_cells);
}

// Often some of the objects have the colour or the shape in common, so that there is something to count.
void pd_compose_objects(pd_scene *scene, int most, bool held_out, uint64_t *random) {
    int cells[PD_N_CELLS];
    pd_permutation(random, cells, PD_N_CELLS);
    const int n = 1 + pd_pick(random, most);
    const int n_emoji = n > 1 && pd_chance(random, 0.25) ? 1 + pd_pick(random, n > 3 ? 2 : 1) : 0;
    const int n_shapes = n - n_emoji;
    const int theme = pd_pick(random, 4); // 0, 1: none; 2: colour; 3: shape
    const int n_alike = 1 + pd_pick(random, n_shapes);
    const int alike = pd_pick(random, PD_N_COLORS);
    for (int i = 0; i < n_shapes; i++) {
        const bool same = i < n_alike;
        make_shape(&scene->items[i], cells[i], theme == 2 && same ? alike : -1,
                   theme == 3 && same ? alike : -1, held_out, random);
        scene->n_items++;
    }
    while (scene->n_items < n) {
        const int emoji = draw_emoji(-1, random);
        if (has_emoji(scene, emoji)) continue;
        make_emoji(&scene->items[scene->n_items], cells[scene->n_items], emoji, pd_between(random, 48, 60),
                   random);
        scene->n_items++;
    }
    sort_items(scene);
}

void pd_compose_emoji(pd_scene *scene, int most, uint64_t *random) {
    int cells[PD_N_CELLS];
    pd_permutation(random, cells, PD_N_CELLS);
    if (pd_chance(random, 0.3) || most == 1) { // one, large, in the middle
        make_emoji(&scene->items[0], 4, draw_emoji(-1, random), pd_between(random, 90, 130), random);
        scene->items[0].x += pd_between(random, -30, 30);
        scene->items[0].y += pd_between(random, -30, 30);
        scene->n_items = 1;
        return;
    }
    const int n = 2 + pd_pick(random, most - 1);
    // Things of a kind keep company, so that there is something likely to ask for where it is absent.
    const int category = pd_chance(random, 0.6) ? pd_pick(random, PD_THING + 1) : -1;
    const int n_alike = pd_chance(random, 0.4) ? 2 + pd_pick(random, n - 1) : 1;
    const double diameter = pd_between(random, 48, 66);
    while (scene->n_items < n) {
        const int i = scene->n_items;
        const bool again = i > 0 && i < n_alike;
        const int emoji = again ? scene->items[0].emoji : draw_emoji(category, random);
        if (!again && has_emoji(scene, emoji)) continue;
        make_emoji(&scene->items[i], cells[i], emoji, diameter, random);
        scene->n_items++;
    }
    sort_items(scene);
}

// ---- words and numbers ------------------------------------------------------------------------------------

static void make_sign(pd_item *item, bool held_out, uint64_t *random) {
    item->kind = PD_ITEM_SIGN;
    item->number = pd_chance(random, 0.4);
    if (item->number) {
        static const int highest[] = {9, 99, 999};
        const int digits = pd_pick(random, 3);
        const int lowest = digits ? highest[digits - 1] + 1 : 0;
        snprintf(item->text, sizeof item->text, "%d",
                 pd_draw_number(lowest, highest[digits], held_out, random));
    } else {
        const pd_word_class class_of =
            (pd_word_class)(pd_chance(random, 0.5) ? PD_WORD_SIGN : pd_pick(random, 4));
        snprintf(item->text, sizeof item->text, "%s", pd_word(pd_draw_word(class_of, held_out, random)));
    }
    item->board = pd_chance(random, 0.75);
    do {
        item->color = pd_pick(random, PD_N_COLORS);
    } while (!item->board && !pd_colors[item->color].dark);
    item->font = pd_pick(random, PD_N_FONTS);
    item->bold = pd_chance(random, 0.6);
    item->round = pd_chance(random, 0.5);
    item->frame = pd_chance(random, 0.5);
    item->turn = pd_between(random, -0.05, 0.05);
    item->margin = 0.8;
}

static bool sign_repeats(const pd_scene *scene, const pd_item *item) {
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *other = &scene->items[i];
        if (other->kind == PD_ITEM_SIGN &&
            (other->color == item->color || strcmp(other->text, item->text) == 0))
            return true;
    }
    return false;
}

// One large sign, or one in each of two or three rows, each of its own colour; shapes may stand beside them.
void pd_compose_signs(pd_scene *scene, int most, bool held_out, uint64_t *random) {
    const int n = 1 + pd_pick(random, most < 3 ? most : 3);
    int rows[3];
    pd_permutation(random, rows, 3);
    for (int i = 0; i < n; i++) {
        pd_item *item = &scene->items[scene->n_items];
        do {
            *item = (pd_item){0};
            make_sign(item, held_out, random);
        } while (sign_repeats(scene, item));
        const bool alone = n == 1 && pd_chance(random, 0.7);
        const int row = alone ? 1 : rows[i];
        const bool full = scene->n_items + n - i >= most;
        const int beside = alone || full ? 0 : pd_pick(random, 3); // 0: nothing, 1: left, 2: right
        item->cell = row * 3 + (beside == 1);
        item->diameter = (beside ? 2 : 3) * cell_side - 10;
        item->cap_height = alone ? pd_between(random, 18, 32) : pd_between(random, 15, 20);
        const double centre = beside == 0 ? 1.5 : beside == 1 ? 2 : 1;
        const double slack_x = beside ? 2 : alone ? 8 : 25;
        item->x = centre * cell_side + pd_between(random, -slack_x, slack_x);
        item->y = (row + 0.5) * cell_side + pd_between(random, -1, 1) * (alone ? 45 : 12);
        scene->n_items++;
        if (beside) {
            make_shape(&scene->items[scene->n_items], row * 3 + (beside == 1 ? 0 : 2), -1, -1, held_out,
                       random);
            scene->n_items++;
        }
    }
    sort_items(scene);
}

// Letters and digits, no two alike, each in its cell.
void pd_compose_letters(pd_scene *scene, int most, uint64_t *random) {
    static const char symbols[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    int cells[PD_N_CELLS], order[sizeof symbols - 1];
    pd_permutation(random, cells, PD_N_CELLS);
    pd_permutation(random, order, (int)(sizeof order / sizeof *order));
    scene->n_items = 1 + pd_pick(random, most);
    for (int i = 0; i < scene->n_items; i++) {
        pd_item *item = &scene->items[i];
        item->kind = PD_ITEM_SIGN;
        item->text[0] = symbols[order[i]];
        item->number = order[i] >= 26;
        do {
            item->color = pd_pick(random, PD_N_COLORS);
        } while (!pd_colors[item->color].dark);
        item->font = pd_pick(random, PD_N_FONTS);
        item->bold = pd_chance(random, 0.6);
        item->turn = pd_between(random, -0.05, 0.05);
        item->cap_height = pd_between(random, 18, 48);
        place(item, cells[i], 1.3 * item->cap_height, random); // W is wider than high
        item->diameter = cell_side - 4;
    }
    sort_items(scene);
}

void pd_scene_compose(pd_scene *scene, pd_scene_kind kind, int most, bool held_out, uint64_t *random) {
    *scene = (pd_scene){.kind = kind};
    scene->background = (pd_background){
        .tint = pd_pick(random, PD_N_TINTS),
        .texture = pd_pick(random, PD_N_TEXTURES),
        .angle = pd_between(random, 0, 3.14159265358979),
        .pitch = pd_between(random, 12, 28),
        .phase = pd_between(random, 0, 28),
    };
    switch (kind) {
    case PD_SCENE_OBJECTS:
        pd_compose_objects(scene, most, held_out, random);
        break;
    case PD_SCENE_EMOJI:
        pd_compose_emoji(scene, most, random);
        break;
    case PD_SCENE_SIGNS:
        pd_compose_signs(scene, most, held_out, random);
        break;
    case PD_SCENE_DOCUMENT:
        pd_compose_document(scene, held_out, random);
        break;
    case PD_SCENE_CHART:
        pd_compose_chart(scene, held_out, random);
        break;
    case PD_SCENE_LETTERS:
        pd_compose_letters(scene, most, random);
        break;
    case PD_N_SCENES:
        break;
    }
}
