// Matrix products on the tensor cores of sm_100a and sm_103a by tcgen05.
//
// As many blocks as there are multiprocessors take tiles of 128 x 256 in turn. Of a block, one
// thread lets the copy engine bring slices of the operands into a ring of stages in shared memory,
// one has them multiplied, and a warpgroup writes results. Sums are in tensor memory, which has
// room for two tiles: one is written while the next is computed.
#define TENSOR_MEMORY
#include "gemm_tma.cuh"
#include "ptx_tensor.cuh"

const u32 kTmaThreads = 256;
const u32 kWriters = 128; // the last of the threads
const u32 kHalves = 2;    // of tensor memory
const u32 kSteps = kBoxBytes / 32;
// Two boxes of results, so that one is written while the other leaves.
const u32 kResultBoxBytes = kTileRows * kBoxBytes;

// What is multiplied; PTX ISA, 9.7.16.4.2, "Instruction descriptor".
template <bool kTransposeA, bool kTransposeB> DEVICE u32 description() {
#ifdef OPERANDS_E4M3
    const u32 type = 0;
#elif defined(ELEMENT_BF16)
    const u32 type = 1;
#else
    const u32 type = 0;
#endif
    const u32 kSumsInF32 = 1 << 4;
    const u32 operands = type << 7 | type << 10 | kTransposeA << 15 | kTransposeB << 16;
    return kSumsInF32 | operands | kTileColumns / 8 << 17 | kTileRows / 16 << 24;
}

DEVICE void put(u32* words, const Pair<u16>& pair) {
    words[0] = pair.first | static_cast<u32>(pair.second) << 16;
}
DEVICE void put(u32* words, const Pair<float>& pair) {
    words[0] = __float_as_uint(pair.first);
    words[1] = __float_as_uint(pair.second);
}

template <bool kTransposeA, bool kTransposeB> struct Block {
    using InRing = Ring<kTransposeA, kTransposeB>;
    using A = typename InRing::A;
    using B = typename InRing::B;

    const TmaProduct& t;
    InRing ring;
    u8* results;
    Barrier* summed;  // of each half of tensor memory: its tile is complete
    Barrier* written; // of each half: it is free
    u32* tensor;      // where the address of tensor memory is

    DEVICE Block(const TmaProduct& product, u8* shared)
        : t(product), results(shared + InRing::kBytes) {
        Barrier* barriers = reinterpret_cast<Barrier*>(results + 2 * kResultBoxBytes);
        ring = {shared, barriers, barriers + STAGES};
        summed = barriers + 2 * STAGES;
        written = summed + kHalves;
        tensor = reinterpret_cast<u32*>(written + kHalves);
    }

    // By one thread.
    DEVICE void prepare() {
        ring.prepare(1);
        for (u32 half = 0; half < kHalves; half++) {
            barrier_init(&summed[half], 1);
            barrier_init(&written[half], kWriters / 32);
        }
        barriers_publish();
    }

    // By one thread.
    DEVICE void multiply() {
        const u32 what = description<kTransposeA, !kTransposeB>();
        Turn<STAGES> turn;
        Turn<kHalves> half;
        const u32 tiles = tile_count<kTileRows, kTileColumns>(t.product);
        for (u32 number = blockIdx.x; number < tiles; number += gridDim.x) {
            barrier_wait(&written[half.stage], half.parity ^ 1);
            tensor_told();
            const u32 sums = *tensor + half.stage * kTileColumns;
            for (u32 slice = 0; slice < slice_count(t.product); slice++) {
                const u8* at = ring.stage(turn);
                barrier_wait(&ring.full[turn.stage], turn.parity);
                tensor_told();
#pragma unroll
                for (u32 step = 0; step < kSteps; step++) {
                    const u64 a = A::part(at, 0, step);
                    const u64 b = B::part(at + A::kBytes, 0, step);
#ifdef OPERANDS_E4M3
                    tensor_product_8_bits(sums, a, b, what, slice + step);
#else
                    tensor_product_half(sums, a, b, what, slice + step);
#endif
                }
                tensor_arrive(&ring.empty[turn.stage]);
                turn.advance();
            }
            tensor_arrive(&summed[half.stage]);
            half.advance();
        }
    }

    // By the writers.
    DEVICE void write_all() {
        Turn<kHalves> half;
        const u32 tiles = tile_count<kTileRows, kTileColumns>(t.product);
        for (u32 number = blockIdx.x; number < tiles; number += gridDim.x) {
            const BlockTile tile = numbered_tile<kTileRows, kTileColumns>(t.product, number);
            barrier_wait(&summed[half.stage], half.parity);
            tensor_told();
            switch (t.product.flags) {
            case 0: write<u16, false>(tile, half.stage); break;
            case kAccumulate: write<u16, true>(tile, half.stage); break;
            case kResultIsF32: write<float, false>(tile, half.stage); break;
            default: write<float, true>(tile, half.stage); break;
            }
            half.advance();
        }
        // Shared memory stays until all has been read.
        copies_back_wait<0>();
    }

    // Each thread has a row of the tile.
    template <typename T, bool kAdds> DEVICE void write(const BlockTile& tile, u32 half) {
        const u32 across = kBoxBytes / sizeof(T);
        const u32 parts = kTileColumns / across;
        const u32 kPerChunk = 16 / sizeof(T);
        const u32 down = threadIdx.x % kWriters;
        const u32 lanes = *tensor + (down / 32 * 32 << 16) + half * kTileColumns;
#pragma unroll 1
        for (u32 part = 0; part < parts; part++) {
            u8* box = results + part % 2 * kResultBoxBytes;
            // What left this box before has been read, also what did at the end of the last tile.
            copies_back_wait<1>();
            group_sync(1, kWriters);
#pragma unroll
            for (u32 i = 0; i < across; i += kTensorRead) {
                u32 sums[kTensorRead];
                tensor_read(sums, lanes + part * across + i);
                tensor_read_end(sums);
#pragma unroll
                for (u32 j = 0; j < kTensorRead; j += kPerChunk) {
                    Chunk chunk;
#pragma unroll
                    for (u32 k = j; k < j + kPerChunk; k += 2) {
                        const Pair<T> pair = finished<T, kAdds>(
                            t.product, tile.row + down, tile.column + part * across + i + k,
                            __uint_as_float(sums[k]), __uint_as_float(sums[k + 1]));
                        put(&chunk.word[(k - j) * sizeof(T) / 4], pair);
                    }
                    write_for_copy(box + swizzled(down, (i + j) * sizeof(T)), chunk);
                }
            }
            if (part == parts - 1) {
                release(half);
            }
            publish_writes();
            group_sync(1, kWriters);
            if (down == 0) {
                copy_box_back(&t.c, box, tile.column + part * across, tile.row);
                copies_back_commit();
            }
        }
    }

    // All of this warp's lanes have been read.
    DEVICE void release(u32 half) {
        tensor_tell();
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            barrier_arrive(&written[half]);
        }
    }
};

template <bool kTransposeA, bool kTransposeB> DEVICE void gemm(const TmaProduct& t) {
    alignas(1024) extern __shared__ u8 shared[];
    Block<kTransposeA, kTransposeB> block(t, shared);
    const u32 warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        block.prepare();
    }
    if (warp == 1) {
        tensor_take(block.tensor);
        tensor_tell();
    }
    __syncthreads();
    tensor_told();
    if (threadIdx.x == 0) {
        block.ring.fill(t);
    } else if (threadIdx.x == 32) {
        block.multiply();
    } else if (threadIdx.x >= kTmaThreads - kWriters) {
        block.write_all();
    }
    __syncwarp();
    tensor_tell();
    __syncthreads();
    if (warp == 1) {
        tensor_told();
        tensor_give_back(*block.tensor);
    }
}

TMA_ENTRIES
