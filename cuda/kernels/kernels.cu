// Every kernel under the name that the host asks for (cuda/src/kernels.rs). `cargo xtask bundle --cuda` compiles this for
// each kind of card; emulation/driver.cpp compiles it for the processor.
#include "attention.h"
#include "codec.h"
#include "linear.h"
#include "sampling.h"
#include "step.h"

// Two thread blocks to a processor.
#define LINEAR(ROWS, SPLIT)                                                                                            \
    KERNEL((threads_of(ROWS), 2)) linear_##ROWS##_##SPLIT(ARGUMENT(Linear) a) { linear<ROWS, SPLIT>(a); }
#define LINEARS(ROWS) LINEAR(ROWS, 1) LINEAR(ROWS, 2) LINEAR(ROWS, 4)
LINEARS(2)
LINEARS(4)
LINEARS(6)
LINEARS(8)

#define ATTEND(SIZE) KERNEL((ATTEND_THREADS)) attend_##SIZE(ARGUMENT(Attend) a) { attend<SIZE>(a); }
ATTEND(8)
ATTEND(16)
ATTEND(32)
ATTEND(64)
ATTEND(128)

KERNEL((STEP_THREADS)) embed_codes(ARGUMENT(Embed) a) { embed(a); }
KERNEL((STEP_THREADS)) inject_rows(ARGUMENT(Inject) a) { inject(a); }
KERNEL((SAMPLE_THREADS)) sample_codes(ARGUMENT(Sample) a) { sample(a); }
KERNEL((STEP_THREADS)) probe_memory(ARGUMENT(Probe) a) { probe(a); }

#define WINDOW(ROWS) KERNEL((WINDOW_THREADS)) window_##ROWS(ARGUMENT(Window) a) { window<ROWS>(a); }
WINDOW(1)
WINDOW(2)
WINDOW(4)
WINDOW(8)
KERNEL((RECUR_THREADS)) recur_lstm(ARGUMENT(Recur) a) { recur(a); }
KERNEL((STEP_THREADS)) sum_codes(ARGUMENT(Latent) a) { latent(a); }
