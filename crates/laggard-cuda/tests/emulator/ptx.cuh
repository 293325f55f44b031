// What `kernels/ptx.cuh` asks of a GPU, done by a CPU, so that kernels can be executed where there is
// none. The instructions of a warp are written after their definitions in the PTX ISA, 9.7, and are
// strict where hardware is forgiving: misaligned addresses and bank conflicts end the program.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <ucontext.h>
#include <vector>

#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define DEVICE inline

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) Chunk {
    u32 word[4];
};

const u32 kWarp = 32;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: thread %u of block %u: not %s\n", __FILE__, __LINE__,          \
                    machine.self, machine.block, #condition);                                      \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

// A copy that has begun, with the group that it is in.
struct Copy {
    void* to;
    Chunk chunk;
    u64 group;
};

// Where threads wait for each other.
struct Meeting {
    u32 arrived;
    u64 generation;
};

// Something that the hardware does at a time of its own, at the latest when it is waited for.
struct Errand {
    std::function<void()> run;
    u64 group; // of those of its thread
};

// What a thread has going on beside itself; see `ptx_async.cuh`.
struct Asynchronous {
    std::vector<std::function<void()>> writes; // to shared memory, not published
    std::deque<Errand> copies_back;
    u64 groups_back;
    std::deque<Errand> products;
    u64 groups_of_products;
    bool may_multiply;
    u32 registers;
};

struct Thread {
    std::vector<u8> stack;
    bool started;
    bool ended;
    jmp_buf here; // where it waits
    const Meeting* at;
    u64 generation;              // of the meeting, when this thread came
    std::function<bool()> until; // what else it waits for
    std::vector<Copy> copies;
    u64 group;
    Asynchronous asynchronous;
};

// One block at a time; each warp runs until all of its threads wait for other warps.
struct Machine {
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<Meeting> warps;
    std::vector<u64> slots; // for each thread, what it shows to its warp
    Meeting all;
    Meeting named[16];
    std::vector<std::function<void()>> errands; // what may happen at any time
    u32 free_registers;
    u64 random; // if not 0, threads and errands take turns at random
    jmp_buf scheduler;
    u32 self;
    u32 block;
    u32 blocks;
    u32 shared_bytes; // that the launch asked for
    bool backwards;   // threads run from the last to the first
    bool early;       // copies arrive when they begin, not when they are waited for
    u64 ticks;
    u32 defect; // which mistake the kernel makes, if one was put into it
    std::function<void()> body;
};
inline Machine machine;
alignas(1024) inline u8 shared[232448];

struct Index {
    u32 x;
};
#define threadIdx (Index{machine.self})
#define blockIdx (Index{machine.block})
#define blockDim (Index{static_cast<u32>(machine.threads.size())})
#define gridDim (Index{machine.blocks})

inline void run_thread() {
    machine.body();
    machine.threads[machine.self]->ended = true;
    _longjmp(machine.scheduler, 1);
}

// Lets a thread run until it waits or ends. Contexts make its stack, jumps are what is quick.
inline void resume(Thread& thread) {
    if (_setjmp(machine.scheduler) != 0) {
        return;
    }
    if (thread.started) {
        _longjmp(thread.here, 1);
    }
    thread.started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = thread.stack.data();
    context.uc_stack.ss_size = thread.stack.size();
    context.uc_link = nullptr;
    makecontext(&context, run_thread, 0);
    setcontext(&context);
}

inline void meet(Meeting& barrier, u32 count) {
    Thread& thread = *machine.threads[machine.self];
    thread.at = &barrier;
    thread.generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    if (_setjmp(thread.here) == 0) {
        _longjmp(machine.scheduler, 1);
    }
}

// Waits for something that is looked at again and again.
inline void wait_until(std::function<bool()> holds) {
    if (holds()) {
        return;
    }
    Thread& thread = *machine.threads[machine.self];
    thread.until = holds;
    if (_setjmp(thread.here) == 0) {
        _longjmp(machine.scheduler, 1);
    }
}

inline bool can_run(Thread& thread) {
    if (thread.ended || (thread.at && thread.at->generation == thread.generation)) {
        return false;
    }
    if (thread.until && !thread.until()) {
        return false;
    }
    thread.until = nullptr;
    return true;
}

inline u32 at_random(u32 below) {
    machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<u32>(machine.random >> 33) % below;
}

inline void run_errand(u32 which) {
    const std::function<void()> errand = machine.errands[which];
    machine.errands.erase(machine.errands.begin() + which);
    errand();
}

// Whether any thread of the warp did run.
inline bool run_warp(u32 warp) {
    const u32 count = machine.threads.size();
    const u32 first = warp * kWarp;
    const u32 end = first + kWarp < count ? first + kWarp : count;
    bool any = false;
    for (bool more = true; more;) {
        more = false;
        for (u32 i = first; i < end; i++) {
            machine.self = machine.backwards ? first + end - 1 - i : i;
            Thread& thread = *machine.threads[machine.self];
            if (can_run(thread)) {
                resume(thread);
                more = true;
            }
        }
        any |= more;
    }
    return any;
}

inline void __syncthreads() { meet(machine.all, machine.threads.size()); }
inline void __syncwarp() { meet(machine.warps[machine.self / kWarp], kWarp); }

// Executes one block.
inline void run_block() {
    const u32 count = machine.threads.size();
    memset(shared, 0xff, sizeof(shared));
    machine.all = {};
    for (Meeting& meeting : machine.named) {
        meeting = {};
    }
    machine.errands.clear();
    machine.free_registers = 0;
    machine.warps.assign((count + kWarp - 1) / kWarp, {});
    machine.slots.assign(count, 0);
    for (auto& thread : machine.threads) {
        if (!thread) {
            thread = std::make_unique<Thread>();
            thread->stack.resize(64 << 10);
        }
        thread->started = false;
        thread->ended = false;
        thread->at = nullptr;
        thread->copies.clear();
        thread->group = 0;
        thread->until = nullptr;
        thread->asynchronous = Asynchronous();
        // What launch bounds of as many threads leave to each, in lots of 8.
        thread->asynchronous.registers = 65536 / count / 8 * 8;
    }
    const u32 warps = machine.warps.size();
    for (bool more = true; more;) {
        more = false;
        for (u32 i = 0; i < warps; i++) {
            const u32 warp = machine.random ? at_random(warps) : i;
            more |= run_warp(machine.backwards ? warps - 1 - warp : warp);
            if (machine.random && !machine.errands.empty() && at_random(2) == 0) {
                run_errand(at_random(machine.errands.size()));
                more = true;
            }
        }
        // Nobody can go on, at the latest then they are run.
        for (u32 i = 0; !more && i < warps; i++) {
            more = run_warp(i);
        }
        if (!more && !machine.errands.empty()) {
            run_errand(machine.backwards ? machine.errands.size() - 1 : 0);
            more = true;
        }
    }
    for (machine.self = 0; machine.self < count; machine.self++) {
        const Thread& thread = *machine.threads[machine.self];
        REQUIRE(thread.ended);
        // Shared memory is gone when the block is.
        REQUIRE(thread.asynchronous.copies_back.empty());
        REQUIRE(thread.asynchronous.products.empty());
    }
}

// What each lane of the warp shows.
template <typename T> struct Shown {
    T lane[kWarp];
};
template <typename T> Shown<T> show(T mine) {
    static_assert(sizeof(T) <= sizeof(u64), "does not fit into a slot");
    const u32 first = machine.self / kWarp * kWarp;
    memcpy(&machine.slots[machine.self], &mine, sizeof(T));
    __syncwarp();
    Shown<T> shown;
    for (u32 i = 0; i < kWarp; i++) {
        memcpy(&shown.lane[i], &machine.slots[first + i], sizeof(T));
    }
    __syncwarp();
    return shown;
}
inline u32 lane_id() { return machine.self % kWarp; }
inline bool is_aligned(const void* address, u64 to) {
    return reinterpret_cast<uintptr_t>(address) % to == 0;
}
inline bool is_shared(const void* address, u64 bytes) {
    const u8* at = static_cast<const u8*>(address);
    return at >= shared && at + bytes <= shared + machine.shared_bytes;
}

DEVICE void copy_chunk(void* to, const void* global, u32 bytes) {
    REQUIRE(bytes <= 16 && bytes % 2 == 0);
    REQUIRE(is_aligned(to, 16) && is_aligned(global, 16));
    REQUIRE(is_shared(to, 16));
    Thread& thread = *machine.threads[machine.self];
    Copy copy = {to, {}, thread.group};
    memcpy(&copy.chunk, global, bytes);
    if (machine.early) {
        memcpy(to, &copy.chunk, 16);
    } else {
        thread.copies.push_back(copy);
    }
}
DEVICE void copies_commit() { machine.threads[machine.self]->group++; }
// Generations without such copies make them at once and have nothing to wait for.
DEVICE void arrive(u64 groups) {
    std::vector<Copy> later;
    Thread& thread = *machine.threads[machine.self];
    for (const Copy& copy : thread.copies) {
        if (copy.group < groups) {
            memcpy(copy.to, &copy.chunk, 16);
        } else {
            later.push_back(copy);
        }
    }
    thread.copies = later;
}
template <int kOpen> DEVICE void copies_wait() {
    const u64 group = machine.threads[machine.self]->group;
    arrive(group > kOpen ? group - kOpen : 0);
}

// 9.7.15.5.15, ldmatrix
DEVICE void load_rows(u32 (&to)[4], const void* row, bool transposed) {
    REQUIRE(is_shared(row, 16) && is_aligned(row, 16));
    const Shown<const void*> rows = show(row);
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        u32 banks = 0;
        for (u32 j = 0; j < 8; j++) {
            banks |= 1u << reinterpret_cast<uintptr_t>(rows.lane[8 * i + j]) / 16 % 8;
        }
        REQUIRE(banks == 0xff);
        const auto element = [&](u32 down, u32 across) -> u32 {
            const u16* from = static_cast<const u16*>(rows.lane[8 * i + (transposed ? across : down)]);
            return from[transposed ? down : across];
        };
        to[i] = element(lane / 4, lane % 4 * 2) | element(lane / 4, lane % 4 * 2 + 1) << 16;
    }
}
DEVICE void load_matrices(u32 (&to)[4], const void* row) { load_rows(to, row, false); }
DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) { load_rows(to, row, true); }

DEVICE float bf16_value(u16 bits) {
    const u32 wide = static_cast<u32>(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}
DEVICE u16 bf16_bits(float value) {
    u32 wide;
    memcpy(&wide, &value, 4);
    return std::isnan(value) ? 0x7fff : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}
DEVICE float f16_value(u16 bits) {
    _Float16 value;
    memcpy(&value, &bits, 2);
    return value;
}
DEVICE u16 f16_bits(float value) {
    const _Float16 half = value;
    u16 bits;
    memcpy(&bits, &half, 2);
    return bits;
}

// 9.7.15.5.8, mma.m16n8k16 with 16-bit elements: where elements are in the registers of which lane.
DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, float (*value)(u16)) {
    Shown<u32> left[4];
    for (u32 i = 0; i < 4; i++) {
        left[i] = show(a[i]);
    }
    const Shown<u32> right[2] = {show(b0), show(b1)};
    const auto half = [&](u32 pair, u32 which) { return value(pair >> (which * 16)); };
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        const u32 row = lane / 4 + i / 2 * 8;
        const u32 column = lane % 4 * 2 + i % 2;
        for (u32 k = 0; k < 16; k++) {
            const u32 of_a = row / 8 + k / 8 * 2;
            const float x = half(left[of_a].lane[row % 8 * 4 + k % 8 / 2], k % 2);
            const float y = half(right[k / 8].lane[column * 4 + k % 8 / 2], k % 2);
            c[i] += x * y;
        }
    }
}
DEVICE void multiply_add_f16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply(c, a, b0, b1, f16_value);
}
DEVICE void multiply_add_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply(c, a, b0, b1, bf16_value);
}

// OCP 8-bit floating point: 4 bits of exponent with a bias of 7, no infinities, NaN is all ones.
DEVICE float e4m3_value(u8 bits) {
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    const float size = (bits & 0x7f) == 0x7f ? NAN
                       : exponent == 0      ? std::ldexp(mantissa, -9)
                                            : std::ldexp(8 + mantissa, exponent - 10);
    return bits & 0x80 ? -size : size;
}
// 9.7.15.5.9, mma.m16n8k32 with 8-bit elements.
DEVICE void multiply_add_e4m3(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    Shown<u32> left[4];
    for (u32 i = 0; i < 4; i++) {
        left[i] = show(a[i]);
    }
    const Shown<u32> right[2] = {show(b0), show(b1)};
    const auto number = [](u32 four, u32 which) { return e4m3_value(four >> (which * 8) & 0xff); };
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        const u32 row = lane / 4 + i / 2 * 8;
        const u32 column = lane % 4 * 2 + i % 2;
        for (u32 k = 0; k < 32; k++) {
            const u32 four_of_a = left[row / 8 + k / 16 * 2].lane[row % 8 * 4 + k % 16 / 4];
            const u32 four_of_b = right[k / 16].lane[column * 4 + k % 16 / 4];
            c[i] += number(four_of_a, k % 4) * number(four_of_b, k % 4);
        }
    }
}

// 9.7.15.4, wmma. Its fragments have no documented layout: here, each lane has half a row.
const u32 kWmma = 16;
template <bool kRowMajor> DEVICE void wmma_load(u32 (&to)[8], const u16* from, u32 pitch) {
    REQUIRE(is_aligned(from, 16) && pitch % 8 == 0);
    // Copies of sm_70 pass through registers: they are there when this thread goes on.
    const u32 row = lane_id() / 2;
    for (u32 i = 0; i < 8; i++) {
        const u32 column = lane_id() % 2 * 8 + i;
        const u16* at = from + (kRowMajor ? row * pitch + column : column * pitch + row);
        REQUIRE(is_shared(at, 2));
        to[i] = *at;
    }
}
template <bool kRowMajor> DEVICE void wmma_load_left(u32 (&to)[8], const u16* from, u32 pitch) {
    wmma_load<kRowMajor>(to, from, pitch);
}
template <bool kRowMajor> DEVICE void wmma_load_right(u32 (&to)[8], const u16* from, u32 pitch) {
    wmma_load<kRowMajor>(to, from, pitch);
}
template <bool, bool>
DEVICE void wmma_multiply_add(float (&c)[8], const u32 (&a)[8], const u32 (&b)[8]) {
    Shown<u32> left[8], right[8];
    for (u32 i = 0; i < 8; i++) {
        left[i] = show(a[i]);
        right[i] = show(b[i]);
    }
    const u32 row = lane_id() / 2;
    for (u32 i = 0; i < 8; i++) {
        const u32 column = lane_id() % 2 * 8 + i;
        for (u32 k = 0; k < kWmma; k++) {
            c[i] += f16_value(left[k % 8].lane[row * 2 + k / 8]) *
                    f16_value(right[column % 8].lane[k * 2 + column / 8]);
        }
    }
}
DEVICE void wmma_store(float* to, const float (&c)[8], u32 pitch) {
    REQUIRE(is_aligned(to, 16) && pitch % 4 == 0);
    float* at = to + lane_id() / 2 * pitch + lane_id() % 2 * 8;
    REQUIRE(is_shared(at, 32));
    memcpy(at, c, 32);
}

DEVICE float __shfl_xor_sync(u32, float value, u32 distance) {
    return show(value).lane[lane_id() ^ distance];
}
DEVICE u64 atomicAdd(u64* to, u64 value) {
    const u64 before = *to;
    *to += value;
    return before;
}
DEVICE float atomicAdd(float* to, float value) {
    const float before = *to;
    *to += value;
    return before;
}
DEVICE u64 atomicMin(u64* to, u64 value) {
    const u64 before = *to;
    *to = value < before ? value : before;
    return before;
}
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u64 cycles() { return machine.ticks += 7; }
DEVICE u64 global_timer_ns() { return machine.ticks += 32; }
