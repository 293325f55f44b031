// Everything that the kernels ask of the hardware beyond plain CUDA C++: the only file with inline
// PTX. No header of the toolkit is included anywhere in this folder, so that a machine with NVRTC
// alone can compile all of it.
//
// PTX here is named after the instruction; the layouts of matrix fragments are in the PTX ISA,
// 9.7.15 "Warp Level Matrix Multiply-Accumulate Instructions".
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) Chunk {
    u32 word[4];
};

#define DEVICE __device__ __forceinline__

DEVICE u32 shared_address(const void* shared) {
    return static_cast<u32>(__cvta_generic_to_shared(shared));
}

// Copies `bytes` (0 to 16) from global to shared memory and fills the rest of the 16 with zeros.
// Complete after `copies_wait`; both addresses are multiples of 16. Where there are no bytes to
// copy, nothing is read, and the address may be anywhere.
DEVICE void copy_chunk(void* shared, const void* global, u32 bytes) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
#else
    Chunk chunk = {{0, 0, 0, 0}};
    if (bytes == 16) {
        chunk = *static_cast<const Chunk*>(global);
    } else {
        const u16* from = static_cast<const u16*>(global);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 half = 2 * i < bytes ? from[i] : 0;
            chunk.word[i / 2] |= half << (i % 2 * 16);
        }
    }
    *static_cast<Chunk*>(shared) = chunk;
#endif
}

// Ends a group of copies.
DEVICE void copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the `kOpen` newest groups of this thread's copies are incomplete.
template <int kOpen> DEVICE void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
#endif
}

// Four 8 x 8 matrices of 16-bit elements; lane 8 * i + j names row j of matrix i.
DEVICE void load_matrices(u32 (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed.
DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a * b for a 16 x 16 and b 16 x 8 of fp16, on one warp.
DEVICE void multiply_add_f16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    // sm_75 has half of that depth; the fragments are the halves of the larger ones.
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// The same of bf16; sm_80 and later.
DEVICE void multiply_add_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of 8-bit floating-point numbers with 4 bits of exponent, twice as deep: where the others
// have a half, there are two neighbours in depth. sm_89 and later.
DEVICE void multiply_add_e4m3(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#define WMMA_LOAD(operand, layout)                                                                 \
    asm volatile("wmma.load." operand ".sync.aligned." layout ".m16n16k16.shared.f16 "             \
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"                                     \
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]), "=r"(to[4]), "=r"(to[5]),   \
                   "=r"(to[6]), "=r"(to[7])                                                        \
                 : "r"(shared_address(from)), "r"(pitch)                                           \
                 : "memory")
#define WMMA_MULTIPLY_ADD(layouts)                                                                 \
    asm("wmma.mma.sync.aligned." layouts ".m16n16k16.f32.f32 "                            \
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11, %12, %13, %14, %15}, "      \
                 "{%16, %17, %18, %19, %20, %21, %22, %23}, {%0, %1, %2, %3, %4, %5, %6, %7};"     \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]),         \
                   "+f"(c[6]), "+f"(c[7])                                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]),    \
                   "r"(a[7]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]),    \
                   "r"(b[6]), "r"(b[7]))

// A 16 x 16 fragment of the left operand, whose rows (`kRowMajor`) or columns lie `pitch` apart.
template <bool kRowMajor> DEVICE void wmma_load_left(u32 (&to)[8], const u16* from, u32 pitch) {
    if constexpr (kRowMajor) {
        WMMA_LOAD("a", "row");
    } else {
        WMMA_LOAD("a", "col");
    }
}

// The same of the right operand.
template <bool kRowMajor> DEVICE void wmma_load_right(u32 (&to)[8], const u16* from, u32 pitch) {
    if constexpr (kRowMajor) {
        WMMA_LOAD("b", "row");
    } else {
        WMMA_LOAD("b", "col");
    }
}

// c += a * b, 16 x 16 each; the layouts are those of the loads.
template <bool kLeftRowMajor, bool kRightRowMajor>
DEVICE void wmma_multiply_add(float (&c)[8], const u32 (&a)[8], const u32 (&b)[8]) {
    if constexpr (kLeftRowMajor && kRightRowMajor) {
        WMMA_MULTIPLY_ADD("row.row");
    } else if constexpr (kLeftRowMajor) {
        WMMA_MULTIPLY_ADD("row.col");
    } else if constexpr (kRightRowMajor) {
        WMMA_MULTIPLY_ADD("col.row");
    } else {
        WMMA_MULTIPLY_ADD("col.col");
    }
}

// Writes a 16 x 16 result to shared memory, row by row, `pitch` elements apart.
DEVICE void wmma_store(float* to, const float (&c)[8], u32 pitch) {
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 "
                 "[%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;" ::"r"(shared_address(to)),
                 "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]), "f"(c[4]), "f"(c[5]), "f"(c[6]),
                 "f"(c[7]), "r"(pitch)
                 : "memory");
}

// To fp16, to nearest, ties to even.
DEVICE u16 f16_bits(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

DEVICE float f16_value(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// To bf16, to nearest, ties to even; sm_80 and later.
DEVICE u16 bf16_bits(float value) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0f), "f"(value));
    return static_cast<u16>(pair);
}

DEVICE float bf16_value(u16 bits) {
    return __uint_as_float(static_cast<u32>(bits) << 16);
}

// Nanoseconds of a clock that all of the device's multiprocessors share. It advances in steps that
// depend on the device, from tens of nanoseconds to a microsecond.
DEVICE u64 global_timer_ns() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}

// Lets other warps of the multiprocessor go first, for about so long (PTX ISA 6.3, sm_70).
DEVICE void pause_ns(u32 duration) {
    asm volatile("nanosleep.u32 %0;" ::"r"(duration) : "memory");
}

// Cycles of this multiprocessor's clock.
DEVICE u64 cycles() {
    u64 now;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(now)::"memory");
    return now;
}
