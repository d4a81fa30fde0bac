// Captions: all there is in a scene, in reading order, so that a caption has one right wording.
#include "questions.h"

#include <stdarg.h>
#include <stdio.h>

const char *const pd_describe_wordings[PD_N_DESCRIBE_WORDINGS] = {
    "Describe the picture.", "Describe this image.", "What can you see in the picture?"};

typedef struct {
    char *text;
    size_t used;
} caption_writer;

__attribute__((format(printf, 2, 3))) static void add(caption_writer *writer, const char *format, ...) {
    if (writer->used >= PD_MAX_CAPTION - 1) return;
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(writer->text + writer->used, PD_MAX_CAPTION - writer->used, format, arguments);
    va_end(arguments);
    if (n > 0) writer->used += (size_t)n;
}

const char *pd_writing(const pd_scene *scene, const pd_item *item) {
    if (scene->kind == PD_SCENE_LETTERS) return item->number ? "digit" : "letter";
    return item->number ? "number" : "word";
}

// Where it is, then what it is: the words about a thing can look where the words before have led.
static void add_item(caption_writer *writer, const pd_scene *scene, const pd_item *item) {
    const char *color = pd_colors[item->color].name;
    const bool alone = scene->n_items == 1;
    switch (item->kind) {
    case PD_ITEM_SHAPE:
        add(writer, "%s a %s %s %s", pd_place_phrases[item->cell], item->large ? "large" : "small", color,
            pd_shapes[item->shape].one);
        break;
    case PD_ITEM_EMOJI: {
        const char *name = pd_emoji_list[item->emoji].one;
        if (!alone) add(writer, "%s ", pd_place_phrases[item->cell]);
        add(writer, "%s %s", pd_article(name), name);
        break;
    }
    case PD_ITEM_SIGN:
        if (scene->kind == PD_SCENE_LETTERS) {
            add(writer, "%s the %s %s %s", pd_place_phrases[item->cell], color, pd_writing(scene, item),
                item->text);
            break;
        }
        if (!alone) add(writer, "%s ", pd_place_phrases[item->cell / 3 * 3 + 1]);
        if (item->board) {
            add(writer, "%s %s sign with the %s %s", pd_article(color), color, pd_writing(scene, item),
                item->text);
        } else {
            add(writer, "the %s %s %s", color, pd_writing(scene, item), item->text);
        }
        break;
    }
}

static void add_document(caption_writer *writer, const pd_document *document) {
    static const char *const kinds[] = {"a receipt:", "a menu:", "a form:", "a ticket:"};
    add(writer, "%s", kinds[document->kind]);
    for (int i = 0; i < document->n_lines; i++) {
        add(writer, "%s %s %s", i ? "," : "", document->lines[i].label, document->lines[i].value);
    }
}

static void add_chart(caption_writer *writer, const pd_chart *chart) {
    add(writer, "a chart with %d bars:", chart->n_bars);
    for (int i = 0; i < chart->n_bars; i++) {
        const char *name =
            chart->names == PD_BARS_BY_COLOR ? pd_colors[chart->color[i]].name : chart->label[i];
        add(writer, "%s %s %d", i ? "," : "", name, chart->value[i]);
    }
}

void pd_caption(const pd_scene *scene, char caption[PD_MAX_CAPTION]) {
    caption_writer writer = {caption, 0};
    caption[0] = '\0';
    if (scene->kind == PD_SCENE_DOCUMENT) {
        add_document(&writer, &scene->document);
    } else if (scene->kind == PD_SCENE_CHART) {
        add_chart(&writer, &scene->chart);
    } else {
        for (int i = 0; i < scene->n_items; i++) {
            if (i) add(&writer, ", ");
            add_item(&writer, scene, &scene->items[i]);
        }
    }
    add(&writer, ".");
}
