// Matrix products of fp16 on the tensor cores of sm_70, which has neither mma.sync of useful shapes
// nor copies past registers. A block of 8 warps computes a tile of 128 x 128, each warp 64 x 32 of
// it.
#include "gemm.cuh"

const u32 kTile = 128;
const u32 kTileDepth = 32;
const u32 kWarpRows = 64;
const u32 kWarpColumns = 32;

// A slice of one operand in shared memory, as it is stored; 16 bytes between rows spread them over
// banks.
template <bool kDepthIsContiguous> struct Slice {
    static const u32 kRows = kDepthIsContiguous ? kTile : kTileDepth;
    static const u32 kColumns = kDepthIsContiguous ? kTileDepth : kTile;
    static const u32 kPitch = kColumns + 8;
    // That of the larger layout, so that all four products take the same.
    static const u32 kElements = kTile * (kTileDepth + 8);

    static DEVICE const u16* at(const u16* shared, u32 outer, u32 depth) {
        return shared + (kDepthIsContiguous ? outer * kPitch + depth : depth * kPitch + outer);
    }

    static DEVICE void copy(u16* shared, const u16* matrix, u32 stride, u32 outer_count, u32 depth,
                            u32 outer, u32 from_depth) {
        const u32 rows = kDepthIsContiguous ? outer_count : depth;
        const u32 columns = kDepthIsContiguous ? depth : outer_count;
        for (u32 i = threadIdx.x; i < kRows * kColumns / 8; i += kThreads) {
            const u32 within_row = i / (kColumns / 8);
            const u32 within_column = i % (kColumns / 8) * 8;
            const u32 row = within_row + (kDepthIsContiguous ? outer : from_depth);
            const u32 column = within_column + (kDepthIsContiguous ? from_depth : outer);
            const bool inside = row < rows && column < columns;
            const u32 bytes = inside ? min(columns - column, 8u) * 2 : 0;
            const u16* from = matrix + static_cast<u64>(row) * stride + column;
            copy_chunk(shared + within_row * kPitch + within_column, from, bytes);
        }
    }
};

template <bool kTransposeA, bool kTransposeB> DEVICE void gemm(const GemmArguments& g) {
    using A = Slice<!kTransposeA>;
    using B = Slice<kTransposeB>;
    const u32 kStageElements = A::kElements + B::kElements;
    alignas(128) extern __shared__ u8 shared[];
    u16* stages = reinterpret_cast<u16*>(shared);

    const BlockTile tile = numbered_tile<kTile, kTile>(g, blockIdx.x);
    const u32 warp = threadIdx.x / 32;
    const u32 warp_row = warp / (kTile / kWarpColumns) * kWarpRows;
    const u32 warp_column = warp % (kTile / kWarpColumns) * kWarpColumns;
    float sums[kWarpRows / 16][kWarpColumns / 16][8] = {};
    const u32 slices = (g.depth + kTileDepth - 1) / kTileDepth;
    for (u32 slice = 0; slice < slices; slice++) {
        // Two stages: whoever is a barrier ahead writes the one that nobody reads any more.
        u16* a_stage = stages + slice % 2 * kStageElements;
        u16* b_stage = a_stage + A::kElements;
        const u32 begin = slice * kTileDepth;
        A::copy(a_stage, g.a, g.stride_a, g.rows, g.depth, tile.row, begin);
        B::copy(b_stage, g.b, g.stride_b, g.columns, g.depth, tile.column, begin);
        __syncthreads();
#pragma unroll
        for (u32 depth = 0; depth < kTileDepth; depth += 16) {
            u32 b[kWarpColumns / 16][8];
#pragma unroll
            for (u32 j = 0; j < kWarpColumns / 16; j++) {
                wmma_load_right<!kTransposeB>(b[j], B::at(b_stage, warp_column + j * 16, depth),
                                              B::kPitch);
            }
#pragma unroll
            for (u32 i = 0; i < kWarpRows / 16; i++) {
                u32 a[8];
                const u16* from = A::at(a_stage, warp_row + i * 16, depth);
                wmma_load_left<!kTransposeA>(a, from, A::kPitch);
#pragma unroll
                for (u32 j = 0; j < kWarpColumns / 16; j++) {
                    wmma_multiply_add<!kTransposeA, !kTransposeB>(sums[i][j], a, b[j]);
                }
            }
        }
    }

    // Which lane holds which result is not documented: they pass through shared memory, each warp's
    // through its own part of it.
    __syncthreads();
    float* results = reinterpret_cast<float*>(shared) + warp * 16 * kWarpColumns;
#pragma unroll
    for (u32 i = 0; i < kWarpRows / 16; i++) {
#pragma unroll
        for (u32 j = 0; j < kWarpColumns / 16; j++) {
            wmma_store(results + j * 16, sums[i][j], kWarpColumns);
        }
        __syncwarp();
        write_rows<kWarpColumns>(g, results, kWarpColumns, tile.row + warp_row + i * 16,
                                 tile.column + warp_column);
        __syncwarp();
    }
}

ENTRY(gemm_nn, false, false)
ENTRY(gemm_nt, false, true)
ENTRY(gemm_tn, true, false)
ENTRY(gemm_tt, true, true)
