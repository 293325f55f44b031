// What sm_90 and later do asynchronously: barriers in shared memory, copies of boxes of a matrix by
// the copy engine (TMA), and products of warpgroups. Like `ptx.cuh`, this file is inline PTX and
// nothing else, named after the PTX ISA: 9.7.13.15 "mbarrier", 9.7.9.27 "cp.async.bulk.tensor",
// 9.7.15 "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once
#include "ptx.cuh"

// How a matrix lies in memory and which box of it one copy moves. Made by the driver, opaque to all
// but the copy engine; passed to kernels by value.
struct alignas(128) TensorMap {
    u64 opaque[16];
};

// A barrier that counts arrivals of threads and bytes of copies. Its phases are numbered from 0;
// what is waited for is the end of a phase, named by its number's lowest bit.
typedef u64 Barrier;

DEVICE void barrier_init(Barrier* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// Makes the barriers that this thread has initialised visible to the copy engine.
DEVICE void barriers_publish() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void barrier_arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

// Arrives, and lets the phase end only after this many bytes have been copied too.
DEVICE void barrier_arrive_expecting(Barrier* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

// Waits until the phase of this parity has ended.
DEVICE void barrier_wait(Barrier* barrier, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// Waits for `threads` threads of the block, of whole warps, that name the same barrier (1 to 15).
DEVICE void group_sync(u32 name, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// Begins to copy the box of a matrix at `column`, `row` to shared memory; its bytes count for
// `barrier`. What is outside of the matrix becomes zero.
DEVICE void copy_box(void* to, const TensorMap* map, Barrier* barrier, u32 column, u32 row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
                 : "memory");
}

// Writes to shared memory what `copy_box_back` is going to read.
template <typename T> DEVICE void write_for_copy(u8* to, const T& value) {
    *reinterpret_cast<T*>(to) = value;
}

// After this, the copy engine sees what this thread has written to shared memory.
DEVICE void publish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Begins to copy a box from shared memory to a matrix. What is outside of it is not written.
DEVICE void copy_box_back(const TensorMap* map, const void* from, u32 column, u32 row) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group "
                 "[%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(shared_address(from)), "r"(column), "r"(row)
                 : "memory");
}

// Ends a group of this thread's copies back.
DEVICE void copies_back_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most the `kOpen` newest groups have not read all of what they copy.
template <int kOpen> DEVICE void copies_back_wait() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kOpen) : "memory");
}

// Changes the number of registers of each thread of the warp: gives some back, or waits for some
// that others have given back. All warps of a warpgroup do the same.
template <u32 kRegisters> DEVICE void registers_release() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <u32 kRegisters> DEVICE void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// What a warpgroup's products have summed up: of 64 x 256, each warp has 16 rows. A thread has in
// 4 * j + i of column 8 * j + lane % 4 * 2 + i % 2 and row lane / 4 + i / 2 * 8.
const u32 kSums = 128;

// Before the first product, and after others than products have touched the sums.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products.
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the `kOpen` newest groups of products are incomplete.
template <int kOpen> DEVICE void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kOpen) : "memory");
}

#define TEN(tens)                                                                                  \
    "%" tens "0, %" tens "1, %" tens "2, %" tens "3, %" tens "4, %" tens "5, %" tens "6, %" tens   \
    "7, %" tens "8, %" tens "9, "
#define SUMS                                                                                       \
    "{" TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") TEN("6") TEN("7") TEN("8") TEN("9")   \
        TEN("10") TEN("11") "%120, %121, %122, %123, %124, %125, %126, %127}"
#define FOUR(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
#define ALL_SUMS                                                                                   \
    SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96),      \
        SIXTEEN(112)
#define PRODUCT(shape_and_types, transposes)                                                       \
    asm volatile("{\n"                                                                             \
                 ".reg .pred add;\n"                                                               \
                 "setp.ne.b32 add, %130, 0;\n"                                                     \
                 "wgmma.mma_async.sync.aligned." shape_and_types " " SUMS                          \
                 ", %128, %129, add, 1, 1" transposes ";\n"                                        \
                 "}"                                                                               \
                 : ALL_SUMS                                                                        \
                 : "l"(a), "l"(b), "r"(add))
#define HALF_PRODUCT(type)                                                                         \
    if constexpr (kTransposeA && kTransposeB) {                                                    \
        PRODUCT("m64n256k16.f32." type "." type, ", 1, 1");                                        \
    } else if constexpr (kTransposeA) {                                                            \
        PRODUCT("m64n256k16.f32." type "." type, ", 1, 0");                                        \
    } else if constexpr (kTransposeB) {                                                            \
        PRODUCT("m64n256k16.f32." type "." type, ", 0, 1");                                        \
    } else {                                                                                       \
        PRODUCT("m64n256k16.f32." type "." type, ", 0, 0");                                        \
    }

// Waits for all products, and only then lets the sums be used.
DEVICE void products_end(float (&sums)[kSums]) {
    products_wait<0>();
    asm volatile("" : ALL_SUMS::"memory");
}

// Begins sums = a * b, or sums += a * b where `add` is not 0; a is 64 x 16, b 16 x 256. kTranspose:
// the operand's rows of 128 bytes are not along the depth.
template <bool kTransposeA, bool kTransposeB>
DEVICE void product_f16(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    HALF_PRODUCT("f16")
}
template <bool kTransposeA, bool kTransposeB>
DEVICE void product_bf16(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    HALF_PRODUCT("bf16")
}

// The same of 8-bit floating-point numbers with 4 bits of exponent, 32 deep.
DEVICE void product_e4m3(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    PRODUCT("m64n256k32.f32.e4m3.e4m3", "");
}
