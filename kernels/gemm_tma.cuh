// What the matrix products whose operands are copied by the copy engine have in common.
#pragma once
#include "gemm.cuh"
#include "ptx_async.cuh"

#ifndef STAGES
#error "no number of stages: define STAGES"
#endif

// The Rust side has the same struct. `product` serves for sizes, and for the result where it is
// added to.
struct TmaProduct {
    TensorMap a;
    TensorMap b;
    TensorMap c;
    GemmArguments product;
};

// Rows of a box in shared memory are as long as the widest swizzle.
const u32 kBoxBytes = 128;

// A block computes tiles of so many rows and columns.
const u32 kTileRows = 128;
const u32 kTileColumns = 256;

// sm_100 and later tell their descriptions of operands from those of sm_90 by a number.
#ifdef TENSOR_MEMORY
const u64 kOperandVersion = 1ull << 46;
#else
const u64 kOperandVersion = 0;
#endif

// 8-bit operands have half results.
#ifdef OPERANDS_E4M3
const u32 kOperandBytes = 1;
#else
const u32 kOperandBytes = 2;
#endif
const u32 kTileDepth = kBoxBytes / kOperandBytes;

// Describes an operand in shared memory to the tensor cores: rows of 128 bytes in groups of eight,
// swizzled as the copy engine does it. Groups are `group_bytes` apart. Where rows are not along the
// depth, further columns of 128 bytes are `column_bytes` apart. PTX ISA, 9.7.15.5.1.2.2, "Matrix
// Descriptor Format", and 9.7.16.4.1, "Shared memory descriptor".
DEVICE u64 operand(const void* at, u32 column_bytes, u32 group_bytes) {
    const u64 kSwizzle128 = 1ull << 62;
    return (shared_address(at) & 0x3ffff) >> 4 | static_cast<u64>(column_bytes >> 4) << 16 |
           static_cast<u64>(group_bytes >> 4) << 32 | kOperandVersion | kSwizzle128;
}

// A slice of one operand in shared memory: kOuter rows or columns of the result, kTileDepth deep,
// in boxes as they are copied. The boxes' rows are along the depth if that is contiguous in memory;
// else they are along kOuter, and boxes of kTileDepth rows lie one after the other.
template <u32 kOuter, bool kDepthIsContiguous> struct Slice {
    static const u32 kBytes = kOuter * kBoxBytes;
    static const u32 kAcross = kBoxBytes / kOperandBytes; // elements of a row of a box
    static const u32 kSquareBytes = kTileDepth * kBoxBytes;
    static const u32 kGroupBytes = 8 * kBoxBytes;

    // Begins to copy a slice.
    static DEVICE void copy(u8* to, const TensorMap* map, Barrier* barrier, u32 outer, u32 depth) {
        if constexpr (kDepthIsContiguous) {
            copy_box(to, map, barrier, depth, outer);
        } else {
#pragma unroll
            for (u32 i = 0; i < kOuter / kAcross; i++) {
                copy_box(to + i * kSquareBytes, map, barrier, outer + i * kAcross, depth);
            }
        }
    }

    // The part of a slice from `outer`, a multiple of 64, that the step-th product is made of: each
    // is 32 bytes of operands deep. Addresses are the lowest bits of a description, in 16 bytes.
    static DEVICE u64 part(const u8* slice, u32 outer, u32 step) {
        if constexpr (kDepthIsContiguous) {
            const u32 at = outer * kBoxBytes + step * 32;
            return operand(slice, 16, kGroupBytes) + at / 16;
        } else {
            const u32 at = outer / kAcross * kSquareBytes + step * (32 / kOperandBytes) * kBoxBytes;
            return operand(slice, kSquareBytes, kGroupBytes) + at / 16;
        }
    }
};

DEVICE u32 slice_count(const GemmArguments& g) { return (g.depth + kTileDepth - 1) / kTileDepth; }

// Which stage of the ring of slices is next, and the parity of its turn.
template <u32 kStages> struct Turn {
    u32 stage = 0;
    u32 parity = 0;

    DEVICE void advance() {
        stage++;
        if (stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// A ring of stages in shared memory, each a slice of both operands.
template <bool kTransposeA, bool kTransposeB> struct Ring {
    using A = Slice<kTileRows, !kTransposeA>;
    using B = Slice<kTileColumns, kTransposeB>;
    static const u32 kStageBytes = A::kBytes + B::kBytes;
    static const u32 kBytes = STAGES * kStageBytes;

    u8* stages;
    Barrier* full;  // of each stage: its slices have come
    Barrier* empty; // of each stage: nobody needs what is in it

    DEVICE u8* stage(const Turn<STAGES>& turn) const { return stages + turn.stage * kStageBytes; }

    // By one thread: a stage is empty when so many have said so.
    DEVICE void prepare(u32 readers) const {
        for (u32 stage = 0; stage < STAGES; stage++) {
            barrier_init(&full[stage], 1);
            barrier_init(&empty[stage], readers);
        }
    }

    // By one thread: lets the copy engine bring all slices of all tiles of this block.
    DEVICE void fill(const TmaProduct& t) const {
        Turn<STAGES> turn;
        const u32 tiles = tile_count<kTileRows, kTileColumns>(t.product);
        for (u32 number = blockIdx.x; number < tiles; number += gridDim.x) {
            const BlockTile tile = numbered_tile<kTileRows, kTileColumns>(t.product, number);
            for (u32 slice = 0; slice < slice_count(t.product); slice++) {
                Barrier* filled = &full[turn.stage];
                barrier_wait(&empty[turn.stage], turn.parity ^ 1);
                barrier_arrive_expecting(filled, kStageBytes);
                A::copy(stage(turn), &t.a, filled, tile.row, slice * kTileDepth);
                B::copy(stage(turn) + A::kBytes, &t.b, filled, tile.column, slice * kTileDepth);
                turn.advance();
            }
        }
    }
};

// Two neighbouring results, with what is there already if they are added to it.
template <typename T, bool kAdds>
DEVICE Pair<T> finished(const GemmArguments& g, u32 row, u32 column, float first, float second) {
    first *= g.scale;
    second *= g.scale;
    if (kAdds && row < g.rows && column < g.columns) {
        const T* at = static_cast<const T*>(g.c) + static_cast<u64>(row) * g.stride_c + column;
        first += widened(at[0]);
        second += column + 1 < g.columns ? widened(at[1]) : 0.0f;
    }
    return {rounded<T>(first), rounded<T>(second)};
}

// Where the copy engine wants a byte of a box of results: chunks of 16 bytes of a row change places
// by its number.
DEVICE u32 swizzled(u32 row, u32 byte) {
    return row * kBoxBytes + (byte ^ row % 8 * 16);
}

#define TMA_ENTRY(name, transpose_a, transpose_b)                                                  \
    extern "C" __global__ void __launch_bounds__(kTmaThreads, 1)                                   \
        name(const __grid_constant__ TmaProduct t) {                                               \
        gemm<transpose_a, transpose_b>(t);                                                         \
    }

// Which entries there are. 8-bit operands have to lie along the depth.
#ifdef OPERANDS_E4M3
#define TMA_ENTRIES TMA_ENTRY(gemm_nt, false, true)
#else
#define TMA_ENTRIES                                                                                \
    TMA_ENTRY(gemm_nn, false, false)                                                               \
    TMA_ENTRY(gemm_nt, false, true)                                                                \
    TMA_ENTRY(gemm_tn, true, false)                                                                \
    TMA_ENTRY(gemm_tt, true, true)
#endif
