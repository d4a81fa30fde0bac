// What scenes are made of: colours, shapes, emoji, words; and which of them training never sees.
#pragma once

#include <stdbool.h>

enum { PD_N_COLORS = 8, PD_N_SHAPES = 8, PD_N_EMOJI = 48, PD_N_CELLS = 9, PD_N_FONTS = 8 };

typedef enum {
    PD_CIRCLE,
    PD_SQUARE,
    PD_TRIANGLE,
    PD_STAR,
    PD_HEART,
    PD_CROSS,
    PD_MOON,
    PD_RING,
} pd_shape;

typedef struct pd_color {
    const char *name;
    double red, green, blue; // in [0, 1]
    bool dark;               // legible as text on paper
} pd_color;

typedef struct pd_noun {
    const char *one, *many;
} pd_noun;

typedef enum { PD_ANIMAL, PD_FOOD, PD_VEHICLE, PD_THING } pd_category;

typedef struct pd_emoji {
    const char *text; // UTF-8, shown as a picture without a variation selector
    const char *one, *many;
    pd_category category;
} pd_emoji;

typedef enum { PD_WORD_SIGN, PD_WORD_GOODS, PD_WORD_NAME, PD_WORD_CITY } pd_word_class;

typedef struct pd_font {
    const char *family, *package; // fontconfig's name; Debian's package
} pd_font;

extern const pd_color pd_colors[PD_N_COLORS];
extern const pd_noun pd_shapes[PD_N_SHAPES];
extern const pd_emoji pd_emoji_list[PD_N_EMOJI];
extern const pd_font pd_fonts[PD_N_FONTS];
extern const pd_font pd_emoji_font;
// Where something is in the picture, by cell of a 3 x 3 grid: "top left"; and as a phrase: "at the top left".
extern const char *const pd_places[PD_N_CELLS];
extern const char *const pd_place_phrases[PD_N_CELLS];

int pd_n_words(void);
const char *pd_word(int word); // 2 to 6 capitals, as it is drawn
pd_word_class pd_word_class_of(int word);
const char *pd_article(const char *noun); // "a" or "an"

// Held out of training, in pictures and in questions: one pair of every colour and shape, every twelfth word
// of each class, about a tenth of the numbers from 10 on.
bool pd_pair_held_out(int color, int shape);
bool pd_word_held_out(int word);
bool pd_number_held_out(int number);

// Twice as frequent as the others, so that there is something popular to ask for where it is absent.
bool pd_pair_popular(int color, int shape);
bool pd_emoji_popular(int emoji);
