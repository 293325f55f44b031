// Matrix products on the tensor cores of sm_90a by wgmma.
//
// As many blocks as there are multiprocessors take tiles of 128 x 256 in turn. One warp of a block
// lets the copy engine bring slices of the operands, 128 bytes deep, into a ring of stages in
// shared memory; two warpgroups compute 64 x 256 each. Results leave through shared memory by the
// copy engine, while the next tile is computed.
#include "gemm_tma.cuh"

const u32 kGroup = 128; // threads of a warpgroup
const u32 kConsumers = 2;
const u32 kGroupRows = kTileRows / kConsumers;
const u32 kTmaThreads = (1 + kConsumers) * kGroup;
const u32 kSteps = kBoxBytes / 32;
// Each consumer has two boxes of results, so that one is written while the other leaves.
const u32 kResultBoxBytes = kGroupRows * kBoxBytes;
const u32 kResultBytes = kConsumers * 2 * kResultBoxBytes;

template <bool kTransposeA, bool kTransposeB>
DEVICE void product(float (&sums)[kSums], u64 a, u64 b, u32 add) {
#if defined(OPERANDS_E4M3)
    product_e4m3(sums, a, b, add);
#elif defined(ELEMENT_BF16)
    product_bf16<kTransposeA, kTransposeB>(sums, a, b, add);
#else
    product_f16<kTransposeA, kTransposeB>(sums, a, b, add);
#endif
}

template <bool kTransposeA, bool kTransposeB> struct Block {
    using InRing = Ring<kTransposeA, kTransposeB>;
    using A = typename InRing::A;
    using B = typename InRing::B;

    const TmaProduct& t;
    InRing ring;
    u8* results;

    DEVICE Block(const TmaProduct& product, u8* shared)
        : t(product), results(shared + InRing::kBytes) {
        Barrier* barriers = reinterpret_cast<Barrier*>(results + kResultBytes);
        ring = {shared, barriers, barriers + STAGES};
    }

    // By one thread.
    DEVICE void prepare() {
        ring.prepare(kConsumers * kGroup / 32);
        barriers_publish();
    }

    // By a warpgroup.
    DEVICE void consume(u32 group) {
        Turn<STAGES> turn;
        const u32 tiles = tile_count<kTileRows, kTileColumns>(t.product);
        for (u32 number = blockIdx.x; number < tiles; number += gridDim.x) {
            float sums[kSums];
            sum_up(sums, turn, group);
            const BlockTile tile = numbered_tile<kTileRows, kTileColumns>(t.product, number);
            const u32 row = tile.row + group * kGroupRows;
            switch (t.product.flags) {
            case 0: write<u16, false>(sums, group, row, tile.column); break;
            case kAccumulate: write<u16, true>(sums, group, row, tile.column); break;
            case kResultIsF32: write<float, false>(sums, group, row, tile.column); break;
            default: write<float, true>(sums, group, row, tile.column); break;
            }
        }
        // Shared memory stays until all has been read.
        copies_back_wait<0>();
    }

    // All slices of one tile. The products of a slice are still being made when those of the next
    // are begun.
    DEVICE void sum_up(float (&sums)[kSums], Turn<STAGES>& turn, u32 group) {
        Barrier* used = nullptr;
        for (u32 slice = 0; slice < slice_count(t.product); slice++) {
            const u8* at = ring.stage(turn);
            barrier_wait(&ring.full[turn.stage], turn.parity);
            products_begin();
#pragma unroll
            for (u32 step = 0; step < kSteps; step++) {
                const u64 a = A::part(at, group * kGroupRows, step);
                const u64 b = B::part(at + A::kBytes, 0, step);
                product<kTransposeA, !kTransposeB>(sums, a, b, slice + step);
            }
            products_commit();
            products_wait<1>();
            if (used) {
                release(used);
            }
            used = &ring.empty[turn.stage];
            turn.advance();
        }
        products_end(sums);
        release(used);
    }

    // Each warp for itself, as it knows of its own products alone that they are complete.
    DEVICE void release(Barrier* used) {
        if (threadIdx.x % 32 == 0) {
            barrier_arrive(used);
        }
    }

    template <typename T, bool kAdds>
    DEVICE void write(const float (&sums)[kSums], u32 group, u32 row, u32 column) {
        const u32 across = kBoxBytes / sizeof(T);
        const bool leads = threadIdx.x % kGroup == 0;
        const u32 lane = threadIdx.x % 32;
        const u32 down = threadIdx.x % kGroup / 32 * 16 + lane / 4;
#pragma unroll
        for (u32 part = 0; part < kTileColumns / across; part++) {
            u8* box = results + (group * 2 + part % 2) * kResultBoxBytes;
            // What left this box before has been read, also what did at the end of the last tile.
            copies_back_wait<1>();
            group_sync(1 + group, kGroup);
#pragma unroll
            for (u32 j = 0; j < across / 8; j++) {
                const float* four = &sums[(part * (across / 8) + j) * 4];
                const u32 right = j * 8 + lane % 4 * 2;
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    const u32 at = swizzled(down + i * 8, right * sizeof(T));
                    const Pair<T> pair = finished<T, kAdds>(
                        t.product, row + down + i * 8, column + part * across + right,
                        four[i * 2], four[i * 2 + 1]);
                    write_for_copy(box + at, pair);
                }
            }
            publish_writes();
            group_sync(1 + group, kGroup);
            if (leads) {
                copy_box_back(&t.c, box, column + part * across, row);
                copies_back_commit();
            }
        }
    }
};

template <bool kTransposeA, bool kTransposeB> DEVICE void gemm(const TmaProduct& t) {
    alignas(1024) extern __shared__ u8 shared[];
    Block<kTransposeA, kTransposeB> block(t, shared);
    if (threadIdx.x == 0) {
        block.prepare();
    }
    __syncthreads();
    const u32 group = threadIdx.x / kGroup;
    // 40 + 2 * 232 is as much as the 3 * 168 that the block begins with.
    if (group == kConsumers) {
        registers_release<40>();
        if (threadIdx.x % kGroup == 0) {
            block.ring.fill(t);
        }
    } else {
        registers_take<232>();
        block.consume(group);
    }
}

TMA_ENTRIES
