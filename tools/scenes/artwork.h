// Letters and emoji, taken out of their fonts once. Nothing here changes afterwards: threads share it.
// (Drawing text in several threads at a time is beyond what some releases of cairo and pango stand.)
#pragma once

#include "base/error.h"
#include "scene.h"

#include <cairo.h>

enum { PD_N_LETTERS = 36, PD_EMOJI_SIDE = 160 };

typedef struct pd_letter {
    cairo_path_t *path; // its outline: capitals are of height 1 and stand on y = 0; y goes down
    double advance;
} pd_letter;

typedef struct pd_artwork {
    pd_letter letters[PD_N_FONTS][2][PD_N_LETTERS]; // [font][bold]: A … Z, 0 … 9
    uint8_t *emoji[PD_N_EMOJI];                     // [PD_EMOJI_SIDE][PD_EMOJI_SIDE] cairo ARGB32
    double emoji_box[PD_N_EMOJI][4];                // where it is not transparent: x, y, width, height
} pd_artwork;

// Fails where a font is missing, and names its Debian package.
pd_status pd_artwork_create(pd_artwork **artwork, pd_error *err);
void pd_artwork_free(pd_artwork *artwork);
// The letter or digit, small letters as capitals; NULL for anything else.
const pd_letter *pd_artwork_letter(const pd_artwork *artwork, int font, bool bold, char character);
