// PyramidDrop in C: run large vision-language models with a pyramid of visual tokens.
//
//     pd_error err;
//     pd_model_params mp;
//     pd_model_params_default(&mp, sizeof mp);
//     mp.model_path = "llava-v1.5-7b.Q4_K_M.gguf";
//     mp.mmproj_path = "mmproj-model-f16.gguf";
//     pd_model *model;
//     if (pd_model_load(&mp, &model, &err) != PD_OK) { fprintf(stderr, "%s\n", err.message); return 1; }
//
//     pd_image *image;
//     pd_image_load("cat.jpg", &image, &err);
//
//     pd_session_params sp;
//     pd_session_params_default(&sp, sizeof sp);     // four equal stages, λ = 0.5, greedy
//     pd_session *session;
//     pd_session_create(model, &sp, &session, &err);
//
//     const pd_message question = {PD_ROLE_USER, "What is in the picture?", &image, 1};
//     pd_session_prompt(session, &question, 1, &err); // prefill happens here
//     const char *piece;
//     while (pd_session_next(session, &piece, &err) == PD_OK) fputs(piece, stdout);
//
//     pd_session_free(session);
//     pd_image_free(image);
//     pd_model_free(model);
//
// Conventions. Functions that can fail return a pd_status; on failure *err, which may be NULL, holds one
// readable line, and output handles are set to NULL. Strings are UTF-8. Handles are opaque and owned by the
// caller, who frees them; freeing NULL does nothing. The library prints nothing, never exits, and keeps no
// global state of its own. A model may be used by several sessions in several threads at once; a session by
// one thread at a time, except pd_session_cancel, which any thread or signal handler may call. Parameter
// structs start with their size: one of another version's header is refused instead of misread.

#ifndef PYRAMIDDROP_H
#define PYRAMIDDROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PD_API __attribute__((visibility("default")))
#else
#define PD_API
#endif

// ---- status and errors ------------------------------------------------------------------------------------

typedef enum pd_status {
    PD_OK = 0,
    PD_DONE = 1,            // the answer is complete: no error
    PD_ERR_ARGUMENT = 2,    // a parameter is out of its range
    PD_ERR_IO = 3,          // a file cannot be opened, read or written
    PD_ERR_FORMAT = 4,      // a file's content is not what it must be
    PD_ERR_UNSUPPORTED = 5, // valid, but not something this library runs
    PD_ERR_MEMORY = 6,      // an allocation failed
    PD_ERR_BACKEND = 7,     // ggml or a device failed
    PD_ERR_CONTEXT = 8,     // the prompt is longer than the context
    PD_ERR_CANCELLED = 9,   // pd_session_cancel was called
} pd_status;

// 512 bytes, for good.
typedef struct pd_error {
    pd_status status;
    char message[508]; // one line, NUL-terminated, without a newline
} pd_error;

// The version of the library, "major.minor.patch".
PD_API const char *pd_version(void);
// A short English name of a status, for logs.
PD_API const char *pd_status_name(pd_status status);

typedef enum pd_log_level { PD_LOG_DEBUG, PD_LOG_INFO, PD_LOG_WARNING, PD_LOG_ERROR } pd_log_level;
// `line` has no newline and is valid during the call only. Sessions in several threads may call at once.
typedef void (*pd_log_callback)(pd_log_level level, const char *line, void *user);

// ---- policy: which image tokens live how long -------------------------------------------------------------

// The most drops a policy can have.
#define PD_MAX_DROPS 31

// Who is asked how much an image token matters (docs/algorithm.md, sections 3 and 9).
typedef enum pd_scorer {
    PD_SCORER_NEXT_LAYER = 0,     // PyramidDrop: the last instruction token's attention in the next layer
    PD_SCORER_PREVIOUS_LAYER = 1, // FastV: the last token's attention in the layer just run
    PD_SCORER_UNIFORM = 2,        // evenly spaced (baseline)
    PD_SCORER_RANDOM = 3,         // seeded random (baseline)
} pd_scorer;

typedef enum pd_positions {
    PD_POSITIONS_COMPACT = 0,  // live rows are renumbered after every drop (the published behaviour)
    PD_POSITIONS_ORIGINAL = 1, // every token keeps its first position
} pd_positions;

// After layer_list[i] executed decoder layers, (int)(N * image_token_ratio_list[i]) of an image's N tokens
// stay.
typedef struct pd_policy {
    int32_t n_drops;                             // 0: dense
    int32_t layer_list[PD_MAX_DROPS];            // strictly increasing, in 1..n_layers-1
    double image_token_ratio_list[PD_MAX_DROPS]; // non-increasing, in [0, 1]; 0 withdraws the image
    pd_scorer scorer;
    pd_positions positions;
    uint64_t seed; // PD_SCORER_RANDOM
} pd_policy;

// Nothing is dropped.
PD_API void pd_policy_none(pd_policy *policy);
// The paper's default for a model of n_layers: four equal stages, λ = 0.5.
PD_API void pd_policy_default(pd_policy *policy, int32_t n_layers);
// A pyramid from two lists of n_drops entries, checked except for the model's depth.
PD_API pd_status pd_policy_pyramid(pd_policy *policy, const int32_t *layer_list,
                                   const double *image_token_ratio_list, int32_t n_drops, pd_error *err);
// The same from LLaVA's argument texts, such as "[8,16,24]" and "[0.5,0.25,0.125]"; the brackets may be left
// out.
PD_API pd_status pd_policy_lists(pd_policy *policy, const char *layer_list,
                                 const char *image_token_ratio_list, pd_error *err);
// From text, for a model of n_layers:
//     none | pdrop | pdrop:8=.5,16=.25,24=.125 | fastv:2=.5 | vtw:16 | uniform:8=.5 | random:8=.5,16=.25
// and behind any of them ";positions=original" and ";seed=7".
PD_API pd_status pd_policy_parse(pd_policy *policy, const char *text, int32_t n_layers, pd_error *err);
// Whether `policy` can run on a model of n_layers.
PD_API pd_status pd_policy_check(const pd_policy *policy, int32_t n_layers, pd_error *err);

// ---- pictures ---------------------------------------------------------------------------------------------

// A decoded picture: 8-bit RGB, upright.
typedef struct pd_image pd_image;

// JPEG, PNG or WebP, told apart by content. EXIF orientation is applied, alpha laid over white.
PD_API pd_status pd_image_load(const char *path, pd_image **image, pd_error *err);
// The same from memory; `name` stands in messages.
PD_API pd_status pd_image_decode(const uint8_t *bytes, size_t size, const char *name, pd_image **image,
                                 pd_error *err);
// From width * height * 3 bytes of RGB, row by row, which are copied.
PD_API pd_status pd_image_from_rgb(const uint8_t *rgb, int32_t width, int32_t height, pd_image **image,
                                   pd_error *err);
PD_API int32_t pd_image_width(const pd_image *image);
PD_API int32_t pd_image_height(const pd_image *image);
// width * height * 3 bytes, owned by the image.
PD_API const uint8_t *pd_image_rgb(const pd_image *image);
PD_API void pd_image_free(pd_image *image);

// ---- model ------------------------------------------------------------------------------------------------

typedef struct pd_model pd_model;

// How a CPU multiplies matrices in prefill and in the vision tower (docs/architecture.md, "Lowering").
// Decoding does not depend on it, but that PD_COMPUTE_GGML leaves it to ggml's kernels: on x86 with AVX2,
// products of q4_K and q6_K weights and attention over an f16 cache have kernels of our own.
typedef enum pd_compute_type {
    // int8 for quantised weights where the CPU is fast at it (VNNI, AMX, Arm; AVX2 without AVX-512);
    // else bf16 where it is fast at that (AVX512-BF16, AMX, Arm); else f32
    PD_COMPUTE_AUTO = 0,
    PD_COMPUTE_GGML = 1, // ggml's own kernels for everything
    PD_COMPUTE_F32 = 2,
    PD_COMPUTE_BF16 = 3, // inputs rounded to bf16, sums in f32
    // inputs rounded to 8 bits: a scale for each weight column and each activation row; on x86 without VNNI
    // to 11 and 14
    PD_COMPUTE_INT8 = 4,
} pd_compute_type;

typedef struct pd_model_params {
    size_t size;             // sizeof(pd_model_params), set by pd_model_params_default
    const char *model_path;  // the text model's GGUF
    const char *mmproj_path; // the vision tower and projector's GGUF; NULL: text only
    const char *device;      // a ggml device name, "CPU", "Vulkan0", …; NULL: CPU
    pd_log_callback log;     // NULL: silent
    void *log_user;
    pd_compute_type compute; // on the CPU
    // fail where the CPU or memory cannot; else take the next best and log a warning, as PD_COMPUTE_AUTO
    // always does where memory lacks
    bool compute_strict;
} pd_model_params;

PD_API void pd_model_params_default(pd_model_params *params, size_t size);
// Weights are mapped from the files, which must stay unchanged while the model lives.
PD_API pd_status pd_model_load(const pd_model_params *params, pd_model **model, pd_error *err);
PD_API void pd_model_free(pd_model *model);

PD_API int32_t pd_model_n_layers(const pd_model *model);
PD_API int32_t pd_model_n_vocab(const pd_model *model);
PD_API int32_t pd_model_n_ctx_train(const pd_model *model); // the context it was trained with, in tokens
PD_API bool pd_model_has_vision(const pd_model *model);
// How many image tokens a picture of this size becomes; 0 without vision.
PD_API int32_t pd_model_n_image_tokens(const pd_model *model, int32_t width, int32_t height);
// One line: architecture, size, layers, types.
PD_API const char *pd_model_description(const pd_model *model);
// Where an image stands among token ids, as in LLaVA's code (IMAGE_TOKEN_INDEX).
#define PD_IMAGE_TOKEN (-200)
// Token ids of `text`. With `special`, text such as "</s>" becomes its control token; "<image>" becomes
// PD_IMAGE_TOKEN. Writes at most `capacity` ids and stores the whole count in *count.
PD_API pd_status pd_model_tokenize(const pd_model *model, const char *text, bool add_bos, bool special,
                                   int32_t *tokens, size_t capacity, size_t *count, pd_error *err);
// The bytes of one token, not NUL-terminated and not necessarily whole UTF-8; owned by the model.
PD_API pd_status pd_model_token_piece(const pd_model *model, int32_t token, const char **bytes, size_t *size,
                                      pd_error *err);

// ---- session ----------------------------------------------------------------------------------------------

typedef struct pd_session pd_session;

typedef enum pd_attention {
    PD_ATTENTION_SDPA = 0,  // the best of the two at hand
    PD_ATTENTION_EAGER = 1, // explicit scores and softmax, in f32
    PD_ATTENTION_FLASH = 2, // fused: ggml's kernel, or on the CPU blocks of oneDNN products
} pd_attention;

typedef enum pd_cache_type { PD_CACHE_F16 = 0, PD_CACHE_F32 = 1, PD_CACHE_BF16 = 2 } pd_cache_type;

// LLaVA's image_aspect_ratio.
typedef enum pd_aspect_ratio {
    PD_ASPECT_AUTO = 0,   // what the mmproj says: anyres with grid pinpoints, else pad
    PD_ASPECT_PAD = 1,    // squared with the mean colour
    PD_ASPECT_ANYRES = 2, // LLaVA-NeXT's tiles
    PD_ASPECT_SQUARE = 3, // CLIP's own: shortest side resized, centre cropped
} pd_aspect_ratio;

// progress in [0, 1] of `what` ("packing", "image", "prefill"); called from the thread inside
// pd_session_prompt.
typedef void (*pd_progress_callback)(const char *what, double progress, void *user);

typedef struct pd_session_params {
    size_t size;             // sizeof(pd_session_params), set by pd_session_params_default
    const pd_policy *policy; // copied; NULL: pd_policy_default
    pd_attention attention;
    pd_cache_type cache_type;
    pd_aspect_ratio aspect_ratio;
    const char
        *conversation;  // LLaVA's template name ("vicuna_v1", …); NULL: what the GGUF says, else vicuna_v1
    const char *system; // system prompt; NULL: the template's own
    int32_t n_ctx;      // most tokens of prompt and answer together; 0: the model's own, at most 4096
    int32_t n_predict;  // most tokens of one answer; -1: until the end token or a full context
    int32_t n_threads;  // 0: one for each core
    float temperature;  // 0: greedy
    int32_t top_k;      // 0: off
    float top_p;        // 1: off
    float repeat_penalty;  // 1: off
    int32_t repeat_last_n; // how many of the last tokens the penalty looks at
    uint64_t seed;
    bool ignore_eos; // for benchmarks
    pd_progress_callback progress;
    void *progress_user;
} pd_session_params;

PD_API void pd_session_params_default(pd_session_params *params, size_t size);
// The model must outlive the session.
PD_API pd_status pd_session_create(pd_model *model, const pd_session_params *params, pd_session **session,
                                   pd_error *err);
PD_API void pd_session_free(pd_session *session);

typedef enum pd_role { PD_ROLE_SYSTEM = 0, PD_ROLE_USER = 1, PD_ROLE_ASSISTANT = 2 } pd_role;

typedef struct pd_message {
    pd_role role;
    const char *text;        // may hold "<image>" where a picture stands
    pd_image *const *images; // placeholders the text lacks are put before it, as LLaVA does
    size_t n_images;
} pd_message;

// Runs prefill over a whole conversation, which must end with a user message. May be called again: the
// ranking belongs to the last question, so every call starts afresh; pictures already encoded are not encoded
// again.
PD_API pd_status pd_session_prompt(pd_session *session, const pd_message *messages, size_t n_messages,
                                   pd_error *err);
// The same without a template: token ids with PD_IMAGE_TOKEN where each picture stands, in order. Where a
// picture stands last, its last token asks, and is ranked as the others are.
PD_API pd_status pd_session_prompt_tokens(pd_session *session, const int32_t *tokens, size_t n_tokens,
                                          pd_image *const *images, size_t n_images, pd_error *err);
// The next piece of the answer: whole UTF-8 characters, maybe none (""), owned by the session until the next
// call. PD_DONE after the last.
PD_API pd_status pd_session_next(pd_session *session, const char **piece, pd_error *err);
// The same, one token at a time; *token is its id.
PD_API pd_status pd_session_next_token(pd_session *session, int32_t *token, pd_error *err);
// The logits the next token will be drawn from: n_vocab floats, owned by the session until the next call.
PD_API pd_status pd_session_logits(pd_session *session, const float **logits, size_t *count, pd_error *err);
// Stops the running prompt or next at the next layer, with PD_ERR_CANCELLED; with none running, the next one
// that has to compute. Safe in signal handlers that run on a stack of their own (sigaltstack), for oneDNN's
// code keeps data below a computing thread's stack pointer.
PD_API void pd_session_cancel(pd_session *session);

typedef struct pd_stage_stats {
    int32_t first_layer; // this stage runs layers first_layer … first_layer + n_layers - 1
    int32_t n_layers;
    int32_t n_rows;          // live rows in prefill: text and image tokens
    int32_t n_image_tokens;  // of them image tokens
    double layers_ms;        // prefill time of its layers
    double rank_ms;          // ranking, selecting and gathering at its end
    uint64_t kv_bytes;       // keys and values of its live rows, generated ones included
    uint64_t kv_bytes_dense; // the same had nothing been dropped
    double flops;            // of its layers, and of the ranking at its end; 2 for a multiply-accumulate
    double flops_dense;
} pd_stage_stats;

typedef struct pd_stats {
    int32_t n_stages;
    int32_t n_images;
    int32_t n_prompt_tokens; // text and image tokens of the prompt
    int32_t n_image_tokens;
    int32_t n_generated;
    int32_t n_decoded; // passes through the decoder behind the prompt's: for every token of the answer but
                       // its last, which takes one too where an end token follows
    const pd_stage_stats *stages; // n_stages of them
    double image_ms;              // resampling and tiling
    double vit_ms;                // vision tower (0 when every picture was encoded before)
    double projector_ms;
    double prefill_ms;     // decoder: embedding, stages, ranking, output head
    double rank_ms;        // of prefill_ms
    double decode_ms;      // n_decoded passes
    double first_token_ms; // from the call of prompt to the first token drawn
    uint64_t kv_bytes;
    uint64_t kv_bytes_dense;
    uint64_t kv_bytes_reserved; // allocated, room for the answer included
    uint64_t compute_bytes;     // scratch memory of all graphs
    double prefill_flops;       // ViT, projector (of known pictures too), decoder, ranking, output head
    double prefill_flops_dense;
    double image_tmacs; // the field's convention: docs/algorithm.md, section 7
    double image_tmacs_dense;
    double pack_ms;        // packing weights for the CPU's products, at their first use (pd_compute_type)
    uint64_t packed_bytes; // of the model, so far
} pd_stats;

// Of the last prompt; owned by the session, updated by later calls.
PD_API const pd_stats *pd_session_stats(const pd_session *session);
// Which of picture `image`'s tokens (0 … N-1, ascending) were live in `stage`. Owned by the session until the
// next prompt.
PD_API pd_status pd_session_kept(const pd_session *session, int32_t image, int32_t stage,
                                 const int32_t **tokens, size_t *count, pd_error *err);
// How prefill's products are computed: "int16, f32 for float weights (avx2)", "ggml", … Another text once
// weights of the model had no room to be packed; each lives as long as the model.
PD_API const char *pd_session_compute(const pd_session *session);
// The conversation template in use, by LLaVA's name.
PD_API const char *pd_session_conversation(const pd_session *session);

#ifdef __cplusplus
}
#endif
#endif
