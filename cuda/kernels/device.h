// The few things that a kernel asks of the hardware. Under nvcc they are the hardware's; under a host compiler
// emulation/threads.h gives the same names for threads that take turns. Device and emulation.
#pragma once

#include "layout.h"

#ifdef __CUDACC__

#define KERNEL(bounds) extern "C" __global__ void __launch_bounds__ bounds
#define DEVICE __device__ __forceinline__
#define ARGUMENT(type) const __grid_constant__ type
#define SHARED __shared__
#define SHARED_ALIGNED __shared__ __align__(16)
#define SHARED_ROOM(type, name) extern __shared__ __align__(16) unsigned char shared_room_[]; type *name = reinterpret_cast<type *>(shared_room_)

struct Words {
    uint32_t x, y, z, w;
};

// Sixteen bytes of weights: read once, so they should not push anything else out of the first cache.
DEVICE Words read_once(const void *from) {
    Words v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// Sixteen bytes that this launch may have been preceded by the writing of.
DEVICE Words read_fresh(const void *from) {
    Words v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

// Counts up; what this thread knows to be written can be read by whoever counts up after it, and the other way round.
DEVICE uint32_t count_up(uint32_t *counter) {
    uint32_t before;
    asm volatile("atom.global.acq_rel.gpu.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

DEVICE void ask_for(const void *line) { asm volatile("prefetch.global.L2 [%0];" ::"l"(line)); }

// The next launch may begin its prologue.
DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Everything that launches before this one wrote can be read from here on, and overwritten.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// What the lane at a distance has; all lanes of a warp ask at once.
DEVICE float from_across(float value, int distance) { return __shfl_xor_sync(0xffffffffu, value, distance); }

// What the lane further up at a distance has; without such a lane, one's own.
DEVICE float from_above(float value, int distance) { return __shfl_down_sync(0xffffffffu, value, distance); }

DEVICE float read_l2(const float *from) { return __ldcg(from); }
DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

#else
#include "../emulation/threads.h"
#endif

// Largest value, or sum, over the lanes that are `FROM` apart.
template <int FROM> DEVICE float across_max(float value) {
#pragma unroll
    for (int distance = 16; distance >= FROM; distance /= 2) value = fmaxf(value, from_across(value, distance));
    return value;
}

template <int FROM> DEVICE float across_sum(float value) {
#pragma unroll
    for (int distance = 16; distance >= FROM; distance /= 2) value += from_across(value, distance);
    return value;
}

DEVICE float warp_sum(float value) { return across_sum<1>(value); }

// Sum over the `WIDTH` neighbouring lanes that a lane belongs to.
template <int WIDTH> DEVICE float group_sum(float value) {
#pragma unroll
    for (int distance = WIDTH / 2; distance > 0; distance /= 2) value += from_across(value, distance);
    return value;
}

// `across_sum` of COUNT values at once, bit for bit, with a fraction of the exchanges: as long as a lane has several values, it
// gives half of them away and takes its partner's part of the others. COUNT is a power of two. The values are then in PARTS =
// `parts_of(COUNT, FROM)` parts, and a lane has the sums of part `lane * PARTS / 32`.
DEVICE constexpr int parts_of(int count, int from) { return count < 32 / from ? count : 32 / from; }
template <int COUNT, int FROM, int DISTANCE = 16> DEVICE void across_sums(float *values) {
    if constexpr (DISTANCE >= FROM) {
        constexpr int HALF = COUNT > 1 ? COUNT / 2 : 1;
        bool upper = threadIdx.x & DISTANCE;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            float kept = values[i], given = values[i];
            if (COUNT > 1) kept = upper ? values[i + HALF] : values[i], given = upper ? values[i] : values[i + HALF];
            values[i] = kept + from_across(given, DISTANCE);
        }
        across_sums<HALF, FROM, DISTANCE / 2>(values);
    }
}

// The same over a whole warp, for up to 32 values: a lane returns with the sum of value `lane * COUNT / 32`.
template <int COUNT> DEVICE float warp_sums(float *values) {
    static_assert(32 % COUNT == 0, "a power of two");
    across_sums<COUNT, 1>(values);
    return values[0];
}

// The two bf16 numbers of a word.
DEVICE float low(uint32_t word) { return bits_to_float(word << 16); }
DEVICE float high(uint32_t word) { return bits_to_float(word & 0xffff0000u); }

// The nearest bf16 number, ties to even; what is not finite stays so.
DEVICE uint16_t to_bf16(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

DEVICE void eight(const Words &words, float *values) {
    values[0] = low(words.x), values[1] = high(words.x), values[2] = low(words.y), values[3] = high(words.y);
    values[4] = low(words.z), values[5] = high(words.z), values[6] = low(words.w), values[7] = high(words.w);
}
