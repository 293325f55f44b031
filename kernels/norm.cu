// Layer normalisation (Ba, Kiros and Hinton 2016): each row becomes
// (x - mean) / sqrt(variance + epsilon) * gain + bias. One block per row.
#include "block_sum.cuh"
#include "lot.cuh"

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
