// What is bound by memory alone: copies, the triad, sums and fills. All addresses are multiples of
// 16; what does not fill the last 16 bytes is done by the first threads one by one.
#include "lot.cuh"

// Every thread's first chunk and how far it is to its next one.
DEVICE u64 first() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 step() { return static_cast<u64>(gridDim.x) * blockDim.x; }

// to = from
extern "C" __global__ void copy(Element* to, const Element* from, u64 count) {
    const u64 chunks = count / kPerChunk;
#pragma unroll 4
    for (u64 i = first(); i < chunks; i += step()) {
        reinterpret_cast<Chunk*>(to)[i] = reinterpret_cast<const Chunk*>(from)[i];
    }
    if (const u64 i = chunks * kPerChunk + first(); i < count) {
        to[i] = from[i];
    }
}

// to = a + scale * b, as in the STREAM benchmark (McCalpin 1995), each product rounded.
extern "C" __global__ void triad(Element* to, const Element* a, const Element* b, float scale,
                                 u64 count) {
    const u64 chunks = count / kPerChunk;
    for (u64 i = first(); i < chunks; i += step()) {
        Lot left, right, sum;
        left.chunk = reinterpret_cast<const Chunk*>(a)[i];
        right.chunk = reinterpret_cast<const Chunk*>(b)[i];
#pragma unroll
        for (u32 j = 0; j < kPerChunk; j++) {
            sum.element[j] =
                element_of(number_of(left.element[j]) + scale * number_of(right.element[j]));
        }
        reinterpret_cast<Chunk*>(to)[i] = sum.chunk;
    }
    if (const u64 i = chunks * kPerChunk + first(); i < count) {
        to[i] = element_of(number_of(a[i]) + scale * number_of(b[i]));
    }
}

// to += from
extern "C" __global__ void add(Element* to, const Element* from, u64 count) {
    const u64 chunks = count / kPerChunk;
    for (u64 i = first(); i < chunks; i += step()) {
        Lot sum, addend;
        sum.chunk = reinterpret_cast<const Chunk*>(to)[i];
        addend.chunk = reinterpret_cast<const Chunk*>(from)[i];
#pragma unroll
        for (u32 j = 0; j < kPerChunk; j++) {
            sum.element[j] =
                element_of(number_of(sum.element[j]) + number_of(addend.element[j]));
        }
        reinterpret_cast<Chunk*>(to)[i] = sum.chunk;
    }
    if (const u64 i = chunks * kPerChunk + first(); i < count) {
        to[i] = element_of(number_of(to[i]) + number_of(from[i]));
    }
}

// Every element becomes `value`.
extern "C" __global__ void fill(Element* to, float value, u64 count) {
    Lot lot;
#pragma unroll
    for (u32 j = 0; j < kPerChunk; j++) {
        lot.element[j] = element_of(value);
    }
    const u64 chunks = count / kPerChunk;
    for (u64 i = first(); i < chunks; i += step()) {
        reinterpret_cast<Chunk*>(to)[i] = lot.chunk;
    }
    if (const u64 i = chunks * kPerChunk + first(); i < count) {
        to[i] = element_of(value);
    }
}
