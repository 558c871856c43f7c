// Guidance, temperature, top-k and the draw, as engine/src/decoder/sampling.rs has them: the same numbers from the same
// counters. One thread block to a codebook of a pair of rows. Device.
#pragma once

#include "device.h"

constexpr int SAMPLE_THREADS = 256;
constexpr int MOST_VOCAB = 4096;
constexpr float GREEDY_BELOW = 1e-3f;

DEVICE uint64_t mixed(uint64_t x, uint64_t constant) {
    x = (x ^ x >> 32) * constant;
    return x ^ x >> 29;
}

// A uniform number in [0, 1) with 53 bits.
DEVICE double uniform(uint32_t seed, uint32_t frame, uint32_t codebook) {
    uint64_t x = uint64_t(seed) << 32 | frame;
    x = mixed(x, 0x6a09e667f3bcc909ull);
    x = mixed(x, 0xbb67ae8584caa73bull);
    x += (uint64_t(codebook) + 1) * 0x9e3779b97f4a7c15ull;
    x = mixed(x, 0x3c6ef372fe94f82bull);
    x = mixed(x, 0xa54ff53a5f1d36f1ull);
    return double(x >> 11) / 9007199254740992.0;
}

// Numbers in the order of their keys.
DEVICE uint32_t key_of(float value) {
    uint32_t bits = float_to_bits(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The key that a code needs to be among the `k` best: eight bits at a time, from the top. `above` has twice as many places
// as there are threads.
DEVICE uint32_t kth_highest(const float *logits, int vocab, uint32_t k, uint32_t *above, uint32_t *found) {
    uint32_t prefix = 0, left = k;
    int t = threadIdx.x;
    for (int shift = 24; shift >= 0; shift -= 8) {
        above[t] = 0;
        __syncthreads();
        for (int i = t; i < vocab; i += SAMPLE_THREADS) {
            uint32_t key = key_of(logits[i]);
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(above + (key >> shift & 255), 1u);
        }
        __syncthreads();
        uint32_t own = above[t];
        // How many have this digit or a higher one.
        uint32_t *from = above, *to = above + SAMPLE_THREADS;
        for (int distance = 1; distance < SAMPLE_THREADS; distance *= 2) {
            to[t] = from[t] + (t + distance < SAMPLE_THREADS ? from[t + distance] : 0);
            __syncthreads();
            uint32_t *other = from;
            from = to, to = other;
        }
        uint32_t higher = from[t] - own;
        if (higher < left && left <= from[t]) found[0] = prefix | uint32_t(t) << shift, found[1] = left - higher;
        __syncthreads();
        prefix = found[0], left = found[1];
        __syncthreads();
    }
    return prefix;
}

DEVICE void sample(const Sample &a) {
    SHARED float logits[MOST_VOCAB];
    SHARED uint32_t counts[2 * SAMPLE_THREADS], found[2];
    SHARED double sums[SAMPLE_THREADS], warp_sums[SAMPLE_THREADS / 32];
    SHARED float tops[SAMPLE_THREADS], warp_tops[SAMPLE_THREADS / 32];
    SHARED int places[SAMPLE_THREADS], warp_places[SAMPLE_THREADS / 32], answer;
    let_next_begin();
    wait_for_previous();
    int codebook = blockIdx.x, d = blockIdx.y, t = threadIdx.x;
    const Draw &draw = a.step->draws[d];
    if (!draw.live) return;
    const float *conditional = a.logits + (int64_t(2 * d) * a.codebooks + codebook) * a.vocab;
    const float *unconditional = a.logits + (int64_t(2 * d + 1) * a.codebooks + codebook) * a.vocab;
    // Codes that a thread has: one stretch, so that the draw goes through them in order.
    int each = (a.vocab + SAMPLE_THREADS - 1) / SAMPLE_THREADS;
    int begin = t * each < a.vocab ? t * each : a.vocab, end = begin + each < a.vocab ? begin + each : a.vocab;
    float top = -INFINITY;
    int best = 0;
    bool odd = false;
    for (int i = begin; i < end; i++) {
        float c = conditional[i], u = unconditional[i];
        odd = odd || !isfinite(c) || !isfinite(u);
        float logit = u + draw.guidance * (c - u);
        logits[i] = logit;
        if (logit > top) top = logit, best = i;
    }
    // Host memory, which knows no atomic operations; but all write the same.
    if (odd) a.drawn->not_finite = 1;
    tops[t] = top, places[t] = best;
    if (t == 0) answer = -1;
    __syncthreads();
    // The first of equals: threads in a warp, then warps.
    for (int i = t & ~31; i <= (t | 31); i++)
        if (tops[i] > top || (tops[i] == top && places[i] < best)) top = tops[i], best = places[i];
    if (t % 32 == 0) warp_tops[t / 32] = top, warp_places[t / 32] = best;
    __syncthreads();
    for (int w = 0; w < SAMPLE_THREADS / 32; w++)
        if (warp_tops[w] > top || (warp_tops[w] == top && warp_places[w] < best)) top = warp_tops[w], best = warp_places[w];
    if (draw.temperature < GREEDY_BELOW || draw.top_k == 1) {
        if (t == 0) a.drawn->codes[d][codebook] = uint32_t(best);
        return;
    }
    uint32_t lowest = 0;
    if (draw.top_k > 0 && draw.top_k < uint32_t(a.vocab)) lowest = kth_highest(logits, a.vocab, draw.top_k, counts, found);
    double own = 0.0;
    for (int i = begin; i < end; i++) {
        // Codes below the k-th get no weight; ties with it stay.
        float weight = key_of(logits[i]) < lowest ? 0.0f : expf((logits[i] - top) / draw.temperature);
        logits[i] = weight;
        own += weight;
    }
    sums[t] = own;
    __syncthreads();
    double before = 0.0, total = 0.0;
    for (int i = t & ~31; i < t; i++) before += sums[i];
    if (t % 32 == 31) warp_sums[t / 32] = before + own;
    __syncthreads();
    for (int w = 0; w < SAMPLE_THREADS / 32; w++) {
        if (w == t / 32) before += total;
        total += warp_sums[w];
    }
    double left = uniform(draw.seed, draw.frame, uint32_t(codebook)) * total - before;
    if (left >= 0.0 && left < own) {
        for (int i = begin; i < end; i++) {
            if (left < logits[i]) {
                answer = i;
                break;
            }
            left -= logits[i];
        }
    }
    __syncthreads();
    // Rounding used up the sum: the most likely code is as good as any.
    if (t == 0) a.drawn->codes[d][codebook] = uint32_t(answer < 0 ? best : answer);
}
