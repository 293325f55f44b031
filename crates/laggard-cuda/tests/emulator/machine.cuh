// A multiprocessor that executes one block after the other: each thread on a stack of its own,
// until it waits for others, and what the hardware does beside the threads as errands.
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
    std::vector<std::function<void()>> reads; // of tensor memory, on their way
    bool is_told;     // of what other threads waited for, as far as tensor cores go
    bool has_to_tell; // others, before it arrives anywhere
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
    std::vector<std::function<void()>> at_end;  // what has to hold when the block has ended
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

inline void __syncthreads() {
    Asynchronous& mine = machine.threads[machine.self]->asynchronous;
    REQUIRE(!mine.has_to_tell);
    mine.is_told = false;
    meet(machine.all, machine.threads.size());
}
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
    machine.at_end.clear();
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
    for (const auto& holds : machine.at_end) {
        holds();
    }
}
