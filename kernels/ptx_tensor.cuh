// The tensor cores of sm_100a and sm_103a, which work beside all threads on memory of their own.
// Like `ptx.cuh`, this file is inline PTX and nothing else; PTX ISA, 9.7.16 "TensorCore 5th
// Generation Family Instructions".
#pragma once
#include "ptx_async.cuh"

// Tensor memory has 128 lanes and 512 columns of 32 bits; an address is a lane in the upper half
// and a column in the lower.
const u32 kTensorColumns = 512;

// Takes all of the multiprocessor's tensor memory, and writes its address to shared memory. By a
// warp, which gives it back.
DEVICE void tensor_take(u32* address) {
    asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], %1;" ::"r"(
                     shared_address(address)),
                 "n"(kTensorColumns)
                 : "memory");
    asm volatile("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" ::: "memory");
}
DEVICE void tensor_give_back(u32 address) {
    asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, %1;" ::"r"(address),
                 "n"(kTensorColumns)
                 : "memory");
}

// Orders what the tensor cores do for this thread with what other threads have waited for: before
// telling them, and after being told.
DEVICE void tensor_tell() { asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory"); }
DEVICE void tensor_told() { asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory"); }

#define TENSOR_PRODUCT(kind)                                                                       \
    asm volatile("{\n"                                                                             \
                 ".reg .pred add;\n"                                                               \
                 "setp.ne.b32 add, %4, 0;\n"                                                       \
                 "tcgen05.mma.cta_group::1.kind::" kind " [%0], %1, %2, %3, add;\n"                \
                 "}" ::"r"(sums),                                                                  \
                 "l"(a), "l"(b), "r"(description), "r"(add)                                        \
                 : "memory")

// Begins sums = a * b, or sums += a * b where `add` is not 0. By one thread; the description says
// sizes and types.
DEVICE void tensor_product_half(u32 sums, u64 a, u64 b, u32 description, u32 add) {
    TENSOR_PRODUCT("f16");
}
DEVICE void tensor_product_8_bits(u32 sums, u64 a, u64 b, u32 description, u32 add) {
    TENSOR_PRODUCT("f8f6f4");
}

// Arrives at a barrier when all products that this thread has begun are complete.
DEVICE void tensor_arrive(Barrier* barrier) {
    asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 "
                 "[%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

// What a thread reads of tensor memory at once: its warp's lane of that number, 32 columns. Warps
// have the lanes of their number within a warpgroup, 32 each.
const u32 kTensorRead = 32;

#define EIGHT(i)                                                                                   \
    "+r"(to[i]), "+r"(to[i + 1]), "+r"(to[i + 2]), "+r"(to[i + 3]), "+r"(to[i + 4]),               \
        "+r"(to[i + 5]), "+r"(to[i + 6]), "+r"(to[i + 7])
#define ALL_READ EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24)

// Begins to read, from the address of the warp's first lane. `to` is there after `tensor_read_end`.
DEVICE void tensor_read(u32 (&to)[kTensorRead], u32 address) {
    asm volatile("tcgen05.ld.sync.aligned.32x32b.x32.b32 {" TEN("") TEN("1") TEN("2")
                 "%30, %31}, [%32];"
                 : ALL_READ
                 : "r"(address));
}
DEVICE void tensor_read_end(u32 (&to)[kTensorRead]) {
    asm volatile("tcgen05.wait::ld.sync.aligned;" : ALL_READ::"memory");
}
