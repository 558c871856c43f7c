// A card's threads on the processor: the threads of one thread block take turns, each with a stack of its own, and change
// over where they wait for each other. Thread blocks run one after the other. For tests without a card; slow, and blind to
// races between thread blocks. x86-64.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KERNEL(bounds) static void
#define DEVICE static inline
#define ARGUMENT(type) const type &
#define SHARED static
#define SHARED_ALIGNED alignas(16) static
#define SHARED_ROOM(type, name) type *name = reinterpret_cast<type *>(emulation::room)

struct Words {
    uint32_t x, y, z, w;
};
struct float4 {
    float x, y, z, w;
};
struct Index {
    int x, y, z;
};

namespace emulation {

constexpr int MOST_THREADS = 1024;

extern Index thread_at, block_at, grid, block;
// Dynamic shared memory.
extern unsigned char *room;
// Waits until every thread of the group is here. A thread that has returned counts as here.
void meet_block();
void meet_warp();
// What the lanes of this thread's warp have put down, 32 of them.
float *warp_board();

} // namespace emulation

#define threadIdx emulation::thread_at
#define blockIdx emulation::block_at
#define gridDim emulation::grid
#define blockDim emulation::block

DEVICE void __syncthreads() { emulation::meet_block(); }

DEVICE uint32_t atomicAdd(uint32_t *to, uint32_t value) {
    uint32_t before = *to;
    *to = before + value;
    return before;
}

DEVICE uint32_t count_up(uint32_t *counter) { return atomicAdd(counter, 1); }

DEVICE Words read_once(const void *from) {
    Words words;
    memcpy(&words, from, sizeof words);
    return words;
}

DEVICE Words read_fresh(const void *from) { return read_once(from); }
DEVICE float read_l2(const float *from) { return *from; }
DEVICE void ask_for(const void *) {}
DEVICE void let_next_begin() {}
DEVICE void wait_for_previous() {}

DEVICE float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

DEVICE uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Every lane puts its value down, and takes another's.
DEVICE float exchange(float value, int from) {
    float *board = emulation::warp_board();
    board[threadIdx.x % 32] = value;
    emulation::meet_warp();
    float theirs = board[from];
    emulation::meet_warp();
    return theirs;
}

DEVICE float from_across(float value, int distance) { return exchange(value, threadIdx.x % 32 ^ distance); }
DEVICE float from_above(float value, int distance) {
    int lane = threadIdx.x % 32;
    return exchange(value, lane + distance < 32 ? lane + distance : lane);
}
