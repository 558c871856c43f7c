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

// Where logit `i` lies: threads go through stretches of eight side by side, and would all ask for the same few banks.
DEVICE int spot(int i) { return i + i / 32; }

// The key that a code needs to be among the `k` best: eight bits at a time, from the top, a digit to a thread.
DEVICE uint32_t kth_highest(const float *logits, int vocab, uint32_t k, uint32_t *counts, float *warps, uint32_t *found) {
    uint32_t prefix = 0, left = k;
    int t = threadIdx.x, lane = t % 32;
    for (int shift = 24; shift >= 0; shift -= 8) {
        counts[t] = 0;
        __syncthreads();
        for (int i = t; i < vocab; i += SAMPLE_THREADS) {
            uint32_t key = key_of(logits[spot(i)]);
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(counts + (key >> shift & 255), 1u);
        }
        __syncthreads();
        // How many have this digit or a higher one: small whole numbers, which a float holds.
        float own = float(counts[t]), reached = own;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            float further = from_above(reached, distance);
            if (lane + distance < 32) reached += further;
        }
        if (lane == 0) warps[t / 32] = reached;
        __syncthreads();
        for (int w = t / 32 + 1; w < SAMPLE_THREADS / 32; w++) reached += warps[w];
        float higher = reached - own;
        if (higher < float(left) && float(left) <= reached)
            found[0] = prefix | uint32_t(t) << shift, found[1] = left - uint32_t(higher);
        __syncthreads();
        prefix = found[0], left = found[1];
        __syncthreads();
    }
    return prefix;
}

DEVICE void sample(const Sample &a) {
    constexpr int WARPS = SAMPLE_THREADS / 32, AT_ONCE = 8;
    SHARED float logits[MOST_VOCAB + MOST_VOCAB / 32];
    SHARED uint32_t counts[SAMPLE_THREADS], found[2];
    SHARED double sums[SAMPLE_THREADS], sums_of_warps[WARPS];
    SHARED float tops[WARPS], reached[WARPS];
    SHARED int places[WARPS], answer;
    let_next_begin();
    wait_for_previous();
    int codebook = blockIdx.x, d = blockIdx.y, t = threadIdx.x, lane = t % 32;
    const Draw &draw = a.step->draws[d];
    if (!draw.live) return;
    const float *conditional = a.logits + (int64_t(2 * d) * a.codebooks + codebook) * a.vocab;
    const float *unconditional = a.logits + (int64_t(2 * d + 1) * a.codebooks + codebook) * a.vocab;
    float top = -INFINITY;
    int best = 0;
    bool odd = false;
    for (int base = t; base < a.vocab; base += AT_ONCE * SAMPLE_THREADS) {
        float c[AT_ONCE], u[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            int i = base + j * SAMPLE_THREADS;
            c[j] = u[j] = 0.0f;
            if (i < a.vocab) c[j] = read_l2(conditional + i), u[j] = read_l2(unconditional + i);
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            int i = base + j * SAMPLE_THREADS;
            if (i >= a.vocab) break;
            odd = odd || !isfinite(c[j]) || !isfinite(u[j]);
            float logit = u[j] + draw.guidance * (c[j] - u[j]);
            logits[spot(i)] = logit;
            if (logit > top) top = logit, best = i;
        }
    }
    // Host memory, which knows no atomic operations; but all write the same.
    if (odd) a.drawn->not_finite = 1;
    if (t == 0) answer = -1;
    // The first of equals: threads in a warp, then warps. A float holds a place.
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        float theirs = from_across(top, distance);
        int place = int(from_across(float(best), distance));
        if (theirs > top || (theirs == top && place < best)) top = theirs, best = place;
    }
    if (lane == 0) tops[t / 32] = top, places[t / 32] = best;
    __syncthreads();
    for (int w = 0; w < WARPS; w++)
        if (tops[w] > top || (tops[w] == top && places[w] < best)) top = tops[w], best = places[w];
    if (draw.temperature < GREEDY_BELOW || draw.top_k == 1) {
        if (t == 0) a.drawn->codes[d][codebook] = uint32_t(best);
        return;
    }
    uint32_t lowest = 0;
    if (draw.top_k > 0 && draw.top_k < uint32_t(a.vocab))
        lowest = kth_highest(logits, a.vocab, draw.top_k, counts, reached, found);
    // Codes that a thread has: one stretch, so that the draw goes through them in order.
    int each = (a.vocab + SAMPLE_THREADS - 1) / SAMPLE_THREADS;
    int begin = t * each < a.vocab ? t * each : a.vocab, end = begin + each < a.vocab ? begin + each : a.vocab;
    double own = 0.0;
    for (int i = begin; i < end; i++) {
        // Codes below the k-th get no weight; ties with it stay.
        float logit = logits[spot(i)];
        float weight = key_of(logit) < lowest ? 0.0f : expf((logit - top) / draw.temperature);
        logits[spot(i)] = weight;
        own += weight;
    }
    sums[t] = own;
    __syncthreads();
    double before = 0.0, total = 0.0;
#pragma unroll
    for (int i = 0; i < 31; i++) {
        double theirs = sums[t - lane + i];
        if (i < lane) before += theirs;
    }
    if (lane == 31) sums_of_warps[t / 32] = before + own;
    __syncthreads();
    for (int w = 0; w < WARPS; w++) {
        if (w == t / 32) before += total;
        total += sums_of_warps[w];
    }
    double left = uniform(draw.seed, draw.frame, uint32_t(codebook)) * total - before;
    if (left >= 0.0 && left < own) {
        for (int i = begin; i < end; i++) {
            float weight = logits[spot(i)];
            if (left < weight) {
                answer = i;
                break;
            }
            left -= weight;
        }
    }
    __syncthreads();
    // Rounding used up the sum: the most likely code is as good as any.
    if (t == 0) a.drawn->codes[d][codebook] = uint32_t(answer < 0 ? best : answer);
}
