// Layer normalisation (Ba, Kiros and Hinton 2016): each row becomes
// (x - mean) / sqrt(variance + epsilon) * gain + bias. One block per row.
#include "element.cuh"

const u32 kThreads = 256;
const u32 kPerChunk = 16 / sizeof(Element);

union Lot {
    Chunk chunk;
    Element element[kPerChunk];
};

DEVICE float sum_of_warp(float value) {
#pragma unroll
    for (u32 distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, distance);
    }
    return value;
}

// The sum over the block, for each thread. Has a barrier before it uses `parts` and one after it
// wrote them.
DEVICE float sum_of_block(float value, float* parts) {
    value = sum_of_warp(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = value;
    }
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (u32 i = 0; i < kThreads / 32; i++) {
        sum += parts[i];
    }
    return sum;
}

// Rows lie one after the other; their length is a multiple of 16 bytes.
extern "C" __global__ void __launch_bounds__(kThreads)
    layer_norm(Element* to, const Element* from, const Element* gain, const Element* bias,
               u32 columns, float epsilon) {
    __shared__ float parts[kThreads / 32];
    const u64 begin = static_cast<u64>(blockIdx.x) * columns;
    const Chunk* row = reinterpret_cast<const Chunk*>(from + begin);
    const u32 chunks = columns / kPerChunk;

    // Relative to the row's first element, so that a large mean costs no digits of the variance.
    const float origin = number_of(from[begin]);
    float sum = 0;
    float squares = 0;
    for (u32 i = threadIdx.x; i < chunks; i += kThreads) {
        Lot lot;
        lot.chunk = row[i];
#pragma unroll
        for (u32 j = 0; j < kPerChunk; j++) {
            const float x = number_of(lot.element[j]) - origin;
            sum += x;
            squares += x * x;
        }
    }
    const float shift = sum_of_block(sum, parts) / static_cast<float>(columns);
    const float square = sum_of_block(squares, parts) / static_cast<float>(columns);
    const float mean = origin + shift;
    // Rounding can take the difference below zero where all elements are equal.
    const float variance = fmaxf(square - shift * shift, 0.0f);
    const float factor = 1.0f / sqrtf(variance + epsilon);

    for (u32 i = threadIdx.x; i < chunks; i += kThreads) {
        Lot lot, gains, biases;
        lot.chunk = row[i];
        gains.chunk = reinterpret_cast<const Chunk*>(gain)[i];
        biases.chunk = reinterpret_cast<const Chunk*>(bias)[i];
#pragma unroll
        for (u32 j = 0; j < kPerChunk; j++) {
            const float x = (number_of(lot.element[j]) - mean) * factor;
            lot.element[j] =
                element_of(x * number_of(gains.element[j]) + number_of(biases.element[j]));
        }
        reinterpret_cast<Chunk*>(to + begin)[i] = lot.chunk;
    }
}
