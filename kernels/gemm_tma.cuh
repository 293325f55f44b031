// What the matrix products whose operands are copied by the copy engine have in common.
#pragma once
#include "gemm.cuh"
#include "ptx_async.cuh"

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
// Descriptor Format".
DEVICE u64 operand(const void* at, u32 column_bytes, u32 group_bytes) {
    const u64 kSwizzle128 = 1ull << 62;
    return (shared_address(at) & 0x3ffff) >> 4 | static_cast<u64>(column_bytes >> 4) << 16 |
           static_cast<u64>(group_bytes >> 4) << 32 | kSwizzle128;
}

// A slice of one operand in shared memory: kOuter rows or columns of the result, kTileDepth deep, in
// boxes as they are copied. The boxes' rows are along the depth if that is contiguous in memory; else
// they are along kOuter, and boxes of kTileDepth rows lie one after the other.
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

// Where the copy engine wants a byte of a box of results: chunks of 16 bytes of a row change places by
// its number.
DEVICE u32 swizzled(u32 row, u32 byte) {
    return row * kBoxBytes + (byte ^ row % 8 * 16);
}

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
