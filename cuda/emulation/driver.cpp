// An NVIDIA driver without a card: the part of the driver's interface that the library calls, run by the processor. What the
// library does, graphs included, is tested against this; the kernels are the real ones. Tests say how much memory it has,
// how old it is and when its card is lost. One caller at a time.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/kernels.cu"
#include "launch.h"

namespace {

constexpr int SUCCESS = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, LOST = 719;
constexpr int MOST_SHARED = 227 << 10;

struct Kernel {
    const char *name;
    emulation::Body body;
    size_t argument;
};

#define ENTRY(name, type)                                                                                              \
    Kernel { #name, [](const void *with) { name(*static_cast<const type *>(with)); }, sizeof(type) }
#define LINEAR_ENTRIES(rows)                                                                                           \
    ENTRY(linear_##rows##_1, Linear), ENTRY(linear_##rows##_2, Linear), ENTRY(linear_##rows##_4, Linear)

const Kernel KERNELS[] = {LINEAR_ENTRIES(2),
                          LINEAR_ENTRIES(4),
                          LINEAR_ENTRIES(6),
                          LINEAR_ENTRIES(8),
                          ENTRY(attend_8, Attend),
                          ENTRY(attend_16, Attend),
                          ENTRY(attend_32, Attend),
                          ENTRY(attend_64, Attend),
                          ENTRY(attend_128, Attend),
                          ENTRY(embed_codes, Embed),
                          ENTRY(inject_rows, Inject),
                          ENTRY(sample_codes, Sample),
                          ENTRY(probe_memory, Probe),
                          ENTRY(window_1, Window),
                          ENTRY(window_2, Window),
                          ENTRY(window_4, Window),
                          ENTRY(window_8, Window),
                          ENTRY(recur_lstm, Recur),
                          ENTRY(sum_codes, Latent)};

using Work = std::function<void()>;

struct Graph {
    std::vector<Work> work;
};

struct Stream {
    Graph *capture = nullptr;
};

std::recursive_mutex turn;
std::map<uint64_t, size_t> allocations;
size_t used, memory = size_t(8) << 30;
int version = 13000, devices = 1, capability = 9;
// Graphs until the card is lost; negative is never.
int64_t left = -1;

// Kernels whose names begin so do nothing; with no name all do their work.
std::string idle;

bool lost() { return left == 0; }

int submit(Stream *stream, Work work) {
    std::lock_guard<std::recursive_mutex> guard(turn);
    if (lost()) return LOST;
    if (stream && stream->capture) stream->capture->work.push_back(std::move(work));
    else work();
    return SUCCESS;
}

} // namespace

struct LaunchConfig {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared;
    Stream *stream;
    void *attributes;
    unsigned count;
};

extern "C" {

// For tests.
void emulated_memory(uint64_t bytes) { memory = bytes; }
void emulated_version(int number) { version = number; }
void emulated_devices(int count) { devices = count; }
void emulated_capability(int major) { capability = major; }
void emulated_backwards(int value) { emulation::backwards = value != 0; }
void emulated_idle(const char *beginning) { idle = beginning; }
void emulated_lose_after(int64_t graphs) { left = graphs; }
uint64_t emulated_used() { return used; }

int cuInit(unsigned) { return devices > 0 ? SUCCESS : NO_DEVICE; }

int cuDriverGetVersion(int *number) {
    *number = version;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    *count = devices;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= devices) return INVALID;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int) {
    strncpy(name, "Emulated card", length);
    name[length - 1] = 0;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 4; return SUCCESS;            // multiprocessors
    case 75: *value = capability; return SUCCESS;   // compute capability, major
    case 76: *value = 0; return SUCCESS;            // and minor
    case 97: *value = MOST_SHARED; return SUCCESS;  // shared memory of a thread block on request
    default: return INVALID;
    }
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = reinterpret_cast<void *>(intptr_t(device) + 1);
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void *) { return SUCCESS; }

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (lost()) return LOST;
    *total = memory;
    *free = memory > used ? memory - used : 0;
    return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(turn);
    if (lost()) return LOST;
    if (bytes == 0) return INVALID;
    if (used + bytes > memory) return NO_MEMORY;
    void *room = aligned_alloc(256, (bytes + 255) / 256 * 256);
    // What nothing has written is no number.
    memset(room, 0xff, bytes);
    *address = reinterpret_cast<uint64_t>(room);
    allocations[*address] = bytes;
    used += bytes;
    return SUCCESS;
}

int cuMemFree_v2(uint64_t address) {
    std::lock_guard<std::recursive_mutex> guard(turn);
    auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID;
    used -= found->second;
    allocations.erase(found);
    free(reinterpret_cast<void *>(address));
    return SUCCESS;
}

int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *address ? SUCCESS : NO_MEMORY;
}

int cuMemFreeHost(void *address) {
    free(address);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    return submit(stream, [=] { memcpy(reinterpret_cast<void *>(to), from, bytes); });
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    return submit(stream, [=] { memcpy(to, reinterpret_cast<void *>(from), bytes); });
}

int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, Stream *stream) {
    return submit(stream, [=] { memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes); });
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream *stream) {
    return submit(stream, [=] { memset(reinterpret_cast<void *>(to), value, bytes); });
}

int cuModuleLoadData(void **module, const void *image) {
    if (!image) return INVALID;
    *module = const_cast<void *>(image);
    return SUCCESS;
}

int cuModuleUnload(void *) { return SUCCESS; }

int cuModuleGetFunction(const Kernel **function, void *, const char *name) {
    for (const Kernel &kernel : KERNELS)
        if (!strcmp(kernel.name, name)) {
            *function = &kernel;
            return SUCCESS;
        }
    return NOT_FOUND;
}

int cuFuncSetAttribute(const Kernel *, int attribute, int value) {
    // Dynamic shared memory, and its preferred share in percent.
    bool known = (attribute == 8 && value <= MOST_SHARED) || (attribute == 9 && value <= 100);
    return known ? SUCCESS : INVALID;
}

int cuLaunchKernelEx(const LaunchConfig *config, const Kernel *kernel, void **arguments, void **) {
    if (config->shared > MOST_SHARED || config->block_x > 1024 || !config->grid_x || !config->grid_y || !config->grid_z)
        return INVALID;
    // The argument is taken now; the launch may come later, and often.
    const char *from = static_cast<const char *>(arguments[0]);
    std::vector<char> argument(from, from + kernel->argument);
    LaunchConfig c = *config;
    return submit(config->stream, [=] {
        if (!idle.empty() && !strncmp(kernel->name, idle.c_str(), idle.size())) return;
        emulation::launch(kernel->body, argument.data(), Index{int(c.grid_x), int(c.grid_y), int(c.grid_z)},
                          Index{int(c.block_x), int(c.block_y), int(c.block_z)}, c.shared);
    });
}

int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return SUCCESS;
}

int cuStreamCreateWithPriority(Stream **stream, unsigned, int) {
    if (lost()) return LOST;
    *stream = new Stream;
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream *stream) {
    delete stream;
    return SUCCESS;
}

int cuStreamSynchronize(Stream *) { return lost() ? LOST : SUCCESS; }

int cuStreamBeginCapture_v2(Stream *stream, int) {
    if (lost()) return LOST;
    if (stream->capture) return INVALID;
    stream->capture = new Graph;
    return SUCCESS;
}

int cuStreamEndCapture(Stream *stream, Graph **graph) {
    if (!stream->capture) return INVALID;
    *graph = stream->capture;
    stream->capture = nullptr;
    return SUCCESS;
}

int cuGraphInstantiateWithFlags(Graph **executable, const Graph *graph, unsigned long long) {
    *executable = new Graph(*graph);
    return SUCCESS;
}

int cuGraphDestroy(Graph *graph) {
    delete graph;
    return SUCCESS;
}

int cuGraphExecDestroy(Graph *graph) {
    delete graph;
    return SUCCESS;
}

int cuGraphLaunch(const Graph *graph, Stream *) {
    std::lock_guard<std::recursive_mutex> guard(turn);
    if (lost()) return LOST;
    if (left > 0) left--;
    for (const Work &work : graph->work) work();
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned) {
    *event = new int64_t(0);
    return SUCCESS;
}

int cuEventRecord(void *, Stream *) { return lost() ? LOST : SUCCESS; }

int cuEventElapsedTime_v2(float *milliseconds, void *, void *) {
    // There is no clock to speak of.
    *milliseconds = 1.0f;
    return SUCCESS;
}

int cuEventDestroy_v2(void *event) {
    delete static_cast<int64_t *>(event);
    return SUCCESS;
}

int cuGetErrorName(int error, const char **name) {
    switch (error) {
    case SUCCESS: *name = "CUDA_SUCCESS"; break;
    case INVALID: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case NO_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case LOST: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}

} // extern "C"
