// A linear layer for two to eight rows in one pass over its weights: bound by reading them. Some outputs to a group of SPLIT
// warps, sixteen warps to a thread block; weights are asked for before the input is there. A row's bits do not depend on the
// rows beside it: each lane adds its inputs in ascending order, lanes and warps are added in a fixed tree. Device.
#pragma once

#include "device.h"

constexpr int LINEAR_WARPS = 16;
constexpr int LINEAR_THREADS = 32 * LINEAR_WARPS;
// Outputs that a group of warps has at once: inputs are read from shared memory once for all of them, which is what four rows
// and more wait for.
DEVICE constexpr int outputs_of(int rows) { return rows <= 2 ? 2 : 4; }
// Most inputs of a layer with a norm: the warps hold its rows in registers.
constexpr int MOST_NORMED = 2048;

DEVICE float activate(float x, int kind) {
    switch (kind) {
    case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case RELU: return x > 0.0f ? x : 0.0f;
    default: return x / (1.0f + expf(-x));
    }
}

// Where input `k` of row `r` is staged. Eight inputs are two groups of four, and the groups lie apart, so that neighbouring
// lanes read neighbouring sixteen bytes.
DEVICE int staged(int r, int k, int chunk) { return (r * 2 + (k >> 2 & 1)) * (chunk / 2) + (k >> 3) * 4 + (k & 3); }

// A thread's rows are all under way before it waits for one of them.
template <int ROWS> DEVICE void stage(const Linear &a, int from, int count, float *x) {
    for (int k = threadIdx.x * 4; k < count; k += LINEAR_THREADS * 4) {
        Words fours[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) fours[r] = read_fresh(a.input + int64_t(r) * a.inputs + from + k);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float4 four = {bits_to_float(fours[r].x), bits_to_float(fours[r].y), bits_to_float(fours[r].z), bits_to_float(fours[r].w)};
            *reinterpret_cast<float4 *>(x + staged(r, k, a.chunk)) = four;
        }
    }
}

// A row's segments, each added up by one warp.
constexpr int SEGMENT = 128;
constexpr int SEGMENTS = MOST_NORMED / SEGMENT;

DEVICE float whole_of(const float *sums) {
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 s = *reinterpret_cast<const float4 *>(sums + 4 * i);
        four[i] = (s.x + s.y) + (s.z + s.w);
    }
    return (four[0] + four[1]) + (four[2] + four[3]);
}

// Layer norm of whole rows, all warps at work. Which warp adds up a segment does not matter to its sum, so that a row's norm is
// the same in any company.
template <int ROWS> DEVICE void stage_normed(const Linear &a, float *x, float *sums, float *squares) {
    constexpr int TEAM = ROWS <= 2 ? 8 : ROWS <= 4 ? 4 : 2;
    constexpr int OWN = SEGMENTS / TEAM;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / TEAM;
    bool busy = row < ROWS;
    float own[OWN][4];
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        int k = (s * TEAM + warp % TEAM) * SEGMENT + lane * 4;
        Words four = {0, 0, 0, 0};
        if (busy && k < a.inputs) four = read_fresh(a.input + int64_t(row) * a.inputs + k);
        own[s][0] = bits_to_float(four.x), own[s][1] = bits_to_float(four.y);
        own[s][2] = bits_to_float(four.z), own[s][3] = bits_to_float(four.w);
    }
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        float sum = warp_sum((own[s][0] + own[s][1]) + (own[s][2] + own[s][3]));
        if (lane == 0) sums[row * SEGMENTS + s * TEAM + warp % TEAM] = sum;
    }
    __syncthreads();
    float mean = whole_of(sums + row * SEGMENTS) / float(a.inputs);
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        float sum = 0.0f;
        if ((s * TEAM + warp % TEAM) * SEGMENT + lane * 4 < a.inputs) {
#pragma unroll
            for (int j = 0; j < 4; j++) sum += (own[s][j] - mean) * (own[s][j] - mean);
        }
        sum = warp_sum(sum);
        if (lane == 0) squares[row * SEGMENTS + s * TEAM + warp % TEAM] = sum;
    }
    __syncthreads();
    float factor = 1.0f / sqrtf(whole_of(squares + row * SEGMENTS) / float(a.inputs) + 1e-5f);
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        int k = (s * TEAM + warp % TEAM) * SEGMENT + lane * 4;
        if (busy && k < a.inputs) {
            const float4 gain = *reinterpret_cast<const float4 *>(a.gain + k);
            const float4 offset = *reinterpret_cast<const float4 *>(a.offset + k);
            float *to = x + staged(row, k, a.chunk);
            to[0] = (own[s][0] - mean) * factor * gain.x + offset.x, to[1] = (own[s][1] - mean) * factor * gain.y + offset.y;
            to[2] = (own[s][2] - mean) * factor * gain.z + offset.z, to[3] = (own[s][3] - mean) * factor * gain.w + offset.w;
        }
    }
}

// Where an output goes, and what is added to it that is known before: worked out while the input is still being made.
struct Target {
    // One of these; neither where the output is not wanted.
    float *to;
    uint16_t *key;
    float bias, injected;
};

DEVICE Target target_of(const Linear &a, int r, int n) {
    Target target = {nullptr, nullptr, a.bias ? a.bias[n] : 0.0f, 0.0f};
    switch (a.into) {
    case INTO_STORE:
    case INTO_ACTIVATE: target.to = a.output + int64_t(r) * a.outputs + n; break;
    case INTO_ADD: {
        target.to = a.output + int64_t(r) * a.outputs + n;
        int slot = a.injections ? a.step->rows[r].injection : -1;
        // Adding -0 changes no sum.
        target.injected = slot < 0 ? -0.0f : a.injections[slot * a.slot_stride + n];
        break;
    }
    case INTO_CACHE: {
        if (n < a.hidden) {
            target.to = a.output + int64_t(r) * a.hidden + n;
            break;
        }
        const Row &row = a.step->rows[r];
        if (!row.live) break;
        int part = n / a.hidden - 1, column = n % a.hidden;
        int64_t at = row.cache * a.cache_stride + part * a.value_stride;
        at += (int64_t(column / a.size) * a.capacity + row.position) * a.size + column % a.size;
        target.key = a.keys + at;
        break;
    }
    case INTO_TEXT: {
        if (r >= a.rows) break;
        int part = n / a.hidden, column = n % a.hidden;
        int64_t at = part * a.value_stride;
        at += (int64_t(column / a.size) * a.capacity + a.first + r) * a.size + column % a.size;
        target.key = a.keys + at;
        break;
    }
    }
    return target;
}

// `old` is what an output is added to.
DEVICE void put(const Linear &a, const Target &target, float old, float value) {
    if (a.bias) value += target.bias;
    if (a.into == INTO_ADD) value = old + value + target.injected;
    if (a.into == INTO_ACTIVATE) value = activate(value, a.activation);
    if (target.key) *target.key = to_bf16(value);
    else if (target.to) *target.to = value;
}

template <int SPLIT, int OUTPUTS, int AHEAD>
DEVICE void read_weights(const Linear &a, const uint16_t *weight, int first, int base, int count, Words (*words)[OUTPUTS]) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        int k = base + i * SPLIT * 256;
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            words[i][o] = Words{0, 0, 0, 0};
            if (k < count && first + o < a.outputs) words[i][o] = read_once(weight + int64_t(o) * a.inputs + k);
        }
    }
}

template <int ROWS, int SPLIT> DEVICE void linear(const Linear &a) {
    constexpr int OUTPUTS = outputs_of(ROWS);
    // Weights that a lane has under way at once, for each of its outputs.
    constexpr int AHEAD = 4 / OUTPUTS;
    constexpr int GROUPS = LINEAR_WARPS / SPLIT;
    SHARED_ROOM(float, x);
    // As many rows as there are teams of warps: idle ones write here too.
    SHARED_ALIGNED float sums[LINEAR_WARPS / 2 * SEGMENTS], squares[LINEAR_WARPS / 2 * SEGMENTS];
    SHARED float partial[LINEAR_WARPS][OUTPUTS * ROWS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int group = warp / SPLIT, part = warp % SPLIT;
    int first = (blockIdx.x * GROUPS + group) * OUTPUTS;
    let_next_begin();
    {
        // This thread block's weights are one stretch of memory.
        int64_t begin = int64_t(blockIdx.x) * GROUPS * OUTPUTS * a.inputs * 2;
        int64_t end = int64_t(a.outputs) * a.inputs * 2;
        int64_t length = int64_t(GROUPS) * OUTPUTS * a.inputs * 2;
        if (length > a.prefetch) length = a.prefetch;
        if (length > end - begin) length = end - begin;
        for (int64_t at = threadIdx.x * 128; at < length; at += LINEAR_THREADS * 128)
            ask_for(reinterpret_cast<const char *>(a.weight) + begin + at);
    }
    const uint16_t *weight = a.weight + int64_t(first) * a.inputs;
    int begin = (part * 32 + lane) * 8;
    // The first weights may be on their way while the launch before this one still makes the input.
    Words words[AHEAD][OUTPUTS];
    int first_chunk = a.inputs < a.chunk ? a.inputs : a.chunk;
    if (a.early) read_weights<SPLIT, OUTPUTS, AHEAD>(a, weight, first, begin, first_chunk, words);
    // One thread to an output of a row.
    constexpr int ALL = GROUPS * OUTPUTS * ROWS;
    static_assert(ALL <= LINEAR_THREADS, "no thread has two");
    int own = threadIdx.x / (OUTPUTS * ROWS), place = threadIdx.x % (OUTPUTS * ROWS), r = place % ROWS;
    int n = (blockIdx.x * GROUPS + own) * OUTPUTS + place / ROWS;
    bool puts = threadIdx.x < ALL && n < a.outputs;
    Target target = {nullptr, nullptr, 0.0f, 0.0f};
    if (puts) target = target_of(a, r, n);
    wait_for_previous();
    float old = puts && a.into == INTO_ADD ? read_l2(target.to) : 0.0f;
    float sum[OUTPUTS][ROWS];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) sum[o][r] = 0.0f;
    for (int from = 0; from < a.inputs; from += a.chunk) {
        int count = a.inputs - from < a.chunk ? a.inputs - from : a.chunk;
        if (from > 0) __syncthreads();
        if (a.gain) stage_normed<ROWS>(a, x, sums, squares);
        else stage<ROWS>(a, from, count, x);
        __syncthreads();
        for (int base = begin; base < count; base += AHEAD * SPLIT * 256) {
            if (!(a.early && from == 0 && base == begin))
                read_weights<SPLIT, OUTPUTS, AHEAD>(a, weight + from, first, base, count, words);
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                int k = base + i * SPLIT * 256;
                if (k >= count) break;
                float w[OUTPUTS][8];
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++) eight(words[i][o], w[o]);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const float4 near = *reinterpret_cast<const float4 *>(x + staged(r, k, a.chunk));
                    const float4 far = *reinterpret_cast<const float4 *>(x + staged(r, k + 4, a.chunk));
#pragma unroll
                    for (int o = 0; o < OUTPUTS; o++) {
                        sum[o][r] = fmaf(w[o][0], near.x, sum[o][r]);
                        sum[o][r] = fmaf(w[o][1], near.y, sum[o][r]);
                        sum[o][r] = fmaf(w[o][2], near.z, sum[o][r]);
                        sum[o][r] = fmaf(w[o][3], near.w, sum[o][r]);
                        sum[o][r] = fmaf(w[o][4], far.x, sum[o][r]);
                        sum[o][r] = fmaf(w[o][5], far.y, sum[o][r]);
                        sum[o][r] = fmaf(w[o][6], far.z, sum[o][r]);
                        sum[o][r] = fmaf(w[o][7], far.w, sum[o][r]);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float whole = warp_sum(sum[o][r]);
            if (lane == 0) partial[warp][o * ROWS + r] = whole;
        }
    __syncthreads();
    if (puts) {
        float whole = 0.0f;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) whole += partial[own * SPLIT + s][place];
        put(a, target, old, whole);
    }
}
