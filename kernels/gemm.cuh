// What all matrix products have in common: their arguments, which block computes what, and how
// results are written.
#pragma once
#include "element.cuh"

// c = scale * op(a) * op(b), or c += ... . Matrices are row-major; strides are elements from one
// stored row to the next. Rows begin at multiples of 16 bytes. The Rust side has the same struct.
struct GemmArguments {
    const u16* a;
    const u16* b;
    void* c;
    u32 rows;    // of op(a) and c
    u32 columns; // of op(b) and c
    u32 depth;   // columns of op(a), rows of op(b)
    u32 stride_a;
    u32 stride_b;
    u32 stride_c;
    float scale;
    u32 flags;
};

const u32 kAccumulate = 1;    // adds to c instead of replacing it
const u32 kResultIsF32 = 2;   // c holds f32, not elements

struct BlockTile {
    u32 row;
    u32 column;
};

template <u32 kRows, u32 kColumns> DEVICE u32 tile_count(const GemmArguments& g) {
    return (g.rows + kRows - 1) / kRows * ((g.columns + kColumns - 1) / kColumns);
}

// Where a tile begins. Neighbouring numbers, which are computed at the same time, are of eight rows
// of tiles, column by column, so that they find each other's operands in L2.
template <u32 kRows, u32 kColumns>
DEVICE BlockTile numbered_tile(const GemmArguments& g, u32 number) {
    const u32 down = (g.rows + kRows - 1) / kRows;
    const u32 across = (g.columns + kColumns - 1) / kColumns;
    const u32 band = number / (8 * across);
    const u32 height = min(8u, down - band * 8);
    const u32 within = number % (8 * across);
    return {(band * 8 + within % height) * kRows, within / height * kColumns};
}

template <typename T> DEVICE T rounded(float value);
template <> DEVICE float rounded<float>(float value) { return value; }
template <> DEVICE u16 rounded<u16>(float value) { return element_of(value); }
DEVICE float widened(float value) { return value; }
DEVICE float widened(u16 bits) { return number_of(bits); }

template <typename T> struct alignas(2 * sizeof(T)) Pair {
    T first;
    T second;
};

// Two neighbouring results, the first in an even column.
template <typename T>
DEVICE void write_pair(const GemmArguments& g, u32 row, u32 column, float first, float second) {
    if (row >= g.rows || column >= g.columns) {
        return;
    }
    T* at = static_cast<T*>(g.c) + static_cast<u64>(row) * g.stride_c + column;
    const bool both = column + 1 < g.columns;
    first *= g.scale;
    second *= g.scale;
    if (g.flags & kAccumulate) {
        first += widened(at[0]);
        second += both ? widened(at[1]) : 0.0f;
    }
    if (both) {
        *reinterpret_cast<Pair<T>*>(at) = {rounded<T>(first), rounded<T>(second)};
    } else {
        *at = rounded<T>(first);
    }
}

// Writes 16 rows of one warp's results, which begin at `row`, `column`, from shared memory:
// kColumns each, `pitch` apart. Neighbouring lanes write neighbouring columns.
template <u32 kColumns>
DEVICE void write_rows(const GemmArguments& g, const float* results, u32 pitch, u32 row,
                       u32 column) {
    const u32 pairs = kColumns / 2;
#pragma unroll 2
    for (u32 i = threadIdx.x % 32; i < 16 * pairs; i += 32) {
        const u32 down = i / pairs;
        const u32 across = i % pairs * 2;
        const float* pair = results + down * pitch + across;
        if (g.flags & kResultIsF32) {
            write_pair<float>(g, row + down, column + across, pair[0], pair[1]);
        } else {
            write_pair<u16>(g, row + down, column + across, pair[0], pair[1]);
        }
    }
}

// A block of every kernel is 8 warps.
const u32 kThreads = 256;

// An entry point of the template `gemm`, which each kernel has its own of.
#define ENTRY(name, transpose_a, transpose_b)                                                      \
    extern "C" __global__ void __launch_bounds__(kThreads, 1) name(const GemmArguments g) {        \
        gemm<transpose_a, transpose_b>(g);                                                         \
    }
