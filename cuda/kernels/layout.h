// What the host writes for a step and what kernels are launched with. The host's half is cuda/src/layout.rs: the sizes are
// checked on both sides. Device and emulation.
#pragma once

#include <stddef.h>
#include <stdint.h>

constexpr int MOST_ROWS = 8;
constexpr int MOST_CODEBOOKS = 16;
constexpr int MOST_PUSHES = 6;
constexpr int MOST_DRAWS = 2;
constexpr int MOST_TAPS = 2;
constexpr int MOST_OPERATIONS = 64;

// One position of one guidance row of one piece.
struct Row {
    // Keys and values of the prompt, [block][key, value][head][token][size]; 0 is the unconditional row.
    uint64_t text;
    int32_t tokens;
    int32_t cache;
    int32_t position;
    // Slot of the injected table; -1 is none.
    int32_t injection;
    int32_t pushes;
    // 0: a row that only fills up the launch; it writes nothing that lasts.
    int32_t live;
    uint32_t codes[MOST_CODEBOOKS];
};

// One class's hold on a row.
struct Push {
    // [block][hidden] unit vectors, [block][2] levels, [block] limits.
    uint64_t directions, levels, limits;
    float reach, share;
};

// How the codes of a pair of rows are drawn: row 2 i is the conditional one, 2 i + 1 the unconditional one.
struct Draw {
    float temperature, guidance;
    uint32_t top_k, seed, frame, live;
};

// A block's output that the host wants to see.
struct Tap {
    int32_t block, row;
};

struct Step {
    Row rows[MOST_ROWS];
    Push pushes[MOST_ROWS][MOST_PUSHES];
    Draw draws[MOST_DRAWS];
    Tap taps[MOST_TAPS];
};

struct Drawn {
    uint32_t codes[MOST_DRAWS][MOST_CODEBOOKS];
    uint32_t not_finite;
    uint32_t unused[3];
};

static_assert(sizeof(Row) == 96, "cuda/src/layout.rs");
static_assert(sizeof(Push) == 32, "cuda/src/layout.rs");
static_assert(sizeof(Step) == 96 * 8 + 32 * 48 + 24 * 2 + 8 * 2, "cuda/src/layout.rs");
static_assert(sizeof(Drawn) == 144, "cuda/src/layout.rs");

enum Into : int32_t {
    // output[row][n]
    INTO_STORE = 0,
    // As above, through the activation.
    INTO_ACTIVATE = 1,
    // output[row][n] += , then what the row injects.
    INTO_ADD = 2,
    // The first third is the query; keys and values go to the row's cache.
    INTO_CACHE = 3,
    // Keys and values of a prompt's tokens: row r is token `first + r`.
    INTO_TEXT = 4,
};

enum Activation : int32_t { GELU = 0, GELU_TANH = 1, RELU = 2, SILU = 3 };

// y = f(norm(x)) W^T for a few rows.
struct Linear {
    // bf16, [outputs][inputs].
    const uint16_t *weight;
    // [rows][inputs].
    const float *input;
    // Layer norm of the input; null is none.
    const float *gain, *offset;
    // Added to the outputs; null is none.
    const float *bias;
    float *output;
    const Step *step;
    // INTO_CACHE: this block's keys of cache 0; values follow `value_stride` further, caches `cache_stride`.
    // INTO_TEXT: this block's keys.
    uint16_t *keys;
    int64_t cache_stride, value_stride;
    // INTO_ADD: this block's part of injection slot 0; null is none. Slots follow `slot_stride` further.
    const float *injections;
    int64_t slot_stride;
    int32_t inputs, outputs;
    // Inputs that are staged at a time.
    int32_t chunk;
    int32_t into, activation;
    // INTO_CACHE, INTO_TEXT: width of the hidden state, of a head, and positions of a cache.
    int32_t hidden, size, capacity;
    // INTO_TEXT: token of row 0, and rows that count.
    int32_t first, rows;
    // Bytes of a block's weights to ask for before its input is ready.
    int32_t prefetch;
    // 1: the first weights are read into registers then.
    int32_t early, unused;
};

// Attention of one query for each row and head, over a cache or a prompt.
struct Attend {
    // [rows][query_stride].
    const float *query;
    float *output;
    const Step *step;
    // This block's keys of cache 0, as in `Linear`; null: the rows' prompts, at `text_offset`.
    const uint16_t *keys;
    int64_t cache_stride, value_stride, text_offset;
    // [row][head][chunk][size + 2]: sums of a chunk, their largest score and weight.
    float *partial;
    // [row][head]: chunks that are done.
    uint32_t *tickets;
    int32_t query_stride, hidden, heads, capacity, chunks;
    float factor;
    // 1: keys and values that have long been there are read before the query is ready.
    int32_t early, unused;
};

static_assert(offsetof(Row, position) == 16 && offsetof(Row, live) == 28, "attention.h");

struct Embed {
    // [codebook][vocab + 1][hidden], [capacity][hidden].
    const float *tables, *positions;
    float *hidden;
    Drawn *drawn;
    const Step *step;
    int32_t width, codebooks, entries;
};

// Pushes and taps of one block's output.
struct Inject {
    float *hidden;
    float *taps;
    const Step *step;
    int32_t width, block;
};

struct Sample {
    // [row][codebook][vocab].
    const float *logits;
    const Step *step;
    Drawn *drawn;
    int32_t codebooks, vocab;
};

struct Probe {
    const uint64_t *memory;
    uint64_t *sink;
    int64_t words;
};

// What one operation of a codec does in one run: the rows [first, until) of its output, from the rows [0, seen) of its source.
struct Span {
    int64_t first, until, seen, unused;
};

// What the host writes for a run of a codec: at most one frame's codes.
struct CodecPlan {
    Span work[MOST_OPERATIONS];
    uint32_t codes[MOST_CODEBOOKS];
};

// Sum of a frame's code vectors.
struct Latent {
    // [codebook][entries][width].
    const float *tables;
    float *output;
    const Span *work;
    const uint32_t *codes;
    int64_t mask;
    int32_t codebooks, entries, width, stride;
};

// A convolution, or a transposed one as `phases` windows over the same rows. Rows lie in rings of `mask + 1` rows.
struct Window {
    // [phases][outputs][kernel][inputs].
    const float *weight;
    const float *bias;
    const float *source;
    // Added to the outputs, row for row; null is none.
    const float *skip;
    float *output;
    const Span *work;
    // -1: the output is no ring, and begins with this run's first row.
    int64_t source_mask, skip_mask, output_mask;
    // A multiple of 4, and the source's stride.
    int32_t inputs;
    int32_t outputs;
    // Of rows of the output, and of what is added.
    int32_t stride;
    int32_t kernel, dilation, phases;
    // Rows before the first and after the last one; rows of a transposed convolution that are cut off at the start.
    int32_t left, right, trim;
    int32_t reflect, elu;
    // Bytes of a block's weights to ask for before its input is ready.
    int32_t prefetch;
};

// One step of one layer of an LSTM.
struct Recur {
    // [input, forget, candidate, output gate][hidden][input, last output][hidden].
    const float *weight;
    const float *bias;
    const float *source;
    const float *skip;
    float *output;
    // Outputs of even and odd steps, the cell: [3][hidden].
    float *state;
    const Span *work;
    int64_t source_mask, skip_mask, output_mask;
    // Which of the run's rows.
    int32_t index;
    int32_t hidden;
    int32_t prefetch, unused;
};

static_assert(sizeof(Linear) == 152, "cuda/src/layout.rs");
static_assert(sizeof(Attend) == 104, "cuda/src/layout.rs");
static_assert(sizeof(Embed) == 56, "cuda/src/layout.rs");
static_assert(sizeof(Inject) == 32, "cuda/src/layout.rs");
static_assert(sizeof(Sample) == 32, "cuda/src/layout.rs");
static_assert(sizeof(Probe) == 24, "cuda/src/layout.rs");
static_assert(sizeof(CodecPlan) == 32 * 64 + 64, "cuda/src/layout.rs");
static_assert(sizeof(Latent) == 56, "cuda/src/layout.rs");
static_assert(sizeof(Window) == 120, "cuda/src/layout.rs");
static_assert(sizeof(Recur) == 96, "cuda/src/layout.rs");
