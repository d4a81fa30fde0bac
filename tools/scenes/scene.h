// A scene: everything that is in a picture, before it is drawn. Lengths are in units of 1/224 of a side.
#pragma once

#include "lists.h"

#include <stdint.h>

enum {
    PD_SCENE_SIDE = 224,
    PD_MAX_ITEMS = 9,
    PD_MAX_LINES = 5,
    PD_MAX_BARS = 5,
    PD_MAX_OBJECTS = 6, // the most that are counted
    PD_MAX_TEXT = 12,   // of a word or number, with the NUL
};

typedef enum {
    PD_SCENE_OBJECTS, // shapes, maybe an emoji or two
    PD_SCENE_EMOJI,
    PD_SCENE_SIGNS, // words and numbers
    PD_SCENE_DOCUMENT,
    PD_SCENE_CHART,
    PD_SCENE_LETTERS, // single ones, large
    PD_N_SCENES,
} pd_scene_kind;

extern const char *const pd_scene_names[PD_N_SCENES + 1]; // NULL-terminated

typedef enum { PD_ITEM_SHAPE, PD_ITEM_EMOJI, PD_ITEM_SIGN } pd_item_kind;

typedef struct pd_item {
    pd_item_kind kind;
    int cell;        // of a 3 x 3 grid, row by row; a word or number takes its row, or two cells from here on
    double x, y;     // centre
    double diameter; // of a shape or an emoji; the width that a sign may take
    double turn;     // radians
    int color;       // of a shape, a board, or letters
    int shape;
    int emoji;
    bool large;              // of a shape
    char text[PD_MAX_TEXT];  // of a sign
    bool number;             // digits
    bool board;              // letters on a board, else on the background
    double cap_height;       // of the letters
    double margin;           // free on either side of them, in their heights
    int font;                // pd_fonts
    bool bold, round, frame; // of a sign
} pd_item;

typedef enum { PD_RECEIPT, PD_MENU, PD_FORM, PD_TICKET, PD_N_DOCUMENTS } pd_document_kind;

typedef enum {
    PD_FIELD_PRICE, // of goods
    PD_FIELD_TOTAL,
    PD_FIELD_NAME,
    PD_FIELD_AGE,
    PD_FIELD_CITY,
    PD_FIELD_ROOM,
    PD_FIELD_FROM,
    PD_FIELD_TO,
    PD_FIELD_SEAT,
    PD_FIELD_GATE,
} pd_field;

typedef struct pd_line {
    pd_field field;
    char label[PD_MAX_TEXT]; // lower case
    char value[PD_MAX_TEXT];
} pd_line;

typedef struct pd_document {
    pd_document_kind kind;
    int n_lines;
    pd_line lines[PD_MAX_LINES];
    double left, top, width, pitch, cap_height;
    int font;
    bool bold;
    int paper; // tint
} pd_document;

typedef enum { PD_BARS_BY_COLOR, PD_BARS_BY_LETTER, PD_BARS_BY_WORD } pd_bar_names;

typedef struct pd_chart {
    pd_bar_names names; // by word: bars lie
    int n_bars;
    int value[PD_MAX_BARS]; // 10 … 99
    int color[PD_MAX_BARS]; // all the same where bars go by letters or words
    char label[PD_MAX_BARS][PD_MAX_TEXT];
    int font;
} pd_chart;

typedef struct pd_background {
    int tint, texture;
    double angle, pitch, phase; // of stripes, dots, checks
} pd_background;

typedef struct pd_scene {
    pd_scene_kind kind;
    pd_background background;
    int n_items; // in reading order: by cell
    pd_item items[PD_MAX_ITEMS];
    pd_document document;
    pd_chart chart;
} pd_scene;

enum { PD_N_TINTS = 8, PD_N_TEXTURES = 6 };

// Draws a scene of this kind from a stream. `held_out`: with many things that training never sees; else with
// none. `most`: objects, emoji or signs at most, 1 … PD_MAX_OBJECTS.
void pd_scene_compose(pd_scene *scene, pd_scene_kind kind, int most, bool held_out, uint64_t *random);

// How high a document's paper is; above a total stands a rule that takes some space.
enum { PD_RULE_SPACE = 4 };
double pd_document_height(const pd_document *document);

// The parts, each filling in its own of a zeroed scene.
void pd_compose_objects(pd_scene *scene, int most, bool held_out, uint64_t *random);
void pd_compose_emoji(pd_scene *scene, int most, uint64_t *random);
void pd_compose_signs(pd_scene *scene, int most, bool held_out, uint64_t *random);
void pd_compose_letters(pd_scene *scene, int most, uint64_t *random);
void pd_compose_document(pd_scene *scene, bool held_out, uint64_t *random);
void pd_compose_chart(pd_scene *scene, bool held_out, uint64_t *random);

// A word of this class and a number in [low, high]; held out ones with probability 1/2 where wanted, else
// never. The number 10 … 99 and its like must hold numbers of both sorts.
int pd_draw_word(pd_word_class class_of, bool held_out, uint64_t *random);
int pd_draw_number(int low, int high, bool held_out, uint64_t *random);
