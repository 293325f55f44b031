// Time on the device: what a stream is at, and work of a given length.
#include "ptx.cuh"

// Launched as one thread: when the stream came here.
extern "C" __global__ void stamp(u64* at_ns) { *at_ns = global_timer_ns(); }

// Keeps a multiprocessor per block busy for `wanted` cycles of its clock, and says in `spent` how
// many it were in the first block. Cycles are those of the actual clock rate, so that a throttled
// device takes longer, as with any work.
extern "C" __global__ void spin(u64 wanted, u64* spent) {
    const u64 begin = cycles();
    u64 passed = 0;
    while (passed < wanted) {
        passed = cycles() - begin;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *spent = passed;
    }
}

// Meets kernels of this name on other streams, to show that all of them run at the same time. Each
// of the `members` has four words at `words`: the round that it is in, begin, end and the rounds
// that it has completed, all 0 at first. A round is complete when every member is in it, so that
// rounds take turns that kernels cannot take one after the other. None takes longer than `limit`
// cycles. The first block takes part; the others stay as long, so that the launch occupies whatever
// its blocks take up, and look but now and then, as the words are in the host's memory.
extern "C" __global__ void meet_others(u64* words, u32 own, u32 members, u32 rounds, u64 limit) {
    if (threadIdx.x != 0) {
        return;
    }
    volatile u64* const mine = words + 4 * own;
    const u64 begin = cycles();
    if (blockIdx.x != 0) {
        while (mine[2] == 0 && cycles() - begin < limit) {
            pause_ns(2000);
        }
        return;
    }
    mine[1] = global_timer_ns();
    u64 round = 0;
    bool is_in_time = true;
    while (is_in_time && round < rounds) {
        mine[0] = round + 1;
        for (u32 other = 0; other < members; other++) {
            const volatile u64* const its = words + 4 * other;
            while (is_in_time && its[0] <= round) {
                is_in_time = cycles() - begin < limit;
            }
        }
        round += is_in_time ? 1 : 0;
    }
    mine[3] = round;
    mine[2] = global_timer_ns();
}
