// Sums over the threads of a block, in an order that does not change.
#pragma once
#include "ptx.cuh"

const u32 kThreads = 256;

// The sum over the block, for each thread; `parts` is shared and has room for one of each warp.
template <typename T> DEVICE T sum_of_block(T value, T* parts) {
#pragma unroll
    for (u32 distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, distance);
    }
    // The last sum may still be read.
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = value;
    }
    // All parts are there.
    __syncthreads();
    T sum = 0;
#pragma unroll
    for (u32 i = 0; i < kThreads / 32; i++) {
        sum += parts[i];
    }
    return sum;
}
