// Matrix products on tensor cores by mma.sync: the one that serves every generation from sm_75.
//
// A block of 8 warps computes a tile of 128 x 256, each warp 64 x 64 of it. Slices of the operands,
// 32 deep, wait in shared memory: STAGES of them, all but one on their way while one is multiplied.
#include "gemm.cuh"

#ifndef STAGES
#error "no number of stages: define STAGES"
#endif

const u32 kTileRows = 128;
const u32 kTileColumns = 256;
const u32 kTileDepth = 32;
const u32 kWarpRows = 64;
const u32 kWarpColumns = 64;

// A slice of one operand in shared memory: kOuter rows or columns of the result, kTileDepth deep,
// as it is stored, in chunks of 8 elements. Chunks of a row change places by its number, so that
// the 8 rows of a small matrix lie in different banks.
template <u32 kOuter, bool kDepthIsContiguous> struct Slice {
    static const u32 kRows = kDepthIsContiguous ? kOuter : kTileDepth;
    static const u32 kChunks = (kDepthIsContiguous ? kTileDepth : kOuter) / 8;
    static const u32 kBytes = kOuter * kTileDepth * 2;

    static DEVICE u32 offset(u32 row, u32 chunk) {
        const u32 swap = kChunks >= 8 ? row % 8 : row / 2 % 4;
        return (row * kChunks + (chunk ^ swap)) * 16;
    }

    // Four small matrices as mma takes them, from `outer` and `depth`: 16 places each way. Those of
    // the left operand are numbered outer places first; those of the right operand depth first, so
    // that what one mma takes is in neighbouring registers.
    template <bool kIsRight>
    static DEVICE void load(u32 (&to)[4], const u8* shared, u32 outer, u32 depth, u32 lane) {
        const u32 far_outer = kIsRight ? lane / 16 : lane / 8 % 2;
        const u32 far_depth = kIsRight ? lane / 8 % 2 : lane / 16;
        if constexpr (kDepthIsContiguous) {
            const u32 row = outer + far_outer * 8 + lane % 8;
            load_matrices(to, shared + offset(row, depth / 8 + far_depth));
        } else {
            const u32 row = depth + far_depth * 8 + lane % 8;
            load_matrices_transposed(to, shared + offset(row, outer / 8 + far_outer));
        }
    }
};

// What one thread copies of an operand: a chunk of every kStep-th row of each slice.
template <u32 kOuter, bool kDepthIsContiguous> struct Reader {
    using Tile = Slice<kOuter, kDepthIsContiguous>;
    static const u32 kStep = kThreads / Tile::kChunks;

    const u16* from; // the first chunk of the next slice
    u64 step;        // elements from one of its chunks to the next
    u64 advance;     // elements from one slice to the next
    u32 rows_left;   // as stored, from the first chunk on
    u32 columns_left;

    DEVICE Reader(const u16* matrix, u32 stride, u32 outer_count, u32 depth, u32 outer)
        : step(static_cast<u64>(kStep) * stride),
          advance(kDepthIsContiguous ? kTileDepth : static_cast<u64>(kTileDepth) * stride) {
        const u32 rows = kDepthIsContiguous ? outer_count : depth;
        const u32 columns = kDepthIsContiguous ? depth : outer_count;
        const u32 row = threadIdx.x / Tile::kChunks + (kDepthIsContiguous ? outer : 0);
        const u32 column = threadIdx.x % Tile::kChunks * 8 + (kDepthIsContiguous ? 0 : outer);
        from = matrix + static_cast<u64>(row) * stride + column;
        rows_left = row < rows ? rows - row : 0;
        columns_left = column < columns ? columns - column : 0;
    }

    // Begins to copy the next slice. What is outside of the matrix becomes zero.
    DEVICE void copy(u8* shared) {
        const u32 bytes_of_row = min(columns_left, 8u) * 2;
        const u16* chunk = from;
#pragma unroll
        for (u32 i = 0; i < Tile::kRows / kStep; i++) {
            const u32 bytes = i * kStep < rows_left ? bytes_of_row : 0;
            const u32 to = Tile::offset(threadIdx.x / Tile::kChunks + i * kStep,
                                        threadIdx.x % Tile::kChunks);
            copy_chunk(shared + to, chunk, bytes);
            chunk += step;
        }
        from += advance;
        u32& left = kDepthIsContiguous ? columns_left : rows_left;
        left = left > kTileDepth ? left - kTileDepth : 0;
    }
};

template <bool kTransposeA, bool kTransposeB> DEVICE void gemm(const GemmArguments& g) {
    using A = Slice<kTileRows, !kTransposeA>;
    using B = Slice<kTileColumns, kTransposeB>;
    const u32 kStageBytes = A::kBytes + B::kBytes;
    alignas(128) extern __shared__ u8 shared[];

    const BlockTile tile = numbered_tile<kTileRows, kTileColumns>(g, blockIdx.x);
    Reader<kTileRows, !kTransposeA> reader_a(g.a, g.stride_a, g.rows, g.depth, tile.row);
    Reader<kTileColumns, kTransposeB> reader_b(g.b, g.stride_b, g.columns, g.depth, tile.column);
    const u32 slices = (g.depth + kTileDepth - 1) / kTileDepth;
    // A group is committed for every slice, also past the last, so that counts stay right.
    for (u32 stage = 0; stage < STAGES - 1; stage++) {
        if (stage < slices) {
            reader_a.copy(shared + stage * kStageBytes);
            reader_b.copy(shared + stage * kStageBytes + A::kBytes);
        }
        copies_commit();
    }

    const u32 lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32;
    const u32 warp_row = warp / (kTileColumns / kWarpColumns) * kWarpRows;
    const u32 warp_column = warp % (kTileColumns / kWarpColumns) * kWarpColumns;
    float sums[kWarpRows / 16][kWarpColumns / 8][4] = {};
    u32 stage = 0;
    for (u32 slice = 0; slice < slices; slice++) {
        copies_wait<STAGES - 2>();
        // All have what they copied, and nobody reads the stage that is written next.
        __syncthreads();
        if (slice + STAGES - 1 < slices) {
            u8* free_stage = shared + (stage == 0 ? STAGES - 1 : stage - 1) * kStageBytes;
            reader_a.copy(free_stage);
            reader_b.copy(free_stage + A::kBytes);
        }
        copies_commit();
        const u8* at = shared + stage * kStageBytes;
#pragma unroll
        for (u32 depth = 0; depth < kTileDepth; depth += 16) {
            u32 a[kWarpRows / 16][4];
            u32 b[kWarpColumns / 16][4];
#pragma unroll
            for (u32 i = 0; i < kWarpRows / 16; i++) {
                A::template load<false>(a[i], at, warp_row + i * 16, depth, lane);
            }
#pragma unroll
            for (u32 j = 0; j < kWarpColumns / 16; j++) {
                B::template load<true>(b[j], at + A::kBytes, warp_column + j * 16, depth, lane);
            }
#pragma unroll
            for (u32 i = 0; i < kWarpRows / 16; i++) {
#pragma unroll
                for (u32 j = 0; j < kWarpColumns / 8; j++) {
                    const u32* pair = b[j / 2] + j % 2 * 2;
                    multiply_add(sums[i][j], a[i], pair[0], pair[1]);
                }
            }
        }
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }

    // Results pass through shared memory, each warp's through its own part of it, so that whole
    // rows are written at once. Rows lie 8 floats over a multiple of all banks apart.
    __syncthreads();
    const u32 pitch = kWarpColumns + 8;
    float* results = reinterpret_cast<float*>(shared) + warp * 16 * pitch;
#pragma unroll
    for (u32 i = 0; i < kWarpRows / 16; i++) {
#pragma unroll
        for (u32 j = 0; j < kWarpColumns / 8; j++) {
            float* pair = results + lane / 4 * pitch + j * 8 + lane % 4 * 2;
            const float(&sum)[4] = sums[i][j];
            *reinterpret_cast<Pair<float>*>(pair) = {sum[0], sum[1]};
            *reinterpret_cast<Pair<float>*>(pair + 8 * pitch) = {sum[2], sum[3]};
        }
        __syncwarp();
        write_rows<kWarpColumns>(g, results, pitch, tile.row + warp_row + i * 16,
                                 tile.column + warp_column);
        __syncwarp();
    }
}

#ifdef OPERANDS_E4M3
// Pairs of 8-bit operands that are neighbours in depth are moved as if each were one of 16 bits.
extern "C" __global__ void __launch_bounds__(kThreads, 1) gemm_nt(const GemmArguments g) {
    GemmArguments pairs = g;
    pairs.depth /= 2;
    pairs.stride_a /= 2;
    pairs.stride_b /= 2;
    gemm<false, true>(pairs);
}
#else
ENTRY(gemm_nn, false, false)
ENTRY(gemm_nt, false, true)
ENTRY(gemm_tn, true, false)
ENTRY(gemm_tt, true, true)
#endif
