// EnCodec's decoder for a stream. Each operation's newest output rows lie in a ring, by their number from the start of the
// stream, so that nothing is moved from run to run and a reset is a matter of the host's counters alone. A run says which rows
// each operation makes. An output's sum does not depend on how many rows are made with it. Device.
#pragma once

#include "device.h"

constexpr int WINDOW_WARPS = 4;
constexpr int WINDOW_THREADS = 32 * WINDOW_WARPS;
// Outputs of a warp.
constexpr int WINDOW_OUTPUTS = 2;
constexpr int RECUR_WARPS = 8;
constexpr int RECUR_THREADS = 32 * RECUR_WARPS;
// Units of a thread block: four gates each, two to a warp.
constexpr int RECUR_UNITS = RECUR_WARPS * 2 / 4;
// Sixteen-byte pieces of a weight row that a lane has under way.
constexpr int CODEC_AHEAD = 4;

DEVICE Span fresh(const Span *from) {
    Words words[2] = {read_fresh(from), read_fresh(&from->seen)};
    Span work;
    memcpy(&work, words, sizeof work);
    return work;
}

DEVICE float elu(float x) { return x > 0.0f ? x : expm1f(x); }
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE void four(const Words &words, float *values) {
    values[0] = bits_to_float(words.x), values[1] = bits_to_float(words.y);
    values[2] = bits_to_float(words.z), values[3] = bits_to_float(words.w);
}

// This thread block's next weights, before there is anything to multiply them with.
DEVICE void ask_for_rows(const float *weight, int64_t bytes, int most, int threads) {
    if (bytes > most) bytes = most;
    for (int64_t at = threadIdx.x * 128; at < bytes; at += threads * 128)
        ask_for(reinterpret_cast<const char *>(weight) + at);
}

DEVICE void latent(const Latent &a) {
    let_next_begin();
    wait_for_previous();
    Span work = fresh(a.work);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (work.first >= work.until || i >= a.width) return;
    float sum = 0.0f;
    for (int k = 0; k < a.codebooks; k++) sum += a.tables[(int64_t(k) * a.entries + a.codes[k]) * a.width + i];
    a.output[(work.first & a.mask) * a.stride + i] = sum;
}

// The row that stands at `position`, which may lie beyond either end; -1 is zeros. As engine/src/codec/conv.rs pads.
DEVICE int64_t row_at(const Window &a, int64_t seen, int64_t position) {
    if (position >= 0 && position < seen) return position;
    if (!a.reflect) return -1;
    if (position < 0) return -position < seen ? -position : -1;
    int64_t most = a.left > a.right ? a.left : a.right;
    // A sequence no longer than its padding is first continued with zeros, reflected, then cut again.
    int64_t length = seen <= most ? most + 1 : seen;
    int64_t row = position < length ? position : 2 * (length - 1) - position;
    return row >= 0 && row < seen ? row : -1;
}

// Up to ROWS rows of one phase for eight outputs.
template <int ROWS> DEVICE void window(const Window &a) {
    SHARED_ROOM(float, x);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, phase = blockIdx.z;
    int block = blockIdx.x * WINDOW_WARPS * WINDOW_OUTPUTS, first = block + warp * WINDOW_OUTPUTS;
    int64_t width = int64_t(a.kernel) * a.inputs;
    const float *weights = a.weight + int64_t(phase) * a.outputs * width;
    let_next_begin();
    int outputs = a.outputs - block < WINDOW_WARPS * WINDOW_OUTPUTS ? a.outputs - block : WINDOW_WARPS * WINDOW_OUTPUTS;
    ask_for_rows(weights + block * width, outputs * width * 4, a.prefetch, WINDOW_THREADS);
    wait_for_previous();
    Span work = fresh(a.work);
    // Rows are counted before the cut at the start: number `q` of a phase is row `q * phases + phase - trim`.
    int64_t begin = work.first + a.trim - phase + a.phases - 1, end = work.until + a.trim - phase + a.phases - 1;
    int64_t from = begin / a.phases + int64_t(blockIdx.y) * ROWS, until = end / a.phases;
    if (from >= until) return;
    int rows = until - from < ROWS ? int(until - from) : ROWS;
    int staged = rows + (a.kernel - 1) * a.dilation, quads = a.inputs / 4;
    for (int i = threadIdx.x; i < staged * quads; i += WINDOW_THREADS) {
        int r = i / quads, c = i % quads * 4;
        int64_t row = row_at(a, work.seen, from + r - a.left);
        Words words = {0, 0, 0, 0};
        if (row >= 0) words = read_fresh(a.source + (row & a.source_mask) * a.inputs + c);
        float *to = x + r * a.inputs + c;
        four(words, to);
        if (a.elu) {
#pragma unroll
            for (int j = 0; j < 4; j++) to[j] = elu(to[j]);
        }
    }
    __syncthreads();
    float sum[WINDOW_OUTPUTS * ROWS];
#pragma unroll
    for (int i = 0; i < WINDOW_OUTPUTS * ROWS; i++) sum[i] = 0.0f;
    for (int tap = 0; tap < a.kernel; tap++) {
        const float *input = x + tap * a.dilation * a.inputs;
        const float *weight = weights + first * width + int64_t(tap) * a.inputs;
        for (int base = lane * 4; base < a.inputs; base += CODEC_AHEAD * 128) {
            Words words[CODEC_AHEAD][WINDOW_OUTPUTS];
#pragma unroll
            for (int i = 0; i < CODEC_AHEAD; i++) {
                int k = base + i * 128;
#pragma unroll
                for (int o = 0; o < WINDOW_OUTPUTS; o++) {
                    words[i][o] = Words{0, 0, 0, 0};
                    if (k < a.inputs && first + o < a.outputs) words[i][o] = read_once(weight + o * width + k);
                }
            }
#pragma unroll
            for (int i = 0; i < CODEC_AHEAD; i++) {
                int k = base + i * 128;
                if (k >= a.inputs) break;
                float w[WINDOW_OUTPUTS][4];
#pragma unroll
                for (int o = 0; o < WINDOW_OUTPUTS; o++) four(words[i][o], w[o]);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const float4 in = *reinterpret_cast<const float4 *>(input + r * a.inputs + k);
#pragma unroll
                    for (int o = 0; o < WINDOW_OUTPUTS; o++) {
                        float &own = sum[o * ROWS + r];
                        own = fmaf(w[o][0], in.x, own);
                        own = fmaf(w[o][1], in.y, own);
                        own = fmaf(w[o][2], in.z, own);
                        own = fmaf(w[o][3], in.w, own);
                    }
                }
            }
        }
    }
    // A lane for each output of each row.
    constexpr int ALL = WINDOW_OUTPUTS * ROWS;
    float own = warp_sums<ALL>(sum);
    int place = lane * ALL / 32, r = place % ROWS, n = first + place / ROWS;
    if (lane % (32 / ALL) > 0 || r >= rows || n >= a.outputs) return;
    int64_t row = (from + r) * a.phases + phase - a.trim;
    float value = own + a.bias[n];
    if (a.skip) value += read_l2(a.skip + (row & a.skip_mask) * a.stride + n);
    a.output[(a.output_mask < 0 ? row - work.first : row & a.output_mask) * a.stride + n] = value;
}

DEVICE void recur(const Recur &a) {
    SHARED_ROOM(float, x);
    SHARED float gates[4 * RECUR_UNITS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, unit = blockIdx.x * RECUR_UNITS;
    int64_t width = 2 * int64_t(a.hidden);
    let_next_begin();
    for (int gate = 0; gate < 4; gate++)
        ask_for_rows(a.weight + (int64_t(gate) * a.hidden + unit) * width, RECUR_UNITS * width * 4, a.prefetch / 4, RECUR_THREADS);
    wait_for_previous();
    Span work = fresh(a.work);
    int64_t row = work.first + a.index;
    if (row >= work.until) return;
    const float *input = a.source + (row & a.source_mask) * a.hidden;
    const float *last = a.state + ((row + 1) & 1) * a.hidden;
    for (int i = threadIdx.x * 4; i < a.hidden; i += RECUR_THREADS * 4) {
        four(read_fresh(input + i), x + i);
        // A stream begins at rest, whatever the one before it left.
        Words words = {0, 0, 0, 0};
        if (row > 0) words = read_fresh(last + i);
        four(words, x + a.hidden + i);
    }
    __syncthreads();
    const float *weight[2];
    float sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int o = 0; o < 2; o++) {
        int place = warp * 2 + o;
        weight[o] = a.weight + (int64_t(place / RECUR_UNITS) * a.hidden + unit + place % RECUR_UNITS) * width;
    }
    for (int base = lane * 4; base < width; base += CODEC_AHEAD * 128) {
        Words words[CODEC_AHEAD][2];
#pragma unroll
        for (int i = 0; i < CODEC_AHEAD; i++)
#pragma unroll
            for (int o = 0; o < 2; o++) {
                words[i][o] = Words{0, 0, 0, 0};
                if (base + i * 128 < width) words[i][o] = read_once(weight[o] + base + i * 128);
            }
#pragma unroll
        for (int i = 0; i < CODEC_AHEAD; i++) {
            if (base + i * 128 >= width) break;
            const float4 in = *reinterpret_cast<const float4 *>(x + base + i * 128);
#pragma unroll
            for (int o = 0; o < 2; o++) {
                float w[4];
                four(words[i][o], w);
                sum[o] = fmaf(w[0], in.x, sum[o]);
                sum[o] = fmaf(w[1], in.y, sum[o]);
                sum[o] = fmaf(w[2], in.z, sum[o]);
                sum[o] = fmaf(w[3], in.w, sum[o]);
            }
        }
    }
#pragma unroll
    for (int o = 0; o < 2; o++) {
        float whole = warp_sum(sum[o]);
        int place = warp * 2 + o;
        if (lane == 0) gates[place] = whole + a.bias[place / RECUR_UNITS * a.hidden + unit + place % RECUR_UNITS];
    }
    __syncthreads();
    if (threadIdx.x >= RECUR_UNITS) return;
    int own = threadIdx.x, n = unit + own;
    float *cell = a.state + 2 * a.hidden + n;
    float before = row > 0 ? read_l2(cell) : 0.0f;
    float kept = sigmoid(gates[RECUR_UNITS + own]) * before;
    float now = kept + sigmoid(gates[own]) * tanhf(gates[2 * RECUR_UNITS + own]);
    float out = sigmoid(gates[3 * RECUR_UNITS + own]) * tanhf(now);
    *cell = now;
    a.state[(row & 1) * a.hidden + n] = out;
    if (a.skip) out += read_l2(a.skip + (row & a.skip_mask) * a.hidden + n);
    a.output[(row & a.output_mask) * a.hidden + n] = out;
}
