// What a step does besides layers and attention: code embeddings, pushes and taps, and the probe of the memory. Device.
#pragma once

#include "device.h"

constexpr int STEP_THREADS = 256;

// Sum of the code embeddings, then the position.
DEVICE void embed(const Embed &a) {
    let_next_begin();
    wait_for_previous();
    const Row &row = a.step->rows[blockIdx.y];
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) a.drawn->not_finite = 0;
    int i = blockIdx.x * STEP_THREADS + threadIdx.x;
    if (i >= a.width) return;
    float sum = 0.0f;
    if (row.live) {
        for (int k = 0; k < a.codebooks; k++)
            sum += a.tables[(int64_t(k) * a.entries + row.codes[k]) * a.width + i];
        sum += a.positions[int64_t(row.position) * a.width + i];
    }
    a.hidden[int64_t(blockIdx.y) * a.width + i] = sum;
}

DEVICE float block_sum(float value, float *room) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
    __syncthreads();
    float whole = 0.0f;
    for (int w = 0; w < STEP_THREADS / 32; w++) whole += room[w];
    __syncthreads();
    return whole;
}

// Brings a block's output along directions as far as their levels (engine/src/steering/push.rs), then copies what is
// looked at. One thread block to a row.
DEVICE void inject(const Inject &a) {
    SHARED float room[STEP_THREADS / 32];
    let_next_begin();
    wait_for_previous();
    int r = blockIdx.x;
    const Row &row = a.step->rows[r];
    float *state = a.hidden + int64_t(r) * a.width;
    for (int p = 0; p < row.pushes; p++) {
        const Push &push = a.step->pushes[r][p];
        const float *direction = reinterpret_cast<const float *>(push.directions) + int64_t(a.block) * a.width;
        const float *levels = reinterpret_cast<const float *>(push.levels) + 2 * a.block;
        float limit = reinterpret_cast<const float *>(push.limits)[a.block] * push.share;
        float found = 0.0f;
        for (int i = threadIdx.x; i < a.width; i += STEP_THREADS) found += state[i] * direction[i];
        found = block_sum(found, room);
        float lacking = levels[0] + push.reach * (levels[1] - levels[0]) - found;
        float from = push.reach > 0.0f ? 0.0f : -limit, to = push.reach > 0.0f ? limit : 0.0f;
        // What is not finite stays seen.
        float amount = lacking < from ? from : lacking > to ? to : lacking;
        if (amount != 0.0f)
            for (int i = threadIdx.x; i < a.width; i += STEP_THREADS) state[i] += amount * direction[i];
        __syncthreads();
    }
    for (int t = 0; t < MOST_TAPS; t++)
        if (a.step->taps[t].block == a.block && a.step->taps[t].row == r)
            for (int i = threadIdx.x; i < a.width; i += STEP_THREADS) a.taps[int64_t(t) * a.width + i] = state[i];
}

// Reads memory as fast as it comes: what the layers are measured against.
DEVICE void probe(const Probe &a) {
    uint64_t sum = 0;
    int64_t threads = int64_t(gridDim.x) * blockDim.x, pairs = a.words / 2;
    int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; at + 3 * threads < pairs; at += 4 * threads) {
        Words words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = read_once(a.memory + 2 * (at + i * threads));
#pragma unroll
        for (int i = 0; i < 4; i++) sum += words[i].x ^ words[i].y ^ words[i].z ^ words[i].w;
    }
    for (; at < pairs; at += threads) {
        Words words = read_once(a.memory + 2 * at);
        sum += words.x ^ words.y ^ words.z ^ words.w;
    }
    // Never so; but the compiler cannot know, and must read.
    if (sum == 0x123456789abcdef0ull) *a.sink = sum;
}
