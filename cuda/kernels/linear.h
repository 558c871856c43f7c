// A linear layer for two to eight rows in one pass over its weights: bound by reading them. Some outputs to a group of SPLIT
// warps, some groups to a thread block; weights are asked for before the input is there. A row's bits do not depend on the
// rows beside it: each lane adds its inputs in ascending order, lanes and warps are added in a fixed tree. Device.
#pragma once

#include "device.h"

// Outputs that a group of warps has at once: inputs are read from shared memory once for all of them, which is what four rows
// and more wait for.
DEVICE constexpr int outputs_of(int rows) { return rows <= 2 ? 2 : 4; }
// Warps of a thread block. With twice the outputs a warp needs twice the registers, so there are half as many: two thread
// blocks must fit into a processor, or the next layer's cannot read its first weights while this one is still at work. A
// thread block has the same outputs either way.
DEVICE constexpr int warps_of(int rows) { return 32 / outputs_of(rows); }
DEVICE constexpr int threads_of(int rows) { return 32 * warps_of(rows); }
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

DEVICE float4 floats(const Words &w) {
    return float4{bits_to_float(w.x), bits_to_float(w.y), bits_to_float(w.z), bits_to_float(w.w)};
}

// A thread's rows are all under way before it waits for one of them.
template <int ROWS> DEVICE void stage(const Linear &a, int from, int count, float *x) {
    for (int k = threadIdx.x * 4; k < count; k += threads_of(ROWS) * 4) {
        Words fours[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) fours[r] = read_fresh(a.input + int64_t(r) * a.inputs + from + k);
#pragma unroll
        for (int r = 0; r < ROWS; r++) *reinterpret_cast<float4 *>(x + staged(r, k, a.chunk)) = floats(fours[r]);
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

// Warps that share a row.
DEVICE constexpr int team_of(int rows) { return rows <= 2 ? 8 : rows <= 4 ? 2 : 1; }

// What a norm's warps tell each other.
template <int ROWS> struct Norm {
    // As many rows as there are teams of warps: idle ones write here too.
    float sums[warps_of(ROWS) / team_of(ROWS) * SEGMENTS], squares[warps_of(ROWS) / team_of(ROWS) * SEGMENTS];
};

// Behind the inputs: gain, then offset.
DEVICE float *gain_of(float *x, const Linear &a, int rows) { return x + rows * a.chunk; }
DEVICE float *offset_of(float *x, const Linear &a, int rows) { return gain_of(x, a, rows) + a.inputs; }

// Gain and offset are weights, and as far away as those: a thread has them under way before it asks for weights, and puts them
// where all find them, while the launch before this one still makes the input.
template <int ROWS> struct Scales {
    static constexpr int EACH = (MOST_NORMED / 4 + threads_of(ROWS) - 1) / threads_of(ROWS);
    Words gain[EACH], offset[EACH];
};

template <int ROWS> DEVICE void read(const Linear &a, Scales<ROWS> &scales) {
#pragma unroll
    for (int i = 0; i < Scales<ROWS>::EACH; i++) {
        int k = (threadIdx.x + i * threads_of(ROWS)) * 4;
        if (k < a.inputs) scales.gain[i] = read_once(a.gain + k), scales.offset[i] = read_once(a.offset + k);
    }
}

template <int ROWS> DEVICE void keep(const Linear &a, const Scales<ROWS> &scales, float *x) {
#pragma unroll
    for (int i = 0; i < Scales<ROWS>::EACH; i++) {
        int k = (threadIdx.x + i * threads_of(ROWS)) * 4;
        if (k >= a.inputs) continue;
        *reinterpret_cast<float4 *>(gain_of(x, a, ROWS) + k) = floats(scales.gain[i]);
        *reinterpret_cast<float4 *>(offset_of(x, a, ROWS) + k) = floats(scales.offset[i]);
    }
}

// Layer norm of whole rows, all warps at work. Which warp adds up a segment does not matter to its sum, so that a row's norm is
// the same in any company.
template <int ROWS> DEVICE void stage_normed(const Linear &a, float *x, Norm<ROWS> &norm) {
    constexpr int TEAM = team_of(ROWS), OWN = SEGMENTS / TEAM;
    static_assert(warps_of(ROWS) / TEAM >= ROWS, "every row has a team");
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / TEAM;
    bool busy = row < ROWS;
    // Where a lane's sum of a segment belongs, and whether it is the one to put it there.
    int mine = row * SEGMENTS + lane * OWN / 32 * TEAM + warp % TEAM;
    bool first = lane % (32 / OWN) == 0;
    float own[OWN][4], added[OWN];
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        int k = (s * TEAM + warp % TEAM) * SEGMENT + lane * 4;
        Words four = {0, 0, 0, 0};
        if (busy && k < a.inputs) four = read_fresh(a.input + int64_t(row) * a.inputs + k);
        own[s][0] = bits_to_float(four.x), own[s][1] = bits_to_float(four.y);
        own[s][2] = bits_to_float(four.z), own[s][3] = bits_to_float(four.w);
    }
#pragma unroll
    for (int s = 0; s < OWN; s++) added[s] = (own[s][0] + own[s][1]) + (own[s][2] + own[s][3]);
    float sum = warp_sums<OWN>(added);
    if (first) norm.sums[mine] = sum;
    __syncthreads();
    float mean = whole_of(norm.sums + row * SEGMENTS) / float(a.inputs);
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        added[s] = 0.0f;
        if ((s * TEAM + warp % TEAM) * SEGMENT + lane * 4 < a.inputs) {
#pragma unroll
            for (int j = 0; j < 4; j++) added[s] += (own[s][j] - mean) * (own[s][j] - mean);
        }
    }
    sum = warp_sums<OWN>(added);
    if (first) norm.squares[mine] = sum;
    __syncthreads();
    float factor = 1.0f / sqrtf(whole_of(norm.squares + row * SEGMENTS) / float(a.inputs) + 1e-5f);
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        int k = (s * TEAM + warp % TEAM) * SEGMENT + lane * 4;
        if (busy && k < a.inputs) {
            const float4 gain = *reinterpret_cast<const float4 *>(gain_of(x, a, ROWS) + k);
            const float4 offset = *reinterpret_cast<const float4 *>(offset_of(x, a, ROWS) + k);
            float4 four;
            four.x = (own[s][0] - mean) * factor * gain.x + offset.x, four.y = (own[s][1] - mean) * factor * gain.y + offset.y;
            four.z = (own[s][2] - mean) * factor * gain.z + offset.z, four.w = (own[s][3] - mean) * factor * gain.w + offset.w;
            *reinterpret_cast<float4 *>(x + staged(row, k, a.chunk)) = four;
        }
    }
}

// Whether an output is a key or a value, in bf16.
DEVICE bool is_key(const Linear &a, int n) { return a.into == INTO_TEXT || (a.into == INTO_CACHE && n >= a.hidden); }

// Where an output goes, and what is added to it that is known before: worked out while the input is still being made.
struct Target {
    // Null where the output is not wanted.
    void *to;
    float bias, injected;
};

DEVICE Target target_of(const Linear &a, int r, int n) {
    // Adding -0 changes no sum.
    Target target = {a.output + int64_t(r) * a.outputs + n, a.bias ? a.bias[n] : 0.0f, -0.0f};
    if (a.into == INTO_ADD) {
        int slot = a.injections ? a.step->rows[r].injection : -1;
        if (slot >= 0) target.injected = a.injections[slot * a.slot_stride + n];
    } else if (is_key(a, n)) {
        // Of INTO_CACHE the query comes first.
        int part = n / a.hidden - (a.into == INTO_CACHE), column = n % a.hidden, position = a.first + r;
        int64_t at = part * a.value_stride;
        bool wanted = r < a.rows;
        if (a.into == INTO_CACHE) {
            const Row &row = a.step->rows[r];
            wanted = row.live, position = row.position, at += row.cache * a.cache_stride;
        }
        at += (int64_t(column / a.size) * a.capacity + position) * a.size + column % a.size;
        target.to = wanted ? a.keys + at : nullptr;
    } else if (a.into == INTO_CACHE) {
        target.to = a.output + int64_t(r) * a.hidden + n;
    }
    return target;
}

// `old` is what an output is added to.
DEVICE void put(const Linear &a, const Target &target, int n, float old, float value) {
    if (a.bias) value += target.bias;
    if (a.into == INTO_ADD) value = old + value + target.injected;
    if (a.into == INTO_ACTIVATE) value = activate(value, a.activation);
    if (!target.to) return;
    if (is_key(a, n)) *static_cast<uint16_t *>(target.to) = to_bf16(value);
    else *static_cast<float *>(target.to) = value;
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
    constexpr int OUTPUTS = outputs_of(ROWS), WARPS = warps_of(ROWS), THREADS = threads_of(ROWS);
    // Weights that a lane has under way at once, for each of its outputs: as many as registers hold.
    constexpr int AHEAD = ROWS > 4 ? 1 : 2;
    constexpr int GROUPS = WARPS / SPLIT;
    SHARED_ROOM(float, x);
    SHARED_ALIGNED Norm<ROWS> norm;
    SHARED float partial[WARPS][OUTPUTS * ROWS];
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
        for (int64_t at = threadIdx.x * 128; at < length; at += THREADS * 128)
            ask_for(reinterpret_cast<const char *>(a.weight) + begin + at);
    }
    const uint16_t *weight = a.weight + int64_t(first) * a.inputs;
    int begin = (part * 32 + lane) * 8;
    Scales<ROWS> scales = {};
    if (a.gain) read(a, scales);
    // The first weights may be on their way while the launch before this one still makes the input.
    Words words[AHEAD][OUTPUTS];
    int first_chunk = a.inputs < a.chunk ? a.inputs : a.chunk;
    if (a.early) read_weights<SPLIT, OUTPUTS, AHEAD>(a, weight, first, begin, first_chunk, words);
    // One thread to an output of a row.
    constexpr int ALL = GROUPS * OUTPUTS * ROWS;
    static_assert(ALL <= THREADS, "no thread has two");
    int own = threadIdx.x / (OUTPUTS * ROWS), place = threadIdx.x % (OUTPUTS * ROWS), r = place % ROWS;
    int n = (blockIdx.x * GROUPS + own) * OUTPUTS + place / ROWS;
    bool puts = threadIdx.x < ALL && n < a.outputs;
    Target target = {nullptr, 0.0f, 0.0f};
    if (puts) target = target_of(a, r, n);
    // The barriers of a norm lie between this and the reading.
    if (a.gain) keep(a, scales, x);
    wait_for_previous();
    float old = puts && a.into == INTO_ADD ? read_l2(static_cast<const float *>(target.to)) : 0.0f;
    float sum[OUTPUTS * ROWS];
#pragma unroll
    for (int i = 0; i < OUTPUTS * ROWS; i++) sum[i] = 0.0f;
    for (int from = 0; from < a.inputs; from += a.chunk) {
        int count = a.inputs - from < a.chunk ? a.inputs - from : a.chunk;
        if (from > 0) __syncthreads();
        if (a.gain) stage_normed<ROWS>(a, x, norm);
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
                        float &own = sum[o * ROWS + r];
                        own = fmaf(w[o][0], near.x, own);
                        own = fmaf(w[o][1], near.y, own);
                        own = fmaf(w[o][2], near.z, own);
                        own = fmaf(w[o][3], near.w, own);
                        own = fmaf(w[o][4], far.x, own);
                        own = fmaf(w[o][5], far.y, own);
                        own = fmaf(w[o][6], far.z, own);
                        own = fmaf(w[o][7], far.w, own);
                    }
                }
            }
        }
    }
    // The largest power of two that divides them.
    constexpr int TOGETHER = OUTPUTS * ROWS & -(OUTPUTS * ROWS);
#pragma unroll
    for (int from = 0; from < OUTPUTS * ROWS; from += TOGETHER) {
        float whole = warp_sums<TOGETHER>(sum + from);
        if (lane % (32 / TOGETHER) == 0) partial[warp][from + lane * TOGETHER / 32] = whole;
    }
    __syncthreads();
    if (puts) {
        float whole = 0.0f;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) whole += partial[own * SPLIT + s][place];
        put(a, target, n, old, whole);
    }
}
