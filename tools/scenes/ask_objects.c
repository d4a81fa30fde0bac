// Questions about shapes and emoji.
#include "questions.h"

#include "chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 40 };

// What a group of items has in common; -1: anything. An emoji has neither shape nor colour.
typedef struct {
    int color, shape, emoji;
} description;

static bool matches(const pd_item *item, description d) {
    if (d.emoji >= 0) return item->kind == PD_ITEM_EMOJI && item->emoji == d.emoji;
    if (d.color < 0 && d.shape < 0) return item->kind != PD_ITEM_SIGN;
    return item->kind == PD_ITEM_SHAPE && (d.color < 0 || item->color == d.color) &&
           (d.shape < 0 || item->shape == d.shape);
}

static int count(const pd_scene *scene, description d) {
    int n = 0;
    for (int i = 0; i < scene->n_items; i++)
        n += matches(&scene->items[i], d);
    return n;
}

// "red circle", "red shape", "circle", "dog"; one or many of them.
static void name_description(char name[MAX_NAME], description d, bool many) {
    if (d.emoji >= 0) {
        const pd_emoji *emoji = &pd_emoji_list[d.emoji];
        snprintf(name, MAX_NAME, "%s", many ? emoji->many : emoji->one);
        return;
    }
    const char *shape = many ? "shapes" : "shape";
    if (d.shape >= 0) shape = many ? pd_shapes[d.shape].many : pd_shapes[d.shape].one;
    if (d.color >= 0) {
        snprintf(name, MAX_NAME, "%s %s", pd_colors[d.color].name, shape);
    } else {
        snprintf(name, MAX_NAME, "%s", shape);
    }
}

// The whole of what an item is called by.
static description describe(const pd_item *item) {
    if (item->kind == PD_ITEM_EMOJI) return (description){-1, -1, item->emoji};
    return (description){item->color, item->shape, -1};
}

static bool held_out_pair(description d) {
    return d.color >= 0 && d.shape >= 0 && pd_pair_held_out(d.color, d.shape);
}

// A name that only this item has; false where it has a double.
static bool name_item(const pd_scene *scene, const pd_item *item, char name[MAX_NAME], bool *held_out) {
    if (item->kind == PD_ITEM_SIGN) return false;
    const description d = describe(item);
    if (count(scene, d) != 1) return false;
    name_description(name, d, false);
    *held_out = *held_out || held_out_pair(d);
    return true;
}

#define ASK(question, type, first, second, ...)                                                              \
    pd_word_question((question), (type), (const char *const[]){__VA_ARGS__},                                 \
                     (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)), (first),      \
                     (second), random)

// ---- one item's attributes --------------------------------------------------------------------------------

static bool ask_shape(const pd_scene *scene, int shape, uint64_t *random, pd_question *question) {
    int order[PD_MAX_ITEMS];
    pd_permutation(random, order, scene->n_items);
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[order[i]];
        if (item->kind != PD_ITEM_SHAPE || item->shape != shape ||
            count(scene, (description){item->color, -1, -1}) != 1)
            continue;
        ASK(question, "shape", pd_colors[item->color].name, NULL, "What is the %s shape?",
            "Which shape is %s?", "What shape is the %s one?");
        pd_word_answer(question, pd_shapes[shape].one);
        question->held_out = pd_pair_held_out(item->color, shape);
        return true;
    }
    return false;
}

static bool ask_color(const pd_scene *scene, int color, uint64_t *random, pd_question *question) {
    int order[PD_MAX_ITEMS];
    pd_permutation(random, order, scene->n_items);
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[order[i]];
        if (item->kind != PD_ITEM_SHAPE || item->color != color ||
            count(scene, (description){-1, item->shape, -1}) != 1)
            continue;
        ASK(question, "color of a shape", pd_shapes[item->shape].one, NULL, "What color is the %s?",
            "What is the color of the %s?");
        pd_word_answer(question, pd_colors[color].name);
        question->held_out = pd_pair_held_out(color, item->shape);
        return true;
    }
    return false;
}

// Targets: 0 small, 1 large, 2 which of two is larger.
static bool ask_size(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    int order[PD_MAX_ITEMS];
    pd_permutation(random, order, scene->n_items);
    const pd_item *small = NULL, *large = NULL;
    char small_name[MAX_NAME] = "", large_name[MAX_NAME] = "", name[MAX_NAME];
    bool small_held_out = false, large_held_out = false;
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[order[i]];
        bool held_out = false;
        if (item->kind != PD_ITEM_SHAPE || !name_item(scene, item, name, &held_out)) continue;
        if (item->large) {
            large = item;
            large_held_out = held_out;
            memcpy(large_name, name, sizeof name);
        } else {
            small = item;
            small_held_out = held_out;
            memcpy(small_name, name, sizeof name);
        }
    }
    if (target < 2) {
        if (target == 0 ? !small : !large) return false;
        ASK(question, "size of one", target == 0 ? small_name : large_name, NULL, "What size is the %s?",
            "Is the %s small or large?");
        pd_word_answer(question, target == 0 ? "small" : "large");
        question->held_out = target == 0 ? small_held_out : large_held_out;
        return true;
    }
    if (!small || !large) return false;
    const bool large_first = pd_chance(random, 0.5);
    ASK(question, "larger of two", large_first ? large_name : small_name,
        large_first ? small_name : large_name, "Which is larger, the %s or the %s?");
    pd_word_answer(question, large_name);
    question->choice = large_first ? 1 : 2;
    question->held_out = small_held_out || large_held_out;
    return true;
}

// ---- places -----------------------------------------------------------------------------------------------

static bool ask_position(const pd_scene *scene, int cell, uint64_t *random, pd_question *question) {
    char name[MAX_NAME];
    for (int i = 0; i < scene->n_items; i++) {
        bool held_out = false;
        const pd_item *item = &scene->items[i];
        if (item->cell != cell || !name_item(scene, item, name, &held_out)) continue;
        if (item->kind == PD_ITEM_EMOJI && scene->n_items == 1) return false; // large: place is vague
        ASK(question, "position", name, NULL, "Where is the %s?", "What is the position of the %s?");
        pd_word_answer(question, pd_places[cell]);
        question->held_out = held_out;
        return true;
    }
    return false;
}

// Targets: 0 yes, 1 no, 2 left, 3 right, 4 above, 5 below.
static bool ask_relation(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    enum { LEFT, RIGHT, ABOVE, BELOW };
    static const char *const phrases[] = {"left of", "right of", "above", "below"};
    static const char *const answers[] = {"left", "right", "above", "below"};
    const int relation = target < 2 ? pd_pick(random, 4) : target - 2;
    const bool holds = target != 1;
    int first[PD_MAX_ITEMS] = {0}, second[PD_MAX_ITEMS] = {0};
    if (scene->n_items < 2) return false;
    pd_permutation(random, first, scene->n_items);
    pd_permutation(random, second, scene->n_items);
    for (int i = 0; i < scene->n_items * scene->n_items; i++) {
        const pd_item *a = &scene->items[first[i / scene->n_items]];
        const pd_item *b = &scene->items[second[i % scene->n_items]];
        const int right = a->cell % 3 - b->cell % 3, down = a->cell / 3 - b->cell / 3;
        int side = relation == LEFT || relation == RIGHT ? right : down;
        if (relation == LEFT || relation == ABOVE) side = -side;
        if (side == 0 || (side > 0) != holds) continue;
        char a_name[MAX_NAME], b_name[MAX_NAME], phrase[PD_MAX_QUESTION];
        bool held_out = false;
        if (!name_item(scene, a, a_name, &held_out) || !name_item(scene, b, b_name, &held_out)) continue;
        if (target < 2) {
            snprintf(phrase, sizeof phrase, "%s the %s", phrases[relation], b_name);
            ASK(question, "relation, yes or no", a_name, phrase, "Is the %s %s?");
            pd_word_answer(question, holds ? "yes" : "no");
        } else if (relation == LEFT || relation == RIGHT) {
            ASK(question, "left or right", a_name, b_name, "Is the %s left or right of the %s?");
            pd_word_answer(question, answers[relation]);
        } else {
            ASK(question, "above or below", a_name, b_name, "Is the %s above or below the %s?");
            pd_word_answer(question, answers[relation]);
        }
        question->held_out = held_out;
        return true;
    }
    return false;
}

// ---- counting ---------------------------------------------------------------------------------------------

// Target: one less than the number. Asks for a group of that many.
static bool ask_count(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    description groups[3 * PD_MAX_ITEMS + 1];
    int n_groups = 0;
    groups[n_groups++] = (description){-1, -1, -1};
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[i];
        if (item->kind == PD_ITEM_EMOJI) {
            groups[n_groups++] = (description){-1, -1, item->emoji};
        } else if (item->kind == PD_ITEM_SHAPE) {
            groups[n_groups++] = (description){item->color, -1, -1};
            groups[n_groups++] = (description){-1, item->shape, -1};
            groups[n_groups++] = (description){item->color, item->shape, -1};
        }
    }
    int order[3 * PD_MAX_ITEMS + 1];
    pd_permutation(random, order, n_groups);
    for (int i = 0; i < n_groups; i++) {
        const description group = groups[order[i]];
        if (count(scene, group) != target + 1 || held_out_pair(group)) continue;
        char name[MAX_NAME] = "objects", number[PD_MAX_TEXT];
        const bool all = group.color < 0 && group.shape < 0 && group.emoji < 0;
        if (!all) name_description(name, group, true);
        ASK(question, all ? "count of all" : "count of some", name, NULL, "How many %s are there?",
            "How many %s can you see?");
        snprintf(number, sizeof number, "%d", target + 1);
        pd_word_answer(question, number);
        return true;
    }
    return false;
}

// ---- existence --------------------------------------------------------------------------------------------

static bool popular(description d) {
    return d.emoji >= 0 ? pd_emoji_popular(d.emoji) : pd_pair_popular(d.color, d.shape);
}

enum { RANDOM, POPULAR, ADVERSARIAL };

// Something that is there; of the popular things, where they are asked for.
static bool find_present(const pd_scene *scene, int manner, bool held_out, uint64_t *random,
                         description *present) {
    int order[PD_MAX_ITEMS];
    pd_permutation(random, order, scene->n_items);
    for (int i = 0; i < scene->n_items; i++) {
        *present = describe(&scene->items[order[i]]);
        if (manner != POPULAR || held_out || popular(*present)) return true;
    }
    return false;
}

// Something absent: drawn from all there is, from what is frequent, or from what likes to be where this is:
// colour and shape that are both there, but not together; another emoji of a kind that is there.
static bool find_absent(const pd_scene *scene, int manner, bool held_out, uint64_t *random,
                        description *absent) {
    enum { ATTEMPTS = 200 };
    const bool emoji = scene->kind == PD_SCENE_EMOJI;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        const pd_item *other = &scene->items[pd_pick(random, scene->n_items)];
        description d = {-1, -1, -1};
        bool fits = true;
        if (emoji) {
            d.emoji = pd_pick(random, PD_N_EMOJI);
            if (manner == ADVERSARIAL)
                fits = pd_emoji_list[d.emoji].category == pd_emoji_list[other->emoji].category;
        } else {
            d.color = pd_pick(random, PD_N_COLORS);
            d.shape = pd_pick(random, PD_N_SHAPES);
            if (manner == ADVERSARIAL)
                fits = count(scene, (description){d.color, -1, -1}) > 0 &&
                       count(scene, (description){-1, d.shape, -1}) > 0;
            if (pd_pair_held_out(d.color, d.shape) != held_out) fits = false;
        }
        // What is absent is as often something popular as what is there.
        if (!held_out && !popular(d) && (manner == POPULAR || pd_chance(random, 0.5))) fits = false;
        if (fits && count(scene, d) == 0) {
            *absent = d;
            return true;
        }
    }
    return false;
}

// Targets: 0 … 2 yes, 3 … 5 no; of each three the absent things are random, popular, adversarial.
static bool ask_existence(const pd_scene *scene, int target, bool held_out, uint64_t *random,
                          pd_question *question) {
    static const char *const types[] = {"existence, random", "existence, popular", "existence, adversarial"};
    const bool exists = target < 3;
    description d;
    if (!(exists ? find_present : find_absent)(scene, target % 3, held_out, random, &d)) return false;
    char name[MAX_NAME];
    name_description(name, d, false);
    ASK(question, types[target % 3], pd_article(name), name, "Is there %s %s?", "Can you see %s %s?");
    pd_word_answer(question, exists ? "yes" : "no");
    question->held_out = held_out_pair(d);
    return true;
}

// ---- emoji ------------------------------------------------------------------------------------------------

static bool ask_emoji(const pd_scene *scene, int target, uint64_t *random, pd_question *question) {
    for (int i = 0; i < scene->n_items; i++) {
        const pd_item *item = &scene->items[i];
        if (item->kind != PD_ITEM_EMOJI || item->emoji != target) continue;
        if (scene->n_items == 1) {
            ASK(question, "emoji alone", NULL, NULL, "What is this?", "What is in the picture?");
        } else {
            ASK(question, "emoji at a place", pd_place_phrases[item->cell], NULL, "What is %s?",
                "Which object is %s?");
        }
        pd_word_answer(question, pd_emoji_list[target].one);
        return true;
    }
    return false;
}

bool pd_ask_objects(const pd_scene *scene, pd_task task, int target, bool held_out, uint64_t *random,
                    pd_question *question) {
    switch (task) {
    case PD_TASK_SHAPES:
        return ask_shape(scene, target, random, question);
    case PD_TASK_COLORS:
        return ask_color(scene, target, random, question);
    case PD_TASK_SIZES:
        return ask_size(scene, target, random, question);
    case PD_TASK_POSITIONS:
        return ask_position(scene, target, random, question);
    case PD_TASK_RELATIONS:
        return ask_relation(scene, target, random, question);
    case PD_TASK_COUNTING:
        return ask_count(scene, target, random, question);
    case PD_TASK_EXISTENCE:
        return ask_existence(scene, target, held_out, random, question);
    case PD_TASK_EMOJI:
        return ask_emoji(scene, target, random, question);
    case PD_TASK_WORDS:
    case PD_TASK_NUMBERS:
    case PD_TASK_DOCUMENTS:
    case PD_TASK_CHARTS:
    case PD_N_TASKS:
        break;
    }
    return false;
}
