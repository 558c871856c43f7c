// Softmax attention of one query to each row and head, over a cache cut into chunks of fixed size: a chunk to a thread block,
// and the last one that is done adds the chunks up in their order. What is added in which order depends on the position
// alone. Device.
#pragma once

#include "device.h"

constexpr int ATTEND_WARPS = 4;
constexpr int ATTEND_THREADS = 32 * ATTEND_WARPS;
// Positions that a thread block attends to at a time.
constexpr int CHUNK = 128;

// Chunks that are added up at a time: all of a cache of 2,048 positions.
constexpr int COMBINED = 16;

// Positions of a cache that a launch may be writing while they are asked for: no more than its pairs of rows.
constexpr int UNSETTLED = MOST_ROWS / 2;

// What a score is compared with: a largest one of minus infinity is that of no positions.
DEVICE float finite(float highest) { return highest == -INFINITY ? 0.0f : highest; }

// Eight of a head's columns to a lane, SIZE / 8 lanes to a position.
template <int SIZE> DEVICE void attend(const Attend &a) {
    constexpr int LANES = SIZE / 8;
    constexpr int AT_ONCE = 32 / LANES;
    constexpr int ROUNDS = CHUNK / (ATTEND_WARPS * AT_ONCE) > 8 ? 8 : CHUNK / (ATTEND_WARPS * AT_ONCE);
    constexpr int STRIDE = ROUNDS * ATTEND_WARPS * AT_ONCE;
    constexpr int PASSES = CHUNK / STRIDE;
    SHARED float tops[ATTEND_WARPS], weights[ATTEND_WARPS], outs[ATTEND_WARPS][SIZE];
    SHARED int last;
    let_next_begin();
    int chunk = blockIdx.x, head = blockIdx.y, r = blockIdx.z;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = lane % LANES * 8;
    const bool own = a.keys != nullptr;
    Words key[ROUNDS], value[ROUNDS];
    // Those of the positions from `base` on that lie in [first, until).
    auto read = [&](const uint16_t *keys, const uint16_t *values, int base, int first, int until) {
#pragma unroll
        for (int i = 0; i < ROUNDS; i++) {
            int position = base + i * ATTEND_WARPS * AT_ONCE;
            if (first == 0) key[i] = value[i] = Words{0, 0, 0, 0};
            if (position >= first && position < until) {
                key[i] = read_fresh(keys + int64_t(position) * SIZE + column);
                value[i] = read_fresh(values + int64_t(position) * SIZE + column);
            }
        }
    };
    // Who this row is: cache or prompt, how many positions there are, how many of them have long been there.
    const uint16_t *keys = nullptr, *values = nullptr;
    int positions = 0, settled = 0;
    auto look_up = [&] {
        Words start = read_fresh(a.step->rows + r), rest = read_fresh(&a.step->rows[r].position);
        int64_t capacity = a.capacity, apart = a.value_stride;
        if (!rest.w) {
        } else if (own) {
            positions = int(rest.x) + 1, settled = positions - UNSETTLED;
            keys = a.keys + int64_t(int(start.w)) * a.cache_stride;
        } else if (uint64_t text = uint64_t(start.y) << 32 | start.x) {
            capacity = positions = settled = int(start.z), apart = int64_t(a.hidden) * positions;
            keys = reinterpret_cast<const uint16_t *>(text) + a.text_offset * positions;
        }
        if (positions > 0) keys += head * capacity * SIZE, values = keys + apart;
    };
    // A prompt is there already, and so are the step and all but the last of a cache: only the query is still being made.
    if (a.early) {
        look_up();
        // A chunk that nobody has reached is not waited with: its thread block makes room for the next launch's. The first one of
        // each row and head waits, so that this launch has not ended before the one before it has.
        if (chunk > 0 && chunk * CHUNK >= positions) return;
        if (settled > chunk * CHUNK) read(keys, values, chunk * CHUNK + warp * AT_ONCE + lane / LANES, 0, settled);
        else settled = 0;
    }
    wait_for_previous();
    if (!a.early) look_up(), settled = 0;
    float *output = a.output + int64_t(r) * a.hidden + head * SIZE;
    if (positions == 0) {
        // Without a prompt the sum is exactly 0.
        if (chunk == 0 && threadIdx.x < SIZE) output[threadIdx.x] = 0.0f;
        return;
    }
    if (chunk * CHUNK >= positions) return;

    float query[8];
    {
        const float *from = a.query + int64_t(r) * a.query_stride + head * SIZE + column;
        Words near = read_fresh(from), far = read_fresh(from + 4);
        query[0] = bits_to_float(near.x), query[1] = bits_to_float(near.y);
        query[2] = bits_to_float(near.z), query[3] = bits_to_float(near.w);
        query[4] = bits_to_float(far.x), query[5] = bits_to_float(far.y);
        query[6] = bits_to_float(far.z), query[7] = bits_to_float(far.w);
#pragma unroll
        for (int j = 0; j < 8; j++) query[j] *= a.factor;
    }
    float top = -INFINITY, weight = 0.0f, sum[8];
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] = 0.0f;
    // A grid of one chunk walks over all of them.
    for (int begin = chunk * CHUNK; begin < positions; begin += gridDim.x * CHUNK) {
        for (int pass = 0; pass < PASSES; pass++) {
            int base = begin + pass * STRIDE + warp * AT_ONCE + lane / LANES;
            read(keys, values, base, settled, positions);
            settled = 0;
            float score[ROUNDS], highest = top;
#pragma unroll
            for (int i = 0; i < ROUNDS; i++) {
                float k[8], dot = 0.0f;
                eight(key[i], k);
#pragma unroll
                for (int j = 0; j < 8; j++) dot = fmaf(query[j], k[j], dot);
                dot = group_sum<LANES>(dot);
                score[i] = base + i * ATTEND_WARPS * AT_ONCE < positions ? dot : -INFINITY;
                highest = fmaxf(highest, score[i]);
            }
            // A lane that has seen no position yet has nothing to scale; minus infinity less any number is a share of 0.
            float scale = expf(top - finite(highest));
            weight *= scale;
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] *= scale;
            top = highest;
#pragma unroll
            for (int i = 0; i < ROUNDS; i++) {
                float v[8], share = expf(score[i] - finite(top));
                eight(value[i], v);
                weight += share;
#pragma unroll
                for (int j = 0; j < 8; j++) sum[j] = fmaf(share, v[j], sum[j]);
            }
        }
    }
    // Positions side by side in a warp, then the warps.
    float highest = across_max<LANES>(top);
    float scale = expf(top - finite(highest));
    weight = across_sum<LANES>(weight * scale);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] *= scale;
    across_sums<8, LANES>(sum);
    constexpr int PARTS = parts_of(8, LANES), EACH = 8 / PARTS;
#pragma unroll
    for (int j = 0; j < EACH; j++) outs[warp][column + lane * PARTS / 32 * EACH + j] = sum[j];
    if (lane == 0) tops[warp] = highest, weights[warp] = weight;
    __syncthreads();
    highest = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
    float factors[ATTEND_WARPS];
    weight = 0.0f;
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) {
        factors[w] = expf(tops[w] - highest);
        weight += weights[w] * factors[w];
    }
    int used = gridDim.x == 1 ? 1 : (positions + CHUNK - 1) / CHUNK;
    int place = r * a.heads + head;
    float *partial = used > 1 ? a.partial + (int64_t(place) * a.chunks + chunk) * (SIZE + 2) : nullptr;
    const int i = threadIdx.x;
    if (i < SIZE) {
        float whole = 0.0f;
#pragma unroll
        for (int w = 0; w < ATTEND_WARPS; w++) whole += outs[w][i] * factors[w];
        if (used == 1) output[i] = whole / weight;
        else partial[i] = whole;
    }
    if (used == 1) return;
    if (threadIdx.x == 0) partial[SIZE] = highest, partial[SIZE + 1] = weight;
    __syncthreads();
    if (threadIdx.x == 0) last = count_up(a.tickets + place) == uint32_t(used - 1);
    __syncthreads();
    if (!last) return;
    const float *all = a.partial + int64_t(place) * a.chunks * (SIZE + 2);
    if (i < SIZE) {
        float whole = 0.0f, total = 0.0f;
        highest = -INFINITY;
        // All that are there at once: everything is asked for before anything is needed.
        for (int from = 0; from < used; from += COMBINED) {
            float part[COMBINED], top[COMBINED], share[COMBINED], higher = highest;
#pragma unroll
            for (int c = 0; c < COMBINED; c++) {
                const float *one = all + (from + c) * (SIZE + 2);
                part[c] = share[c] = 0.0f, top[c] = -INFINITY;
                if (from + c < used) part[c] = read_l2(one + i), top[c] = read_l2(one + SIZE), share[c] = read_l2(one + SIZE + 1);
            }
#pragma unroll
            for (int c = 0; c < COMBINED; c++) higher = fmaxf(higher, top[c]);
            float before = expf(highest - higher);
            whole *= before, total *= before, highest = higher;
#pragma unroll
            for (int c = 0; c < COMBINED; c++) {
                float now = expf(top[c] - highest);
                whole = fmaf(part[c], now, whole), total = fmaf(share[c], now, total);
            }
        }
        output[i] = whole / total;
    }
    if (threadIdx.x == 0) a.tickets[place] = 0;
}
