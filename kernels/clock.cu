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
