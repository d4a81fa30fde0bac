#include "onednn/amx.h"

#include "onednn/clones.h"

enum {
    TILE = 16,       // rows of a tile; columns of a tile of sums
    STEP_BYTES = 64, // of a row: 32 numbers of bf16, 64 of eight bits
    TILE_BYTES = TILE * STEP_BYTES,
    BLOCK = PD_AMX_BLOCK, // rows and columns of the sums in registers: two tiles by two
    BLOCK_BYTES = BLOCK * BLOCK * (int)sizeof(float),
    // Steps of a slice of the inner dimension: 32 columns' weights are 32 KiB, which the first-level cache
    // holds. The source and sums pass it by (TILELOADDT1), for they would push the weights out.
    SLICE_STEPS = 16,
    // Lines that are fetched with a step. More weights would fill the buffers that reads from the
    // second-level cache go through too, for as long as memory takes; what is left of them the hardware
    // fetches.
    WEIGHTS_FETCHED = 3,
    ROWS_FETCHED = 4,
};

static int64_t n_blocks(int64_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

static int64_t n_steps(pd_number_kind kind, int64_t k) {
    return k * (int64_t)pd_number_bytes(kind) / STEP_BYTES;
}

size_t pd_amx_sums_bytes(int64_t rows, int64_t columns) {
    return (size_t)(n_blocks(rows) * n_blocks(columns)) * BLOCK_BYTES;
}

// ---- layout ------------------------------------------------------------------------------------------------

// Weights lie in the order they are read: slice by slice, of a slice in strips of 32 columns, of a strip step
// by step two tiles. A tile's row holds, for each of 16 columns, the two or four numbers of four bytes that
// follow each other in the inner dimension.
static size_t tiles_at(int64_t steps, int64_t n_strips, int64_t strip, int64_t step) {
    const int64_t first = step / SLICE_STEPS * SLICE_STEPS, left = steps - first;
    const int64_t count = left < SLICE_STEPS ? left : SLICE_STEPS;
    return (size_t)(first * n_strips + strip * count + step - first) * 2 * TILE_BYTES;
}

size_t pd_amx_packed_bytes(pd_number_kind kind, int64_t n, int64_t k) {
    return (size_t)(n_blocks(n) * n_steps(kind, k)) * 2 * TILE_BYTES;
}

// One tile from weights whose columns lie together: four bytes of each at once.
static void pack_columns(const char *from, size_t column_bytes, int64_t columns, char *tile) {
    for (size_t row = 0; row < TILE; row++) {
        for (size_t j = 0; j < (size_t)columns; j++)
            memcpy(tile + row * STEP_BYTES + j * 4, from + j * column_bytes + row * 4, 4);
    }
}

// One of bf16 whose rows lie together.
PD_CLONES
static void pack_rows(const uint16_t *restrict from, size_t row_numbers, int64_t columns,
                      uint16_t *restrict tile) {
    for (size_t row = 0; row < TILE; row++) {
        const uint16_t *even = from + 2 * row * row_numbers, *odd = even + row_numbers;
        for (size_t j = 0; j < (size_t)columns; j++) {
            tile[row * BLOCK + 2 * j] = even[j];
            tile[row * BLOCK + 2 * j + 1] = odd[j];
        }
    }
}

void pd_amx_pack(pd_number_kind kind, int64_t n, int64_t k, const void *weights, int64_t stride_k,
                 int64_t stride_n, void *packed) {
    const size_t number = pd_number_bytes(kind);
    const int64_t steps = n_steps(kind, k), step_numbers = STEP_BYTES / (int64_t)number;
    for (int64_t column = 0; column < n_blocks(n) * BLOCK; column += TILE) {
        const int64_t columns = n - column < TILE ? n - column : TILE;
        for (int64_t step = 0; step < steps; step++) {
            char *tile = (char *)packed + tiles_at(steps, n_blocks(n), column / BLOCK, step) +
                         (size_t)(column % BLOCK / TILE) * TILE_BYTES;
            const char *from =
                (const char *)weights + (size_t)(step * step_numbers * stride_k + column * stride_n) * number;
            if (columns < TILE) memset(tile, 0, TILE_BYTES);
            if (columns <= 0) continue;
            if (stride_k == 1) {
                pack_columns(from, (size_t)stride_n * number, columns, tile);
            } else {
                pack_rows((const uint16_t *)from, (size_t)stride_k, columns, (uint16_t *)tile);
            }
        }
    }
}

PD_CLONES
static void take_bytes(const uint32_t *restrict numbers, unsigned shift, int8_t *restrict to, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        to[j] = (int8_t)(uint8_t)(numbers[j] >> shift);
}

// The line of tile j / TILE that row i has numbers in.
static const char *line_of(int64_t n, int64_t k, const void *packed, int64_t i, int64_t j) {
    return (const char *)packed +
           tiles_at(n_steps(PD_NUMBER_INT8, k), n_blocks(n), j / BLOCK, i / STEP_BYTES) +
           (size_t)(j % BLOCK / TILE) * TILE_BYTES + (size_t)(i % STEP_BYTES / 4) * STEP_BYTES;
}

void pd_amx_packed_row(int64_t n, int64_t k, const void *packed, int64_t i, int8_t *to) {
    for (int64_t j = 0; j < n; j += TILE)
        take_bytes((const uint32_t *)(const void *)line_of(n, k, packed, i, j), (unsigned)(i % 4) * 8, to + j,
                   n - j < TILE ? n - j : TILE);
}

void pd_amx_fetch_packed_row(int64_t n, int64_t k, const void *packed, int64_t i) {
    for (int64_t j = 0; j < n; j += TILE)
        __builtin_prefetch(line_of(n, k, packed, i, j));
}

// The tiles are x86's, and their permission Linux's; the intrinsics came with GCC 11 and Clang 12.
#if defined(__x86_64__) && defined(__linux__) &&                                                             \
    (defined(__clang__) ? __clang_major__ >= 12 : defined(__GNUC__) && __GNUC__ >= 11)

#include <immintrin.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

// ---- permission --------------------------------------------------------------------------------------------

// Linux gives a process the tiles' state, which is large, when it asks (Documentation/arch/x86/xstate.rst).
static bool ask_for_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool is_available(void) {
    static atomic_int answer; // 0: not asked yet
    if (atomic_load(&answer) == 0) {
        // oneDNN has looked at the CPU, and heard what the user wants of it (ONEDNN_MAX_CPU_ISA).
        const unsigned amx = (unsigned)dnnl_cpu_isa_avx512_core_amx;
        const bool has = ((unsigned)dnnl_get_effective_cpu_isa() & amx) == amx;
        atomic_store(&answer, has && ask_for_tiles() ? 1 : -1);
    }
    return atomic_load(&answer) > 0;
}

bool pd_amx_multiplies(pd_number_kind kind, int64_t k) {
    return (kind == PD_NUMBER_BF16 || kind == PD_NUMBER_INT8) &&
           (size_t)k * pd_number_bytes(kind) % STEP_BYTES == 0 && is_available();
}

// ---- a block -----------------------------------------------------------------------------------------------

#define TILES __attribute__((target("amx-tile,amx-int8,amx-bf16")))
// The intrinsics do not tell the compiler what memory they read.
#define MEMORY_IS_READ() __asm__ volatile("" : : : "memory")

// What LDTILECFG reads.
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
} tile_configuration;

// Tiles 0 to 3 are the sums of a block of up to 32 rows, 4 and 5 its source, 6 and 7 weights.
TILES static void configure(int64_t rows) {
    const uint8_t upper = (uint8_t)(rows < TILE ? rows : TILE), lower = (uint8_t)(rows - upper);
    const uint8_t rows_of[8] = {upper, upper, lower, lower, upper, lower, TILE, TILE};
    tile_configuration c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.rows[i] = rows_of[i];
        c.bytes_per_row[i] = rows_of[i] > 0 ? STEP_BYTES : 0;
    }
    MEMORY_IS_READ();
    _tile_loadconfig(&c);
}

// Four lines for each step: two by two, so far apart.
typedef struct {
    const char *first; // NULL: none
    size_t step, apart, further;
} lines;

// A slice of a block: to = from + source · weights. A block of sums has its four tiles one after another
// where its stride is 0, rows a stride apart otherwise.
typedef struct {
    const char *source, *weights;
    size_t source_stride;
    int64_t steps;
    const char *from; // NULL: zeros
    char *to;
    size_t from_stride, to_stride; // bytes
    // What the second-level cache is told to fetch meanwhile: with each step WEIGHTS_FETCHED lines of
    // weights, one after another (NULL: none), and lines of rows.
    const char *next_weights;
    lines next[2];
} slice;

static inline size_t row_stride(size_t stride) {
    return stride > 0 ? stride : STEP_BYTES;
}
// Where tile `i` of a block of sums is.
static inline size_t tile_at(size_t stride, size_t i) {
    return stride > 0 ? i / 2 * TILE * stride + i % 2 * STEP_BYTES : i * TILE_BYTES;
}

// GCC takes a function of prefetches alone for one without effects, and drops its calls.
__attribute__((always_inline)) static inline void fetch_next(const slice *s, int64_t step) {
    if (s->next_weights) {
        for (int64_t i = 0; i < WEIGHTS_FETCHED; i++)
            _mm_prefetch(s->next_weights + (step * WEIGHTS_FETCHED + i) * STEP_BYTES, _MM_HINT_T1);
    }
    for (size_t i = 0; i < 2; i++) {
        const lines *l = &s->next[i];
        if (!l->first) continue;
        const char *first = l->first + (size_t)step * l->step;
        _mm_prefetch(first, _MM_HINT_T1);
        _mm_prefetch(first + l->apart, _MM_HINT_T1);
        _mm_prefetch(first + l->further, _MM_HINT_T1);
        _mm_prefetch(first + l->further + l->apart, _MM_HINT_T1);
    }
}

// The kernels differ by the instruction MULTIPLY: of blocks of more than 16 rows, and of fewer.
#define DEFINE_KERNELS(name, MULTIPLY)                                                                       \
    TILES static void name##_tall(const slice *s) {                                                          \
        const char *upper = s->source, *lower = upper + TILE * s->source_stride, *weights = s->weights;      \
        const size_t stride = s->source_stride;                                                              \
        MEMORY_IS_READ();                                                                                    \
        if (s->from) {                                                                                       \
            _tile_stream_loadd(0, s->from, row_stride(s->from_stride));                                      \
            _tile_stream_loadd(1, s->from + tile_at(s->from_stride, 1), row_stride(s->from_stride));         \
            _tile_stream_loadd(2, s->from + tile_at(s->from_stride, 2), row_stride(s->from_stride));         \
            _tile_stream_loadd(3, s->from + tile_at(s->from_stride, 3), row_stride(s->from_stride));         \
        } else {                                                                                             \
            _tile_zero(0);                                                                                   \
            _tile_zero(1);                                                                                   \
            _tile_zero(2);                                                                                   \
            _tile_zero(3);                                                                                   \
        }                                                                                                    \
        for (int64_t i = 0; i < s->steps; i++) {                                                             \
            fetch_next(s, i);                                                                                \
            _tile_stream_loadd(4, upper + i * STEP_BYTES, stride);                                           \
            _tile_loadd(6, weights + 2 * i * TILE_BYTES, STEP_BYTES);                                        \
            MULTIPLY(0, 4, 6);                                                                               \
            _tile_loadd(7, weights + (2 * i + 1) * TILE_BYTES, STEP_BYTES);                                  \
            MULTIPLY(1, 4, 7);                                                                               \
            _tile_stream_loadd(5, lower + i * STEP_BYTES, stride);                                           \
            MULTIPLY(2, 5, 6);                                                                               \
            MULTIPLY(3, 5, 7);                                                                               \
        }                                                                                                    \
        _tile_stored(0, s->to, row_stride(s->to_stride));                                                    \
        _tile_stored(1, s->to + tile_at(s->to_stride, 1), row_stride(s->to_stride));                         \
        _tile_stored(2, s->to + tile_at(s->to_stride, 2), row_stride(s->to_stride));                         \
        _tile_stored(3, s->to + tile_at(s->to_stride, 3), row_stride(s->to_stride));                         \
    }                                                                                                        \
    TILES static void name##_flat(const slice *s) {                                                          \
        MEMORY_IS_READ();                                                                                    \
        if (s->from) {                                                                                       \
            _tile_stream_loadd(0, s->from, row_stride(s->from_stride));                                      \
            _tile_stream_loadd(1, s->from + tile_at(s->from_stride, 1), row_stride(s->from_stride));         \
        } else {                                                                                             \
            _tile_zero(0);                                                                                   \
            _tile_zero(1);                                                                                   \
        }                                                                                                    \
        for (int64_t i = 0; i < s->steps; i++) {                                                             \
            _tile_stream_loadd(4, s->source + i * STEP_BYTES, s->source_stride);                             \
            _tile_loadd(6, s->weights + 2 * i * TILE_BYTES, STEP_BYTES);                                     \
            MULTIPLY(0, 4, 6);                                                                               \
            _tile_loadd(7, s->weights + (2 * i + 1) * TILE_BYTES, STEP_BYTES);                               \
            MULTIPLY(1, 4, 7);                                                                               \
        }                                                                                                    \
        _tile_stored(0, s->to, row_stride(s->to_stride));                                                    \
        _tile_stored(1, s->to + tile_at(s->to_stride, 1), row_stride(s->to_stride));                         \
    }

DEFINE_KERNELS(multiply_bf16, _tile_dpbf16ps)
DEFINE_KERNELS(multiply_int8, _tile_dpbusd)

// ---- a product ---------------------------------------------------------------------------------------------

static void copy_rows(char *to, size_t to_stride, const char *from, size_t from_stride, int64_t rows,
                      int64_t columns) {
    for (size_t i = 0; i < (size_t)rows; i++)
        memcpy(to + i * to_stride, from + i * from_stride, (size_t)columns * sizeof(float));
}

typedef void kernel(const slice *s);

// Hands the whole sums of a block over, with what is beside them.
static void finish(const pd_amx_product *p, kernel *multiply_more, const void *more_weights,
                   pd_amx_block *block) {
    _Alignas(64) float more[BLOCK * BLOCK];
    if (p->more_k > 0) {
        const int64_t steps = n_steps(PD_NUMBER_BF16, p->more_k);
        const slice s = {.source = (const char *)p->more_source + (size_t)block->row * p->more_source_stride,
                         .weights = (const char *)more_weights +
                                    tiles_at(steps, n_blocks(p->columns), block->column / BLOCK, 0),
                         .source_stride = p->more_source_stride,
                         .steps = steps,
                         .to = (char *)more,
                         .to_stride = BLOCK * sizeof(float)};
        multiply_more(&s);
        block->more = more;
    }
    p->finish(p->user, block);
}

// How blocks of so many rows are multiplied.
typedef struct {
    int64_t rows;
    kernel *multiply, *multiply_more;
} method;

// A slice of the inner dimension.
typedef struct {
    int64_t first, steps;
    bool is_first, is_last;
    const void *more_weights; // the last one's
} cut;

// The source's next slice: strip j fetches these of a block's rows, from `row` on.
static lines next_source(const pd_amx_product *p, int64_t row, int64_t j, int64_t step) {
    if (j >= BLOCK / ROWS_FETCHED) return (lines){.first = NULL};
    return (lines){.first = (const char *)p->source + (size_t)(row + j * ROWS_FETCHED) * p->source_stride +
                            step * STEP_BYTES,
                   .step = STEP_BYTES,
                   .apart = p->source_stride,
                   .further = 2 * p->source_stride};
}

// Two rows of a block for each step.
static lines touched(const pd_amx_rows *rows, int64_t row, int64_t column) {
    if (!rows->rows) return (lines){.first = NULL};
    return (lines){.first = (const char *)rows->rows + (size_t)row * rows->stride +
                            (size_t)column * rows->column_bytes,
                   .step = 2 * rows->stride,
                   .apart = rows->stride,
                   .further = STEP_BYTES};
}

// One slice of all blocks of rows begin … end.
static void run_slice(const pd_amx_product *p, const method *way, const cut *now, int64_t begin,
                      int64_t end) {
    const int64_t steps = n_steps(p->kind, p->k), first = now->first, count = now->steps, rows = way->rows;
    const bool is_first = now->is_first, is_last = now->is_last;
    const int64_t n_strips = n_blocks(p->columns), n_rows = n_blocks(end - begin);
    for (int64_t j = 0; j < n_strips; j++) {
        const char *weights = (const char *)p->weights + tiles_at(steps, n_strips, j, first);
        const char *next = weights + count * 2 * TILE_BYTES; // 32 lines a step
        const int64_t columns = p->columns - j * BLOCK < BLOCK ? p->columns - j * BLOCK : BLOCK;
        for (int64_t i = 0; i < n_rows; i++) {
            const int64_t row = begin + i * BLOCK;
            const char *source =
                (const char *)p->source + (size_t)row * p->source_stride + first * STEP_BYTES;
            char *sums = (char *)p->sums + (size_t)(row / BLOCK * n_strips + j) * BLOCK_BYTES;
            char *destination = (char *)p->destination + (size_t)row * p->destination_stride +
                                (size_t)j * BLOCK * sizeof(float);
            size_t stride = p->destination_stride;
            _Alignas(64) char copy[BLOCK_BYTES];
            char *whole = destination; // a block as wide as its tiles
            if (p->finish || (columns < BLOCK && ((is_first && p->accumulate) || is_last))) {
                whole = copy;
                stride = BLOCK * sizeof(float);
                if (is_first && p->accumulate)
                    copy_rows(copy, stride, destination, p->destination_stride, rows, columns);
            }
            slice s = {.source = source,
                       .weights = weights,
                       .source_stride = p->source_stride,
                       .steps = count,
                       .from = is_first ? p->accumulate ? whole : NULL : sums,
                       .from_stride = is_first ? stride : 0,
                       .to = is_last ? whole : sums,
                       .to_stride = is_last ? stride : 0};
            if (i * WEIGHTS_FETCHED < BLOCK) s.next_weights = next + i * count * WEIGHTS_FETCHED * STEP_BYTES;
            if (!is_last) s.next[0] = next_source(p, row, j, first + count);
            for (int t = 0; is_last && t < 2; t++)
                s.next[t] = touched(&p->touched[t], row, j * BLOCK);
            way->multiply(&s);
            if (!is_last || whole == destination) continue;
            if (p->finish) {
                finish(p, way->multiply_more, now->more_weights,
                       &(pd_amx_block){
                           .row = row, .column = j * BLOCK, .rows = rows, .columns = columns, .sums = copy});
            } else {
                copy_rows(destination, p->destination_stride, copy, stride, rows, columns);
            }
        }
    }
}

TILES void pd_amx_multiply(const pd_amx_product *p) {
    const bool bf16 = p->kind == PD_NUMBER_BF16;
    const int64_t steps = n_steps(p->kind, p->k), whole = p->rows / BLOCK * BLOCK, rest = p->rows - whole;
    const method tall = {BLOCK, bf16 ? multiply_bf16_tall : multiply_int8_tall, multiply_bf16_tall};
    const method flat = {rest, bf16 ? multiply_bf16_flat : multiply_int8_flat, multiply_bf16_flat};
    const method left = {rest, tall.multiply, tall.multiply_more};
    if (rest == 0) configure(BLOCK);
    for (int64_t first = 0; first < steps; first += SLICE_STEPS) {
        cut now = {.first = first,
                   .steps = steps - first < SLICE_STEPS ? steps - first : SLICE_STEPS,
                   .is_first = first == 0,
                   .is_last = steps - first <= SLICE_STEPS};
        if (now.is_last && p->more_k > 0) now.more_weights = p->more_weights(p->user);
        if (whole > 0 && rest > 0) configure(BLOCK);
        if (whole > 0) run_slice(p, &tall, &now, 0, whole);
        if (rest == 0) continue;
        if (whole > 0 || now.is_first) configure(rest);
        run_slice(p, rest > TILE ? &left : &flat, &now, whole, p->rows);
    }
    _tile_release();
}

#else

bool pd_amx_multiplies(pd_number_kind kind, int64_t k) {
    (void)kind;
    (void)k;
    return false;
}

void pd_amx_multiply(const pd_amx_product *product) {
    (void)product; // never asked for
}

#endif
