// The sum of squares, in the order of crates/laggard-backend/src/squares.rs, which no number of
// blocks changes: one after the other within a chunk, in f32; by lanes, which are the threads of a
// block, and by segments in f64.
#include "block_sum.cuh"
#include "lot.cuh"

const u32 kTurns = 16;
const u32 kSegment = kThreads * kTurns * kPerChunk;

// The squares of so many of the elements, one after the other.
DEVICE float squares_of(const Element* element, u32 count) {
    float sum = 0;
#pragma unroll
    for (u32 i = 0; i < kPerChunk; i++) {
        if (i < count) {
            const float number = number_of(element[i]);
            sum += number * number;
        }
    }
    return sum;
}

// The sum of each segment of `count` elements, the first of which is `skip` after a multiple of 16
// bytes.
extern "C" __global__ void __launch_bounds__(kThreads)
    square_sums(double* sums, const Element* from, u32 skip, u64 count) {
    __shared__ double parts[kThreads / 32];
    const u64 segments = (count + kSegment - 1) / kSegment;
    for (u64 segment = blockIdx.x; segment < segments; segment += gridDim.x) {
        const u64 begin = segment * kSegment;
        const Element* first = from + skip + begin;
        double sum = 0;
        if (skip == 0 && begin + kSegment <= count) {
            const Chunk* chunks = reinterpret_cast<const Chunk*>(first);
#pragma unroll 4
            for (u32 turn = 0; turn < kTurns; turn++) {
                Lot lot;
                lot.chunk = chunks[turn * kThreads + threadIdx.x];
                sum += static_cast<double>(squares_of(lot.element, kPerChunk));
            }
        } else {
            const u64 left = count - begin;
            for (u32 turn = 0; turn < kTurns; turn++) {
                const u32 at = (turn * kThreads + threadIdx.x) * kPerChunk;
                if (at < left) {
                    const u32 there = left - at < kPerChunk ? left - at : kPerChunk;
                    sum += static_cast<double>(squares_of(first + at, there));
                }
            }
        }
        sum = sum_of_block(sum, parts);
        if (threadIdx.x == 0) {
            sums[segment] = sum;
        }
    }
}

// The sum of all segments, rounded once: to = ..., or to += ... One block.
extern "C" __global__ void __launch_bounds__(kThreads)
    sum_squares(float* to, const double* sums, u64 count, u32 accumulate) {
    __shared__ double parts[kThreads / 32];
    double sum = 0;
    for (u64 i = threadIdx.x; i < count; i += kThreads) {
        sum += sums[i];
    }
    sum = sum_of_block(sum, parts);
    if (threadIdx.x == 0) {
        const double before = accumulate ? static_cast<double>(*to) : 0.0;
        *to = static_cast<float>(before + sum);
    }
}
