// The change of stacks behind threads.h.
#include "threads.h"

#include <stdlib.h>

#include "launch.h"

#ifndef __x86_64__
#error "the emulation changes stacks by hand, and knows only x86-64"
#endif

namespace emulation {

Index thread_at, block_at, grid, block;
unsigned char *room;
bool backwards;

namespace {

constexpr size_t STACK = 64 << 10;

struct Thread {
    void *stack_pointer;
    Index at;
    bool done;
};

// A barrier: how many are here, and how often it has opened.
struct Barrier {
    int here, all, opened;
};

Thread threads[MOST_THREADS];
unsigned char *stacks;
void *outside;
int count, current, alive;
Barrier block_barrier, warp_barriers[MOST_THREADS / 32];
float boards[MOST_THREADS / 32][32];
const Body *body;
const void *argument;

} // namespace

// Saves what a call must keep, goes over to the other stack and takes up there.
extern "C" void emulation_change(void **save, void *to);
asm(R"(
.text
.globl emulation_change
.hidden emulation_change
emulation_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

namespace {

// Goes to the next thread that has not returned, or out when there is none.
void next() {
    int from = current;
    for (int step = 1; step <= count; step++) {
        int to = (from + (backwards ? count - step : step)) % count;
        if (threads[to].done) continue;
        if (to == from) return;
        current = to;
        thread_at = threads[to].at;
        emulation_change(&threads[from].stack_pointer, threads[to].stack_pointer);
        return;
    }
    emulation_change(&threads[from].stack_pointer, outside);
}

void open(Barrier &barrier) {
    barrier.here = 0;
    barrier.opened++;
}

void meet(Barrier &barrier) {
    int opened = barrier.opened;
    if (++barrier.here == barrier.all) open(barrier);
    while (barrier.opened == opened) next();
}

void leave(Barrier &barrier) {
    barrier.all--;
    if (barrier.all > 0 && barrier.here == barrier.all) open(barrier);
}

void enter() {
    (*body)(argument);
    threads[current].done = true;
    leave(warp_barriers[current / 32]);
    leave(block_barrier);
    alive--;
    next();
    abort();
}

} // namespace

void meet_block() { meet(block_barrier); }
void meet_warp() { meet(warp_barriers[current / 32]); }
float *warp_board() { return boards[current / 32]; }

void launch(Body run, const void *with, Index blocks, Index threads_of_block, size_t shared) {
    if (!stacks) stacks = static_cast<unsigned char *>(malloc(STACK * MOST_THREADS));
    grid = blocks;
    block = threads_of_block;
    count = block.x * block.y * block.z;
    body = &run;
    argument = with;
    unsigned char *memory = static_cast<unsigned char *>(aligned_alloc(64, (shared + 127) / 64 * 64));
    room = memory;
    for (int z = 0; z < blocks.z; z++)
        for (int y = 0; y < blocks.y; y++)
            for (int x = 0; x < blocks.x; x++) {
                block_at = Index{x, y, z};
                // Whatever reads what it has not written shall notice: as floats these are no numbers.
                memset(memory, 0xff, shared);
                block_barrier = Barrier{0, count, 0};
                for (int t = 0; t < count; t++) {
                    if (t % 32 == 0) warp_barriers[t / 32] = Barrier{0, count - t < 32 ? count - t : 32, 0};
                    void **top = reinterpret_cast<void **>(stacks + STACK * (t + 1));
                    // As after a call: the stack is aligned but for the return address.
                    *--top = nullptr;
                    *--top = reinterpret_cast<void *>(enter);
                    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
                    threads[t] = Thread{top, Index{t % block.x, t / block.x % block.y, t / (block.x * block.y)}, false};
                }
                alive = count;
                current = backwards ? count - 1 : 0;
                thread_at = threads[current].at;
                emulation_change(&outside, threads[current].stack_pointer);
            }
    free(memory);
}

} // namespace emulation
