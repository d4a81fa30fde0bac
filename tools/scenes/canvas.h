// Scenes → pixels → PNG. A canvas belongs to one thread.
#pragma once

#include "artwork.h"

typedef struct pd_canvas pd_canvas;

// Of size x size pixels. The artwork must live as long.
pd_status pd_canvas_create(int size, const pd_artwork *artwork, pd_canvas **canvas, pd_error *err);
void pd_canvas_free(pd_canvas *canvas);
// Draws `scene` and encodes it as a PNG of 8-bit RGB: *png, of *size bytes, is malloc'd and the caller's.
pd_status pd_canvas_render(pd_canvas *canvas, const pd_scene *scene, uint8_t **png, size_t *size,
                           pd_error *err);
