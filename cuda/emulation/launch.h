// How the emulated driver runs a kernel.
#pragma once

#include <stddef.h>

#include "threads.h"

namespace emulation {

// A kernel with its one argument, by address.
using Body = void (*)(const void *);

// Threads take turns from the last to the first: what depends on the order lacks a barrier.
extern bool backwards;

// Runs every thread of every thread block, with `shared` bytes of dynamic shared memory to each.
void launch(Body run, const void *with, Index blocks, Index threads_of_block, size_t shared);

} // namespace emulation
